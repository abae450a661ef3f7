//! Whether the vault works, as the vault itself finds out.

use login_etl::schema;
use login_etl_vault::token::{Field, Token};
use serde_json::{Value, json};

use crate::kms_stub::{Behaviour, KEY, KmsStub, REQUEST_ID, sdk_at};
use crate::support::{CALLER, Response, Vault, post};

/// Returns the keys of an answer, without their hashes and times.
fn keys(answer: &Response) -> Vec<(&str, bool, i64, Option<&str>)> {
    let keys = answer.body["keys"].as_array().unwrap().iter();
    keys.map(|key| {
        assert_eq!(key["sha256"].as_str().unwrap().len(), 16);
        assert!(key["accepted_at"].as_str().unwrap().ends_with('Z'));
        let (kms_key, is_current) = (key["kms_key"].as_str().unwrap(), key["is_current"].as_bool().unwrap());
        (kms_key, is_current, key["sealed"].as_i64().unwrap(), key["kms"].as_str())
    })
    .collect()
}

/// Returns the counts of an answer: sampled, opened, unopenable.
fn counts(answer: &Response) -> [i64; 3] {
    ["sampled", "opened", "unopenable"].map(|name| answer.body[name].as_i64().unwrap())
}

#[tokio::test]
async fn chosen_values_open_each_with_an_entry() {
    let kms = KmsStub::start(Behaviour::Derive).await;
    let vault = Vault::create(kms.public_key, KEY).await;
    let mut stream = vault.stream();
    let mut tokens = vault.write(&[(Field::Ip, "192.0.2.1"), (Field::DeviceId, "593-47-5928")]).await;
    for number in 2..6 {
        let sealed = stream.seal(Field::Ip, &format!("192.0.2.{number}"));
        vault.insert_folded(&stream, &sealed).await;
        tokens.push(sealed.token);
    }
    let broker = vault.broker(&kms.sdk().await);

    let verified = post(&broker, "/verify", &json!({})).await;

    assert_eq!((verified.status, counts(&verified)), (200, [6, 6, 0]));
    assert_eq!(keys(&verified), [(KEY, true, 4, Some("works"))]);
    assert_eq!(verified.body["settings_have_current_key"], true);
    assert_eq!(verified.body["audit_entries"], json!([1, 2, 3, 4, 5, 6]));
    // Also one request for the public key.
    assert_eq!(kms.requests(), 7);
    let audit = vault.audit().await;
    let mut chosen: Vec<_> = audit.iter().map(|entry| entry["token"].as_str().unwrap().to_owned()).collect();
    let mut expected: Vec<_> = tokens.iter().map(Token::to_text).collect();
    chosen.sort_unstable();
    expected.sort_unstable();
    assert_eq!(chosen, expected);
    for (entry, token) in audit.iter().map(|entry| (entry, entry["token"].clone())) {
        let expected = json!({
            "caller": CALLER, "verb": "verify", "field": null, "token": token, "subject": null, "reason": null,
            "ticket": null, "is_taken": true, "outcome": "done", "kms_request_id": REQUEST_ID,
        });
        assert_eq!(entry, &expected);
    }
    let text = format!("{} {:?}", verified.body, verified.record);
    assert!(
        tokens.iter().all(|token| !text.contains(&token.to_text())) && !text.contains("192.0.2"),
        "{text}"
    );
}

#[tokio::test]
async fn sample_has_the_number_that_was_asked_for() {
    let kms = KmsStub::start(Behaviour::Derive).await;
    let vault = Vault::create(kms.public_key, KEY).await;
    let mut stream = vault.stream();
    for number in 0..9 {
        let sealed = stream.seal(Field::Ip, &format!("192.0.2.{number}"));
        vault.insert_folded(&stream, &sealed).await;
    }
    let broker = vault.broker(&kms.sdk().await);

    let three = post(&broker, "/verify", &json!({ "sample": 3 })).await;
    let all = post(&broker, "/verify", &json!({ "sample": 100 })).await;

    assert_eq!((counts(&three), counts(&all)), ([3, 3, 0], [9, 9, 0]));
    let distinct = "SELECT count(DISTINCT token) FROM vault_audit WHERE id > 3";
    assert_eq!(vault.admin.query_one(distinct, &[]).await.unwrap().get::<_, i64>(0), 9);
}

/// The values of a batch that is not folded yet are at most half of all.
#[tokio::test]
async fn one_batch_gives_several_values() {
    let kms = KmsStub::start(Behaviour::Derive).await;
    let vault = Vault::create(kms.public_key, KEY).await;
    let mut stream = vault.stream();
    let sealed: Vec<_> = (0..9).map(|number| stream.seal(Field::Ip, &format!("192.0.2.{number}"))).collect();
    vault.insert_in_inbox(&stream, &sealed).await;
    let broker = vault.broker(&kms.sdk().await);

    let ten = post(&broker, "/verify", &json!({})).await;
    let one = post(&broker, "/verify", &json!({ "sample": 1 })).await;

    let [sampled, opened, unopenable] = counts(&ten);
    assert!((2..=5).contains(&sampled) && opened == sampled && unopenable == 0, "{sampled} {opened}");
    assert_eq!(counts(&one), [1, 1, 0]);
}

#[tokio::test]
async fn empty_vault_has_nothing_to_try() {
    let kms = KmsStub::start(Behaviour::Derive).await;
    let vault = Vault::create(kms.public_key, KEY).await;
    let broker = vault.broker(&kms.sdk().await);

    let verified = post(&broker, "/verify", &json!({ "sample": 1 })).await;

    assert_eq!((verified.status, counts(&verified)), (200, [0, 0, 0]));
    assert_eq!(keys(&verified), [(KEY, true, 0, None)]);
    assert_eq!(vault.audit().await, [] as [Value; 0]);
}

#[tokio::test]
async fn changed_values_are_counted() {
    let kms = KmsStub::start(Behaviour::Derive).await;
    let vault = Vault::create(kms.public_key, KEY).await;
    let mut stream = vault.stream();
    let good = stream.seal(Field::Ip, "192.0.2.1");
    let mut flipped = stream.seal(Field::Ip, "192.0.2.2");
    flipped.ciphertext[20] ^= 1;
    vault.insert_folded(&stream, &good).await;
    vault.insert_folded(&stream, &flipped).await;
    let broker = vault.broker(&kms.sdk().await);

    let verified = post(&broker, "/verify", &json!({})).await;

    assert_eq!((verified.status, counts(&verified)), (200, [2, 1, 1]));
    assert_eq!(keys(&verified), [(KEY, true, 2, Some("works"))]);
    assert_eq!(verified.record.unopenable, 1);
    let mut outcomes: Vec<_> = vault.audit().await.iter().map(|entry| entry["outcome"].clone()).collect();
    outcomes.sort_by_key(ToString::to_string);
    assert_eq!(outcomes, ["done", "unopenable"]);
}

#[tokio::test]
async fn key_that_kms_refuses_is_tried_once() {
    let kms = KmsStub::start(Behaviour::Refuse(400, "DisabledException")).await;
    let vault = Vault::create(kms.public_key, KEY).await;
    vault.write(&[(Field::Ip, "192.0.2.1"), (Field::Ip, "192.0.2.2"), (Field::Ip, "192.0.2.3")]).await;
    let broker = vault.broker(&kms.sdk().await);

    let verified = post(&broker, "/verify", &json!({})).await;

    assert_eq!((verified.status, counts(&verified)), (200, [1, 0, 0]));
    assert_eq!(keys(&verified), [(KEY, true, 0, Some("KmsKeyDisabled"))]);
    assert_eq!(verified.body["settings_have_current_key"], Value::Null);
    // One value, and the public key.
    assert_eq!(kms.requests(), 2);
    let audit = vault.audit().await;
    let outcomes: Vec<_> = audit.iter().map(|entry| (&entry["outcome"], &entry["kms_request_id"])).collect();
    let failed = (json!("failed"), Value::Null);
    let kms_failed = (json!("kms-failed"), json!(REQUEST_ID));
    assert_eq!(outcomes[0], (&kms_failed.0, &kms_failed.1));
    assert!(outcomes[1..].iter().all(|outcome| *outcome == (&failed.0, &failed.1)));
}

/// A value of each key is tried, however few values the key has.
#[tokio::test]
async fn keys_of_settings_and_database_are_compared() {
    let kms = KmsStub::start(Behaviour::Derive).await;
    let mut vault = Vault::create(kms.public_key, KEY).await;
    let mut stream = vault.stream();
    let sealed = stream.seal(Field::Ip, "192.0.2.1");
    vault.insert_folded(&stream, &sealed).await;
    let other = KmsStub::start(Behaviour::Derive).await;
    let other_key = {
        use base64::Engine;
        base64::engine::general_purpose::STANDARD.encode(other.public_key.to_spki()).parse().unwrap()
    };
    schema::vault::accept_key(&mut vault.admin, "public", &other_key, "other-key").await.unwrap();
    let broker = vault.broker(&kms.sdk().await);

    let verified = post(&broker, "/verify", &json!({ "sample": 1 })).await;

    assert_eq!(counts(&verified), [1, 1, 0]);
    assert_eq!(keys(&verified), [("other-key", true, 0, None), (KEY, false, 1, Some("works"))]);
    assert_eq!(verified.body["settings_have_current_key"], false);
}

#[tokio::test]
async fn unreachable_kms_is_named() {
    let kms = KmsStub::start(Behaviour::Derive).await;
    let vault = Vault::create(kms.public_key, KEY).await;
    vault.write(&[(Field::Ip, "192.0.2.1")]).await;
    let broker = vault.broker(&sdk_at("http://127.0.0.1:9").await);

    let verified = post(&broker, "/verify", &json!({})).await;

    assert_eq!((verified.status, keys(&verified)), (200, vec![(KEY, true, 0, Some("KmsUnreachable"))]));
}
