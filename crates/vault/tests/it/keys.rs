//! A new key each quarter: values of the old key stay, are replaced when they come again, and end with it.

use login_etl_vault::kms::KmsFailure;
use login_etl_vault::problem::Problem;
use login_etl_vault::token::{Field, Token};
use serde_json::json;

use crate::kms_stub::{Behaviour, KEY, KmsStub, NEWER_KEY, REQUEST_ID};
use crate::support::{Vault, post, reveal_body, reveal_entry};

/// Returns the SQL of a section of docs/operations.md.
fn statements(section: &str) -> Vec<&'static str> {
    let document = include_str!("../../../../docs/operations.md");
    let (_, rest) = document.split_once(&format!("\n## {section}\n")).unwrap();
    let section = rest.split("\n## ").next().unwrap();
    section.split("\n```sql\n").skip(1).map(|block| block.split("\n```").next().unwrap()).collect()
}

/// Returns the number of values of each key, the oldest key first.
async fn sealed_values(vault: &Vault) -> Vec<(String, bool, i64)> {
    let [statement] = statements("A new key each quarter")[..] else { panic!("not one statement") };
    let rows = vault.admin.query(statement.trim_end_matches(';'), &[]).await.unwrap();
    rows.iter().map(|row| (row.get("kms_key"), row.get("is_current"), row.get("sealed_values"))).collect()
}

async fn status(vault: &Vault, kms: &KmsStub, token: &Token) -> (u16, Option<String>) {
    let broker = vault.broker(&kms.sdk().await);
    let revealed = post(&broker, "/reveal", &reveal_body(token)).await;
    (revealed.status, kms.last_key())
}

#[tokio::test]
async fn values_end_with_their_key_unless_seen_again() {
    let kms = KmsStub::start(Behaviour::Derive).await;
    let mut vault = Vault::create(kms.public_key, KEY).await;
    let values = [(Field::Ip, "192.0.2.1"), (Field::DeviceId, "device 2")];
    let tokens = vault.write(&values).await;
    vault.execute("SELECT vault_fold(100)").await;

    vault.accept(kms.newer_public_key, NEWER_KEY).await;
    let old = status(&vault, &kms, &tokens[0]).await;
    vault.write(&values[..1]).await;
    vault.execute("SELECT vault_fold(100)").await;
    let replaced = status(&vault, &kms, &tokens[0]).await;
    let not_seen = status(&vault, &kms, &tokens[1]).await;

    assert_eq!(old, (200, Some(KEY.to_owned())));
    assert_eq!(replaced, (200, Some(NEWER_KEY.to_owned())));
    assert_eq!(not_seen, (200, Some(KEY.to_owned())));
    let counted = [(KEY.to_owned(), false, 1), (NEWER_KEY.to_owned(), true, 1)];
    assert_eq!(sealed_values(&vault).await, counted);

    for (code, failure) in [
        ("KMSInvalidStateException", KmsFailure::KeyPendingDeletion),
        ("NotFoundException", KmsFailure::KeyNotFound),
    ] {
        kms.set(Behaviour::Refuse(400, code));
        let broker = vault.broker(&kms.sdk().await);
        let ended = post(&broker, "/reveal", &reveal_body(&tokens[1])).await;
        let kept = post(&broker, "/reveal", &reveal_body(&tokens[0])).await;

        let entries = vault.audit().await;
        let number = i64::try_from(entries.len()).unwrap() - 1;
        let problem = serde_json::to_value(Problem::kms(failure).of_entry(number)).unwrap();
        assert_eq!((ended.status, ended.body), (503, problem));
        assert_eq!((kept.status, &kept.body["value"]), (200, &json!("192.0.2.1")));
        let expected = [
            reveal_entry(&tokens[1], "kms-failed", Some(REQUEST_ID)),
            reveal_entry(&tokens[0], "done", Some(REQUEST_ID)),
        ];
        assert_eq!(entries[entries.len() - 2..], expected);
    }
}
