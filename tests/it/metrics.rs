//! The lines that the function logs about a batch, with their metrics.

use std::time::{SystemTime, UNIX_EPOCH};

use login_etl::handler::Ingest;
use serde_json::{Value, json};

use crate::support::{
    Database, Logs, batch, error_type, failures, invoke, login, masker, record, store_with,
};

/// Returns the only line with this message: without the times, and without the definitions of the metrics.
fn line(logs: &Logs, message: &str) -> Value {
    let mut lines = logs.lines(message);
    assert_eq!(lines.len(), 1, "{}", logs.text());
    let mut line = lines.remove(0);
    let changing =
        |name: &str| name.ends_with("_ms") || ["timestamp", "used_percent", "_aws", "target"].contains(&name);
    line.as_object_mut().unwrap().retain(|name, _| !changing(name));
    line
}

#[tokio::test]
async fn mixed_batch_logs_its_counts_and_failures() {
    let database = Database::create().await;
    let ingest = database.ingest().await;
    let good = login("good", "u");
    let mut bad = record("bad", r#"{"user_id":"u","app_version":"x"}"#);
    bad["attributes"]["ApproximateReceiveCount"] = "3".into();
    let logs = Logs::capture();

    let answer = invoke(&ingest, &batch([good.clone(), good, bad])).await;

    assert_eq!(answer, failures(&["bad"]));
    assert_eq!(
        line(&logs, "batch done"),
        json!({
            "level": "INFO", "message": "batch done", "request_id": "request", "function": "",
            "messages": 3, "written": 1, "duplicates": 1, "suppressed": 0, "unparsed_ips": 0, "failed": 1,
            "failed_percent": 33.3, "refused": 0, "batch_failed": 0, "database_error": 0, "cold_start": 1,
        })
    );
    assert_eq!(
        line(&logs, "failures by reason"),
        json!({
            "level": "WARN", "message": "failures by reason", "request_id": "request", "function": "",
            "reason": "BadVersion", "failed": 1,
        })
    );
    assert_eq!(
        line(&logs, "message failed"),
        json!({
            "level": "WARN", "message": "message failed", "request_id": "request", "message_id": "bad",
            "reason": "BadVersion", "field": "app_version", "receive_count": 3,
            "queue": "logins",
            "error": "app_version is not a version of one to three numbers",
        })
    );
}

#[tokio::test]
async fn refused_row_is_counted_with_its_sqlstate() {
    let database = Database::create().await;
    database.admin.batch_execute("ALTER TABLE user_logins ADD CHECK (user_id <> 'bad')").await.unwrap();
    let ingest = database.ingest().await;
    let logs = Logs::capture();

    let answer = invoke(&ingest, &batch([login("good", "u"), login("refused", "bad")])).await;

    assert_eq!(answer, failures(&["refused"]));
    let done = line(&logs, "batch done");
    assert_eq!([&done["written"], &done["failed"], &done["refused"]], [1, 1, 1]);
    let failed = line(&logs, "message failed");
    assert_eq!([&failed["reason"], &failed["sqlstate"]], ["RowRefused", "23514"]);
}

#[tokio::test]
async fn failed_batch_logs_its_error() {
    let database = Database::create().await;
    database.admin.batch_execute("DROP TABLE user_logins").await.unwrap();
    let ingest = database.ingest().await;
    let logs = Logs::capture();

    let outcome = invoke(&ingest, &batch([login("a", "a")])).await;

    assert_eq!(error_type(&outcome), "DatabaseRefused");
    assert_eq!(
        line(&logs, "batch failed"),
        json!({
            "level": "ERROR", "message": "batch failed", "request_id": "request", "function": "",
            "error_type": "DatabaseRefused", "sqlstate": "42P01",
            "error": "Postgres refused the statement, SQLSTATE 42P01", "queue": "logins",
            "messages": 1, "batch_failed": 1, "database_error": 1, "cold_start": 1,
        })
    );
}

#[tokio::test]
async fn split_spellings_of_an_address_are_counted() {
    let database = Database::create().await;
    let ingest = database.ingest().await;
    let logs = Logs::capture();
    let spellings = [
        "192.0.2.1",
        "::ffff:192.0.2.1",
        "192.0.2.1:443",
        "192.0.2.1, 198.51.100.7",
        "fe80::1%eth0",
        "192.0.2.1\u{200b}",
    ];

    let answer = invoke(
        &ingest,
        &batch(spellings.iter().enumerate().map(|(number, ip)| {
            record(&number.to_string(), json!({ "user_id": "u", "ip": ip }).to_string())
        })),
    )
    .await;

    assert_eq!(answer, failures(&[]));
    let done = line(&logs, "batch done");
    assert_eq!([&done["written"], &done["unparsed_ips"]], [6, 4]);
    assert!(!logs.text().contains("192.0.2.1"));
    let tokens = "SELECT count(DISTINCT masked_ip) FROM user_logins";
    assert_eq!(database.admin.query_one(tokens, &[]).await.unwrap().get::<_, i64>(0), 5);
}

#[tokio::test]
async fn rows_of_all_statements_are_counted() {
    let database = Database::create().await;
    let ingest = database.ingest().await;
    let logs = Logs::capture();

    let answer = invoke(&ingest, &batch((0..600).map(|number| login(&number.to_string(), "x")))).await;

    assert_eq!(answer, failures(&[]));
    let done = line(&logs, "batch done");
    assert_eq!([&done["messages"], &done["written"], &done["duplicates"]], [600, 600, 0]);
}

#[tokio::test]
async fn only_dated_messages_have_an_age() {
    let database = Database::create().await;
    let ingest = database.ingest().await;
    let sent = |id: &str, age_ms: u128| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
        let mut record = login(id, id);
        record["attributes"]["SentTimestamp"] = (now - age_ms).to_string().into();
        record
    };
    let mut undated = login("undated", "u");
    undated["attributes"].as_object_mut().unwrap().remove("SentTimestamp");
    let age = async |records: Vec<Value>| {
        let logs = Logs::capture();
        assert_eq!(invoke(&ingest, &batch(records)).await, failures(&[]));
        logs.lines("batch done")[0]["oldest_ms"].as_f64()
    };

    let two_ages = age(vec![sent("a", 60_000), sent("b", 90_000), undated.clone()]).await.unwrap();

    assert!((90_000.0..120_000.0).contains(&two_ages), "{two_ages}");
    assert_eq!(age(vec![undated]).await, None);
}

#[tokio::test]
async fn only_a_new_connection_takes_time() {
    let database = Database::create().await;
    let store = store_with(&[("DATABASE_URL", &database.url())]).await;
    let ingest = Ingest::new(masker(), store);
    let logs = Logs::capture();

    for id in ["a", "b"] {
        assert_eq!(invoke(&ingest, &batch([login(id, id)])).await, failures(&[]));
    }

    let [first, second] = &logs.lines("batch done")[..] else { panic!("{}", logs.text()) };
    assert!(first["connect_ms"].as_f64().unwrap() > 0.0);
    assert_eq!(second["connect_ms"], Value::Null);
}
