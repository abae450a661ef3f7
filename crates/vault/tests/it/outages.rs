//! A database that is away, or a salt that is.

use std::time::Duration;

use login_etl_vault::problem::Problem;
use login_etl_vault::token::Field;
use serde_json::{Value, json};

use crate::kms_stub::{Behaviour, KEY, KmsStub, REQUEST_ID};
use crate::support::{Vault, post, reveal_body, reveal_entry};

fn problem(problem: Problem, entry: Option<i64>) -> Value {
    serde_json::to_value(Problem { audit_entry: entry, ..problem }).unwrap()
}

#[tokio::test]
async fn dead_connection_is_replaced() {
    let kms = KmsStub::start(Behaviour::Derive).await;
    let vault = Vault::create(kms.public_key, KEY).await;
    let tokens = vault.write(&[(Field::Ip, "192.0.2.1")]).await;
    let broker = vault.broker(&kms.sdk().await);
    assert_eq!(post(&broker, "/reveal", &reveal_body(&tokens[0])).await.status, 200);

    let end = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = $1";
    assert_eq!(vault.admin.query(end, &[&vault.name]).await.unwrap().len(), 1);

    assert_eq!(post(&broker, "/reveal", &reveal_body(&tokens[0])).await.status, 200);
    assert_eq!(vault.audit().await.len(), 2);
}

#[tokio::test]
async fn unreachable_database_is_503() {
    let kms = KmsStub::start(Behaviour::Derive).await;
    let vault = Vault::create(kms.public_key, KEY).await;
    let tokens = vault.write(&[(Field::Ip, "192.0.2.1")]).await;
    let broker = vault.broker(&kms.sdk().await);
    vault.take_away().await;

    for (path, body) in [
        ("/reveal", reveal_body(&tokens[0])),
        ("/erase", reveal_body(&tokens[0])),
        ("/token", json!({ "field": "ip", "value": "192.0.2.1" })),
        ("/audit", json!({ "from": "2026-11-27T00:00:00Z", "to": "2026-11-28T00:00:00Z" })),
        ("/verify", json!({})),
        ("/honey", json!({ "count": 1, "reason": "test", "ticket": "SEC-1" })),
    ] {
        let failed = post(&broker, path, &body).await;

        assert_eq!((failed.status, failed.body), (503, problem(Problem::database_unavailable(), None)));
        assert_eq!(failed.retry_after, Some("5"));
    }
    assert_eq!(vault.audit().await, [] as [Value; 0]);
    assert_eq!(kms.requests(), 0);
}

/// The connection ends in `vault_take`, each time.
#[tokio::test]
async fn database_lost_before_opening_is_503() {
    let kms = KmsStub::start(Behaviour::Derive).await;
    let vault = Vault::create(kms.public_key, KEY).await;
    let tokens = vault.write(&[(Field::Ip, "192.0.2.1")]).await;
    let take = "
        ALTER FUNCTION vault_take RENAME TO vault_take_before;
        CREATE FUNCTION vault_take(
            entry bigint, OUT state text, OUT field text, OUT token bytea, OUT public_key bytea, OUT kms_key text,
            OUT enc bytea, OUT sequence integer, OUT ciphertext bytea
        ) LANGUAGE plpgsql SECURITY DEFINER AS $$
        BEGIN
            PERFORM pg_terminate_backend(pg_backend_pid());
            PERFORM pg_sleep(10);
        END
        $$";
    vault.execute(take).await;
    let broker = vault.broker(&kms.sdk().await);

    let failed = post(&broker, "/reveal", &reveal_body(&tokens[0])).await;

    assert_eq!((failed.status, failed.body), (503, problem(Problem::database_unavailable(), Some(1))));
    let mut entry = reveal_entry(&tokens[0], "failed", None);
    entry["is_taken"] = false.into();
    assert_eq!(vault.audit().await, [entry]);
    assert_eq!(kms.requests(), 0);
}

/// A search reads all batches that are not folded yet.
#[tokio::test]
async fn slow_search_still_reveals() {
    let kms = KmsStub::start(Behaviour::Derive).await;
    let vault = Vault::create(kms.public_key, KEY).await;
    let tokens = vault.write(&[(Field::Ip, "192.0.2.1")]).await;
    let search = "
        CREATE FUNCTION search() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(3); RETURN NEW; END';
        CREATE TRIGGER search BEFORE UPDATE OF taken_at ON vault_audit FOR EACH ROW EXECUTE FUNCTION search()";
    vault.execute(search).await;
    let broker = vault.broker(&kms.sdk().await);

    // The second request uses the connection of the first.
    for _ in 0..2 {
        let revealed = post(&broker, "/reveal", &reveal_body(&tokens[0])).await;

        assert_eq!(revealed.body["value"], "192.0.2.1");
    }
}

/// The entry would not say that the value was revealed, so the value is not returned.
#[tokio::test]
async fn database_lost_after_opening_reveals_nothing() {
    let kms = KmsStub::start(Behaviour::DeriveAfter(Duration::from_secs(2))).await;
    let vault = Vault::create(kms.public_key, KEY).await;
    let tokens = vault.write(&[(Field::Ip, "192.0.2.1")]).await;
    let broker = vault.broker(&kms.sdk().await);
    let outage = async {
        for _ in 0..100 {
            if kms.requests() > 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        vault.take_away().await;
    };

    let body = reveal_body(&tokens[0]);
    let (failed, ()) = tokio::join!(post(&broker, "/reveal", &body), outage);

    assert_eq!((failed.status, failed.body), (503, problem(Problem::database_unavailable(), Some(1))));
    let mut entry = reveal_entry(&tokens[0], "", None);
    entry["outcome"] = json!(null);
    assert_eq!(vault.audit().await, [entry]);
    assert_eq!(failed.record.kms_request_id.as_deref(), Some(REQUEST_ID));
}

#[tokio::test]
async fn missing_privilege_is_500_without_text() {
    let kms = KmsStub::start(Behaviour::Derive).await;
    let vault = Vault::create(kms.public_key, KEY).await;
    let tokens = vault.write(&[(Field::Ip, "192.0.2.1")]).await;
    vault.execute("REVOKE EXECUTE ON FUNCTION vault_take FROM login_vault").await;
    let broker = vault.broker(&kms.sdk().await);

    let failed = post(&broker, "/reveal", &reveal_body(&tokens[0])).await;

    assert_eq!((failed.status, failed.body), (500, problem(Problem::bug(), Some(1))));
    let mut entry = reveal_entry(&tokens[0], "failed", None);
    entry["is_taken"] = false.into();
    assert_eq!(vault.audit().await, [entry]);
}

#[tokio::test]
async fn missing_salt_is_503() {
    let kms = KmsStub::start(Behaviour::Derive).await;
    let vault = Vault::create(kms.public_key, KEY).await;
    let tokens = vault.write(&[(Field::Ip, "192.0.2.1")]).await;
    let broker = vault.broker_at(&vault.url(), "no-such-secret", &kms.sdk().await);

    let revealed = post(&broker, "/reveal", &reveal_body(&tokens[0])).await;
    let asked = post(&broker, "/token", &json!({ "field": "ip", "value": "192.0.2.1" })).await;

    assert_eq!((revealed.status, revealed.body), (503, problem(Problem::salt_unavailable(), Some(1))));
    assert_eq!((asked.status, asked.body), (503, problem(Problem::salt_unavailable(), None)));
    assert_eq!(vault.audit().await, [reveal_entry(&tokens[0], "failed", None)]);
    assert_eq!(kms.requests(), 0);
}
