//! Tokens that belong to no value.

use login_etl_vault::token::{Field, Token};
use serde_json::{Value, json};

use crate::kms_stub::{Behaviour, KEY, KmsStub};
use crate::support::{CALLER, Vault, bare_entry, post, reveal_body, reveal_entry, token_of};

fn honey_body(count: u64) -> Value {
    json!({ "count": count, "reason": "test", "ticket": "SEC-2" })
}

#[tokio::test]
async fn honey_is_answered_as_an_unknown_token() {
    let kms = KmsStub::start(Behaviour::Derive).await;
    let vault = Vault::create(kms.public_key, KEY).await;
    let broker = vault.broker(&kms.sdk().await);

    let made = post(&broker, "/honey", &honey_body(2)).await;

    assert_eq!((made.status, &made.body["audit_entry"]), (200, &json!(1)));
    let tokens: Vec<_> =
        made.body["tokens"].as_array().unwrap().iter().map(|token| token.as_str().unwrap()).collect();
    assert_eq!(tokens.len(), 2);
    let honey = Token::parse(tokens[0]).unwrap();
    let other = token_of(Field::Ip, "192.0.2.1");
    let asked = post(&broker, "/reveal", &reveal_body(&honey)).await;
    let unknown = post(&broker, "/reveal", &reveal_body(&other)).await;
    let expected = |entry: u64| {
        json!({
            "type": "urn:login-etl:unknown-token", "title": "The token is unknown", "status": 404,
            "detail": "the vault has no value of this token", "audit_entry": entry,
        })
    };
    assert_eq!((asked.status, &asked.body), (404, &expected(2)));
    assert_eq!((unknown.status, &unknown.body), (404, &expected(3)));
    assert_eq!((asked.record.is_honey, unknown.record.is_honey), (true, false));
    assert!(!format!("{:?}", asked.record).contains(tokens[0]));
    let mut planted = bare_entry("honey", "done");
    (planted["reason"], planted["ticket"]) = ("test".into(), "SEC-2".into());
    assert_eq!(
        vault.audit().await,
        [planted, reveal_entry(&honey, "unknown", None), reveal_entry(&other, "unknown", None)]
    );
    assert_eq!(kms.requests(), 0);
}

/// The answer to whoever asks must not depend on it.
#[tokio::test]
async fn failed_lookup_of_honey_changes_no_answer() {
    let kms = KmsStub::start(Behaviour::Derive).await;
    let vault = Vault::create(kms.public_key, KEY).await;
    vault.execute("REVOKE EXECUTE ON FUNCTION vault_is_honey FROM login_vault").await;
    let broker = vault.broker(&kms.sdk().await);
    let token = token_of(Field::Ip, "192.0.2.1");

    let unknown = post(&broker, "/reveal", &reveal_body(&token)).await;

    assert_eq!((unknown.status, unknown.record.is_honey), (404, false));
    assert_eq!(vault.audit().await, [reveal_entry(&token, "unknown", None)]);
}

#[tokio::test]
async fn erased_honey_is_noted_too() {
    let kms = KmsStub::start(Behaviour::Derive).await;
    let vault = Vault::create(kms.public_key, KEY).await;
    let sealed = vault.write(&[(Field::Ip, "192.0.2.1")]).await;
    let broker = vault.broker(&kms.sdk().await);
    let made = post(&broker, "/honey", &honey_body(1)).await;
    let honey = Token::parse(made.body["tokens"][0].as_str().unwrap()).unwrap();

    let erased = post(&broker, "/erase", &reveal_body(&honey)).await;
    let revealed = post(&broker, "/reveal", &reveal_body(&honey)).await;
    let other = post(&broker, "/erase", &reveal_body(&sealed[0])).await;

    assert_eq!((erased.status, &erased.body["erased"]), (200, &json!([])));
    assert_eq!(revealed.status, 410);
    assert_eq!([erased, revealed, other].map(|one| one.record.is_honey), [true, true, false]);
    assert_eq!(vault.audit().await[1]["caller"], CALLER);
}
