//! Reveals after a resalt.

use std::time::Duration;

use login_etl::deadline::Deadline;
use login_etl::resalt;
use login_etl_vault::token::{Field, Token};
use serde_json::json;

use crate::kms_stub::{Behaviour, KEY, KmsStub};
use crate::support::{Vault, connect, post, reveal_body, reveal_entry, superuser};

const LATER_SALT: &str = "fedcba9876543210fedcba9876543210";

/// The broker's process is older than the later salt.
#[tokio::test]
async fn value_opens_by_its_new_token() {
    let kms = KmsStub::start(Behaviour::Derive).await;
    let vault = Vault::create(kms.public_key, KEY).await;
    let broker = vault.broker(&kms.sdk().await);
    let old = vault.write(&[(Field::Ip, "192.0.2.1"), (Field::DeviceId, "593-47-5928")]).await;
    let body = json!({ "field": "ip", "value": "192.0.2.1" });
    let before = post(&broker, "/token", &body).await;
    vault.accept_salt().await;

    let salts = vault.add_later_salt(LATER_SALT).await;
    let pending = post(&broker, "/token", &body).await;
    let mut config = superuser();
    config.dbname(&vault.name);
    let [mut reader, mut writer] = [connect(&config).await, connect(&config).await];
    let limit = Deadline::within(Duration::from_mins(1));
    let done = resalt::resalt(&mut reader, &mut writer, "public", &salts, limit).await.unwrap();
    let after = post(&broker, "/token", &body).await;
    let new = Token::parse(after.body["token"].as_str().unwrap()).unwrap();
    let by_new = post(&broker, "/reveal", &reveal_body(&new)).await;
    let by_old = post(&broker, "/reveal", &reveal_body(&old[0])).await;

    assert!(done.done);
    assert_eq!(before.body["token"], old[0].to_text());
    assert_eq!(pending.body, before.body);
    assert_ne!(new, old[0]);
    assert_eq!((by_new.status, &by_new.body["value"]), (200, &json!("192.0.2.1")));
    assert_eq!(by_old.status, 404);
    // A value that is sealed after the resalt.
    let mut stream = vault.stream();
    let token = Field::Ip.mask("192.0.2.9", salts.maskers().unwrap().last_mut().unwrap()).unwrap();
    let sealed = stream.seal_as(token, Field::Ip, "192.0.2.9");
    vault.insert_in_inbox(&stream, std::slice::from_ref(&sealed)).await;
    let later = post(&broker, "/reveal", &reveal_body(&sealed.token)).await;
    assert_eq!((later.status, &later.body["value"]), (200, &json!("192.0.2.9")));
}

#[tokio::test]
async fn salt_that_is_not_accepted_reveals_nothing() {
    let kms = KmsStub::start(Behaviour::Derive).await;
    let vault = Vault::create(kms.public_key, KEY).await;
    let broker = vault.broker(&kms.sdk().await);
    let [token] = vault.write(&[(Field::Ip, "192.0.2.1")]).await.try_into().unwrap();
    let other = "INSERT INTO salt_fingerprint (fingerprint) VALUES ('0123456789abcdef')";
    vault.admin.batch_execute(other).await.unwrap();

    let reveal = post(&broker, "/reveal", &reveal_body(&token)).await;
    let masked = post(&broker, "/token", &json!({ "field": "ip", "value": "192.0.2.1" })).await;

    for answer in [&reveal, &masked] {
        assert_eq!((answer.status, &answer.body["type"]), (503, &json!("urn:login-etl:salt-unavailable")));
    }
    assert_eq!(vault.audit().await, [reveal_entry(&token, "failed", None)]);
    assert_eq!(kms.requests(), 0);
}
