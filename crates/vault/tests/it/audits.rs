//! The audit, as those read it who may not read its table.

use login_etl_vault::token::Field;
use serde_json::{Value, json};

use crate::kms_stub::{Behaviour, KEY, KmsStub, REQUEST_ID};
use crate::support::{CALLER, Response, Vault, bare_entry, post, reveal_body, token_of};

/// Returns the body of a request for all entries.
fn all(after: u64) -> Value {
    json!({ "from": "2020-01-01T00:00:00Z", "to": "2120-01-01T00:00:00.5Z", "after": after })
}

/// Returns the entries of an answer, without their times.
fn entries(answer: &Response) -> Vec<Value> {
    let entries = answer.body["entries"].as_array().unwrap().iter();
    entries
        .map(|entry| {
            let mut entry = entry.clone();
            let at = entry.as_object_mut().unwrap().remove("at").unwrap();
            assert!(at.as_str().unwrap().starts_with("20") && at.as_str().unwrap().ends_with('Z'), "{at}");
            entry
        })
        .collect()
}

#[tokio::test]
async fn audit_shows_entries_without_tokens() {
    let kms = KmsStub::start(Behaviour::Derive).await;
    let vault = Vault::create(kms.public_key, KEY).await;
    let tokens = vault.write(&[(Field::Ip, "192.0.2.1")]).await;
    let broker = vault.broker(&kms.sdk().await);
    post(&broker, "/reveal", &reveal_body(&tokens[0])).await;
    post(&broker, "/token", &json!({ "field": "ip", "value": "192.0.2.2" })).await;

    let read = post(&broker, "/audit", &all(0)).await;

    assert_eq!((read.status, &read.body["audit_entry"], &read.body["next"]), (200, &json!(3), &json!(null)));
    assert_eq!(read.body["keys"], json!([KEY]));
    let entry = |id: i64, verb: &str| json!({ "id": id, "caller": CALLER, "verb": verb });
    let with = |mut entry: Value, others: Value| {
        entry.as_object_mut().unwrap().extend(others.as_object().unwrap().clone());
        entry
    };
    assert_eq!(
        entries(&read),
        [
            with(
                entry(1, "reveal"),
                json!({
                    "field": null, "reason": "fraud", "ticket": "SEC-1", "outcome": "done",
                    "kms_request_id": REQUEST_ID, "taken": true,
                })
            ),
            with(
                entry(2, "token"),
                json!({
                    "field": "ip", "reason": null, "ticket": null, "outcome": "done", "kms_request_id": null,
                    "taken": false,
                })
            ),
            // The entry of the request itself.
            with(
                entry(3, "audit"),
                json!({
                    "field": null, "reason": null, "ticket": null, "outcome": null, "kms_request_id": null,
                    "taken": true,
                })
            ),
        ]
    );
    let text = read.body.to_string();
    assert!(!text.contains(&tokens[0].to_text()));
    assert!(!text.contains(&token_of(Field::Ip, "192.0.2.2").to_text()));
    assert_eq!(vault.audit().await[2], bare_entry("audit", "done"));
    assert_eq!(kms.requests(), 1);
}

#[tokio::test]
async fn long_audit_has_pages() {
    let kms = KmsStub::start(Behaviour::Derive).await;
    let vault = Vault::create(kms.public_key, KEY).await;
    vault
        .execute(
            "INSERT INTO vault_audit (caller, verb, at) SELECT repeat('c', 2048), 'audit', '2026-11-27T00:00:00Z'
             FROM generate_series(1, 1001)",
        )
        .await;
    let broker = vault.broker(&kms.sdk().await);
    let body = |from: &str, to: &str, after: u64| json!({ "from": from, "to": to, "after": after });

    let first = post(&broker, "/audit", &body("2026-11-27T00:00:00Z", "2026-11-27T00:00:01Z", 0)).await;
    let second = post(&broker, "/audit", &body("2026-11-27T00:00:00Z", "2026-11-27T00:00:01Z", 1000)).await;
    let before = post(&broker, "/audit", &body("2026-11-26T00:00:00Z", "2026-11-27T00:00:00Z", 0)).await;

    assert_eq!((entries(&first).len(), &first.body["next"]), (1000, &json!(1000)));
    assert_eq!((entries(&second).len(), &second.body["next"]), (1, &json!(null)));
    assert_eq!(entries(&second)[0]["id"], 1001);
    assert_eq!(entries(&before), [] as [Value; 0]);
}
