//! Values that are erased: by token, by value and by user.

use std::time::Duration;

use login_etl_vault::problem::Problem;
use login_etl_vault::token::Field;
use serde_json::{Value, json};

use crate::kms_stub::{Behaviour, KEY, KmsStub};
use crate::support::{CALLER, Vault, event, post, reveal_body, reveal_entry, send_within, token_of};

fn erase_entry(mut fields: Value) -> Value {
    let mut entry = json!({
        "caller": CALLER, "verb": "erase", "field": null, "token": null, "subject": null, "reason": "data-subject",
        "ticket": "DPO-7", "is_taken": true, "outcome": "done", "kms_request_id": null,
    });
    entry.as_object_mut().unwrap().append(fields.as_object_mut().unwrap());
    entry
}

fn erase_body(mut target: Value) -> Value {
    target["reason"] = "data-subject".into();
    target["ticket"] = "DPO-7".into();
    target
}

#[tokio::test]
async fn erased_value_is_410_with_an_entry() {
    let kms = KmsStub::start(Behaviour::Derive).await;
    let vault = Vault::create(kms.public_key, KEY).await;
    let tokens = vault.write(&[(Field::Ip, "192.0.2.1"), (Field::Ip, "192.0.2.2")]).await;
    let broker = vault.broker(&kms.sdk().await);
    let token = tokens[0].to_text();

    let erased = post(&broker, "/erase", &erase_body(json!({ "token": token }))).await;
    let revealed = post(&broker, "/reveal", &reveal_body(&tokens[0])).await;
    let other = post(&broker, "/reveal", &reveal_body(&tokens[1])).await;

    let answer = json!({ "audit_entry": 1, "erased": [token], "shared": [], "rows": 0 });
    assert_eq!((erased.status, erased.body), (200, answer));
    let problem = serde_json::to_value(Problem::erased().of_entry(2)).unwrap();
    assert_eq!((revealed.status, revealed.body), (410, problem));
    assert_eq!(other.body["value"], "192.0.2.2");
    let audit = vault.audit().await;
    assert_eq!(
        audit[..2],
        [erase_entry(json!({ "token": token })), reveal_entry(&tokens[0], "erased", None)]
    );
}

#[tokio::test]
async fn erasure_by_value_clears_rows() {
    let kms = KmsStub::start(Behaviour::Derive).await;
    let vault = Vault::create(kms.public_key, KEY).await;
    vault.write(&[(Field::DeviceId, "593-47-5928")]).await;
    let token = token_of(Field::DeviceId, "593-47-5928").to_text();
    let rows = format!(
        "INSERT INTO user_logins (user_id, masked_device_id, create_date)
         VALUES ('ann', '{token}', '2026-11-14'), ('bob', '{token}', '2026-11-14'), ('eve', 'x', '2026-11-14')"
    );
    vault.execute(&rows).await;
    let broker = vault.broker(&kms.sdk().await);
    let body = json!({ "field": "device_id", "value": " 593-47-5928 ", "rows": true, "never_again": true });

    let erased = post(&broker, "/erase", &erase_body(body)).await;

    let answer = json!({ "audit_entry": 1, "erased": [token], "shared": [], "rows": 2 });
    assert_eq!((erased.status, erased.body), (200, answer));
    assert_eq!(vault.audit().await, [erase_entry(json!({ "field": "device_id", "token": token }))]);
    let left = "SELECT count(*) FILTER (WHERE masked_device_id IS NULL), count(*) FROM user_logins";
    let left = vault.admin.query_one(left, &[]).await.unwrap();
    assert_eq!((left.get::<_, i64>(0), left.get::<_, i64>(1)), (2, 3));
    let never_again = "SELECT never_again FROM vault_erased";
    assert!(vault.admin.query_one(never_again, &[]).await.unwrap().get::<_, bool>(0));
}

#[tokio::test]
async fn erasure_by_user_lists_shared_tokens() {
    let kms = KmsStub::start(Behaviour::Derive).await;
    let vault = Vault::create(kms.public_key, KEY).await;
    vault.write(&[(Field::Ip, "192.0.2.1"), (Field::DeviceId, "593-47-5928")]).await;
    let own = token_of(Field::DeviceId, "593-47-5928").to_text();
    let shared = token_of(Field::Ip, "192.0.2.1").to_text();
    let rows = format!(
        "INSERT INTO user_logins (user_id, masked_ip, masked_device_id, create_date)
         VALUES ('ann', '{shared}', '{own}', '2026-11-14'), ('bob', '{shared}', NULL, '2026-11-14')"
    );
    vault.execute(&rows).await;
    let broker = vault.broker(&kms.sdk().await);

    let erased = post(&broker, "/erase", &erase_body(json!({ "user_id": "ann", "rows": true }))).await;

    let answer = json!({ "audit_entry": 1, "erased": [own], "shared": [shared], "rows": 1 });
    assert_eq!((erased.status, erased.body), (200, answer));
    // printf 'user_id:ann' | openssl dgst -sha256 -hmac 0123456789abcdef0123456789abcdef
    let subject = "ebd5d1e8bb5f81ec08b41d04d12e03a46405f835b12df531301e06297ca7ec19";
    assert_eq!(vault.audit().await, [erase_entry(json!({ "verb": "erase-user", "subject": subject }))]);
}

#[tokio::test]
async fn slow_erasure_is_done_without_an_answer() {
    let kms = KmsStub::start(Behaviour::Derive).await;
    let vault = Vault::create(kms.public_key, KEY).await;
    let tokens = vault.write(&[(Field::Ip, "192.0.2.1")]).await;
    let slow = "
        CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(2); RETURN NEW; END';
        CREATE TRIGGER slow BEFORE INSERT ON vault_erased FOR EACH ROW EXECUTE FUNCTION slow()";
    vault.execute(slow).await;
    let broker = vault.broker(&kms.sdk().await);
    let body = erase_body(json!({ "token": tokens[0].to_text() })).to_string();

    let unknown = send_within(Duration::from_secs(1), &broker, event("/erase", &body)).await;

    let problem = serde_json::to_value(Problem::erasure_unknown().of_entry(1)).unwrap();
    assert_eq!((unknown.status, unknown.body), (503, problem));
    for _ in 0..100 {
        if vault.audit().await[0]["outcome"] == "done" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(vault.audit().await[0], erase_entry(json!({ "token": tokens[0].to_text() })));
    assert_eq!(post(&broker, "/reveal", &reveal_body(&tokens[0])).await.status, 410);
}

#[tokio::test]
async fn nothing_to_erase_is_no_error() {
    let kms = KmsStub::start(Behaviour::Derive).await;
    let vault = Vault::create(kms.public_key, KEY).await;
    let broker = vault.broker(&kms.sdk().await);
    let token = token_of(Field::Ip, "192.0.2.1").to_text();

    let by_token = post(&broker, "/erase", &erase_body(json!({ "token": token }))).await;
    let by_user = post(&broker, "/erase", &erase_body(json!({ "user_id": "nobody" }))).await;

    let answer = |entry: i64| json!({ "audit_entry": entry, "erased": [], "shared": [], "rows": 0 });
    assert_eq!((by_token.status, by_token.body), (200, answer(1)));
    assert_eq!((by_user.status, by_user.body), (200, answer(2)));
    assert_eq!(vault.audit().await[0], erase_entry(json!({ "token": token, "outcome": "unknown" })));
}
