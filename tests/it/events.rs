//! The sample events in `events/`: each with its whole answer and all its rows.

use std::path::Path;

use login::pii::{DeviceId, Ip, Pii};
use serde_json::Value;

use crate::support::{Database, Logs, batch, failures, invoke, masker, record};

fn event(name: &str) -> Value {
    serde_json::from_str(&file(name)).unwrap()
}

fn file(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("events").join(name);
    std::fs::read_to_string(path).unwrap()
}

#[tokio::test]
async fn good_batch_is_written_whole() {
    let database = Database::create().await;
    let ingest = database.ingest().await;

    let answer = invoke(&ingest, &event("good.json")).await;
    let repeated = invoke(&ingest, &event("good.json")).await;

    assert_eq!([answer, repeated], [failures(&[]), failures(&[])]);
    insta::assert_snapshot!(database.rows().await.join("\n"));
}

#[tokio::test]
async fn mixed_batch_reports_only_bad_messages() {
    let database = Database::create().await;
    let ingest = database.ingest().await;

    let answer = invoke(&ingest, &event("mixed.json")).await;
    let repeated = invoke(&ingest, &event("mixed.json")).await;

    let expected = failures(&[
        "2954e13b-0428-495f-82d9-b6550c934b6c",
        "1898b642-f212-49c2-bc89-4a2860630740",
        "fc28e238-dd00-4764-9e92-f1fa73e1452b",
        "93fd24f7-771d-4d72-86b6-cc471a16e2a4",
        "ef912c00-793e-46e6-8b6f-881960f981bf",
        "7eef3b5b-d3f4-4198-8619-46686a2e3420",
        "196196fa-c2c5-44b0-bc86-42fc118911e8",
        "708ac7bf-fe3c-4caa-bf95-ed657582d346",
    ]);
    assert_eq!([answer, repeated], [expected.clone(), expected]);
    insta::assert_snapshot!(database.rows().await.join("\n"));
}

#[tokio::test]
async fn nested_and_enveloped_bodies_are_flattened() {
    let database = Database::create().await;
    let ingest = database.ingest().await;

    let answer = invoke(&ingest, &event("nested.json")).await;

    assert_eq!(answer, failures(&["91af1de0-c2a4-4f3c-9026-2787b36f9d81"]));
    insta::assert_snapshot!(database.rows().await.join("\n"));
}

#[tokio::test]
async fn envelopes_are_unwrapped_or_refused_by_name() {
    let database = Database::create().await;
    let ingest = database.ingest().await;
    let logs = Logs::capture();

    let answer = invoke(&ingest, &event("envelopes.json")).await;

    let reasons = [
        ("54dbc66f-aeae-42c4-a623-0f44b2065723", "UnsupportedEnvelope"),
        ("b07e190a-e299-4528-8dd1-aa8b1ed953ad", "MissingBody"),
        ("7b477f43-263c-4001-b4a4-f3693d8d8c4f", "UnsupportedEnvelope"),
        ("6854595e-d058-4158-8968-e3419d720273", "UnsupportedEnvelope"),
        ("cdb31b6a-5252-4301-b9cd-39f4c610f39f", "RecordList"),
        ("bc3fdc08-ac42-4da5-b591-0a4c39c0d2c7", "RecordList"),
        ("fb5cd722-403e-46e3-bf63-0e583d230c46", "BodyInS3"),
        ("36f88e3d-a8a8-4c4c-a5e5-c4c384fceda2", "S3TestEvent"),
        ("990eb05f-cfb1-4a95-9cdd-8f6c9f5f397b", "SnsConfirmation"),
        ("e8cf6095-9637-4d25-a346-33a3970f0fc2", "AmbiguousEnvelope"),
        ("be60916e-e31f-4136-b9a8-e271da8c97e9", "MisspeltKey"),
    ];
    assert_eq!(answer, failures(&reasons.map(|(id, _)| id)));
    let lines = logs.lines("message failed");
    let logged =
        lines.iter().map(|line| (line["message_id"].as_str().unwrap(), line["reason"].as_str().unwrap()));
    assert_eq!(logged.collect::<Vec<_>>(), reasons);
    insta::assert_snapshot!(database.rows().await.join("\n"));
}

#[tokio::test]
async fn fifo_batch_keeps_the_order_of_groups() {
    let database = Database::create().await;
    let ingest = database.ingest().await;

    let answer = invoke(&ingest, &event("fifo.json")).await;

    let expected = [
        "fd6549d2-1d31-4cca-9176-db74e3fb905f",
        "81466d55-b2ed-4267-845b-cca7748db095",
        "0148bbbb-e607-4206-b2db-78bec1bef0af",
    ];
    assert_eq!(answer, failures(&expected));
    assert_eq!(database.rows().await.len(), 7);
}

#[tokio::test]
async fn analysts_find_the_duplicates_of_the_hundred_messages() {
    let database = Database::create().await;
    let ingest = database.ingest().await;
    let bodies = file("login-queue.jsonl");
    let records = bodies.lines().enumerate().map(|(line, body)| record(&format!("line {}", line + 1), body));
    let duplicates = |column: &str| {
        format!(
            "SELECT {column}, count(*) FROM user_logins WHERE {column} IS NOT NULL GROUP BY 1 HAVING count(*) > 1 ORDER BY 2 DESC, 1"
        )
    };
    let mask_ip = |ip: &'static str| masker().mask(&Pii::<Ip>::new(ip.into()).unwrap()).as_str().to_owned();
    let mask_device =
        |id: &'static str| masker().mask(&Pii::<DeviceId>::new(id.into()).unwrap()).as_str().to_owned();
    let found = async |column| -> Vec<(String, i64)> {
        let rows = database.admin.query(&duplicates(column), &[]).await.unwrap();
        rows.iter().map(|row| (row.get(0), row.get(1))).collect()
    };

    let answer = invoke(&ingest, &batch(records)).await;

    assert_eq!(answer, failures(&["line 47"]));
    let devices = [("520-84-4495", 5), ("155-02-5983", 3), ("730-73-4822", 2)];
    assert_eq!(found("masked_device_id").await, devices.map(|(id, count)| (mask_device(id), count)));
    let mut addresses = [
        ("100.66.123.216", 6),
        ("10.231.140.235", 3),
        ("198.51.100.23", 2),
        ("2001:db8::8:800:200c:417a", 2),
        ("2001:db8::1:0:0:1", 2),
    ]
    .map(|(ip, count)| (mask_ip(ip), count));
    addresses.sort_by(|(token, count), (other, other_count)| other_count.cmp(count).then(token.cmp(other)));
    assert_eq!(found("masked_ip").await, addresses);
}
