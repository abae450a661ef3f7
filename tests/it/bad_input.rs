//! What a queue should not hold. Each bad message stands between two good ones.

use serde_json::{Value, json};

use crate::support::{
    Database, INVOCATION, Logs, batch, body, error_type, failures, fifo, invoke, invoke_within, login, record,
};

/// What must not be in a log: every raw value of the good and the bad bodies.
const RAW: [&str; 4] = ["203.0.113.77", "593-47-5928", "198.51.100.9", "leak-me"];

fn with(field: &str, value: impl Into<Value>) -> Value {
    let mut body = body("leak-me");
    body["ip"] = "198.51.100.9".into();
    body[field] = value.into();
    body.to_string().into()
}

/// A name, the body as it stands in the event, and the reason that must be logged.
fn bodies() -> Vec<(&'static str, Value, &'static str)> {
    let deep_object = format!("{}1{}", r#"{"device":"#.repeat(10_000), "}".repeat(10_000));
    let deep_array = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let megabyte = format!(r#"{{"ip":"198.51.100.9","user_id":"{}"}}"#, "leak-me".repeat(150_000));
    vec![
        ("missing", Value::Null, "MissingBody"),
        ("not text", json!(198), "MissingBody"),
        ("empty", json!(""), "NotJson"),
        ("blank", json!("  \n"), "NotJson"),
        ("not JSON", json!("leak-me 198.51.100.9"), "NotJson"),
        ("cut short", json!(r#"{"user_id":"leak-me","ip":"198.51.100.9"#), "NotJson"),
        ("two objects", json!(r#"{"user_id":"leak-me"}{"ip":"198.51.100.9"}"#), "NotJson"),
        ("an array", json!(r#"[{"user_id":"leak-me"}]"#), "NotAnObject"),
        ("a string", json!(r#""leak-me""#), "NotAnObject"),
        ("null", json!("null"), "NotAnObject"),
        ("of another type", json!(r#"{"foo":"leak-me","bar":"123"}"#), "MissingField"),
        ("without a user", with("user_id", Value::Null), "MissingField"),
        ("with an empty user", with("user_id", ""), "EmptyText"),
        ("with a number for a user", with("user_id", 1_985_110_099), "WrongType"),
        ("with a boolean for a locale", with("locale", true), "WrongType"),
        ("with an array for an ip", with("ip", json!(["198.51.100.9"])), "WrongType"),
        ("with an object for a device", with("device_id", json!({"raw": "leak-me"})), "WrongType"),
        ("with a number beyond i64", json!(r#"{"user_id":92233720368547758079}"#), "WrongType"),
        ("with a number beyond f64", json!(r#"{"user_id":1e999}"#), "NotJson"),
        ("with a user too long", with("user_id", "é".repeat(129)), "TooLong"),
        ("with a locale too long", with("locale", "é".repeat(33)), "TooLong"),
        ("with a device type too long", with("device_type", "x".repeat(33)), "TooLong"),
        ("with U+0000 raw", json!("{\"user_id\":\"leak-me\0\"}"), "NotJson"),
        ("with U+0000 escaped", with("user_id", "leak\0me"), "NulCharacter"),
        ("with U+0000 in what is masked", with("device_id", "leak-me\0"), "NulCharacter"),
        ("with half a surrogate pair", json!(r#"{"user_id":"leak-me\ud800"}"#), "NotJson"),
        ("with a version of four", with("app_version", "1.2.3.4"), "BadVersion"),
        ("with a version of words", with("app_version", "leak-me"), "BadVersion"),
        ("with a signed version", with("app_version", "+1.2"), "BadVersion"),
        ("with an empty version", with("app_version", ""), "BadVersion"),
        ("with a version that ends in a dot", with("app_version", "1."), "BadVersion"),
        ("with too large a version", with("app_version", "2147.0.0"), "BadVersion"),
        ("with a number for a version", with("app_version", 2.3), "WrongType"),
        ("with a key twice", json!(r#"{"user_id":"leak-me","user_id":"leak-me"}"#), "Ambiguous"),
        ("with two spellings", with("device", json!({"id": "leak-me"})), "Ambiguous"),
        ("nested deep", json!(deep_object), "MissingField"),
        ("an array nested deep", json!(deep_array), "NotAnObject"),
        ("of a megabyte", json!(megabyte), "TooLong"),
        ("in an unknown envelope", json!({ "payload": body("leak-me") }).to_string().into(), "MissingField"),
        (
            "in an SNS envelope that is no text",
            json!(r#"{"Type":"Notification","Message":{}}"#),
            "MissingField",
        ),
        ("broken inside an SNS envelope", json!(r#"{"Type":"Notification","Message":"leak-me"}"#), "NotJson"),
        ("in too many envelopes", enveloped(6), "TooManyEnvelopes"),
    ]
}

fn enveloped(times: usize) -> Value {
    let mut inner = body("leak-me").to_string();
    for _ in 0..times {
        inner = json!({"Type": "Notification", "Message": inner}).to_string();
    }
    inner.into()
}

#[tokio::test]
async fn bad_body_fails_alone_and_logs_its_place() {
    let database = Database::create().await;
    let ingest = database.ingest().await;

    for (number, (name, bad, reason)) in bodies().into_iter().enumerate() {
        let logs = Logs::capture();
        let id = |part: &str| format!("{number}-{part}");
        let event = batch([
            login(&id("before"), &id("before")),
            record(&id("bad"), bad),
            login(&id("after"), &id("after")),
        ]);

        let answer = invoke(&ingest, &event).await;

        assert_eq!(answer, failures(&[&id("bad")]), "a body {name}");
        let logged = logs.lines("message failed");
        assert_eq!(logged.len(), 1, "a body {name}");
        assert_eq!(logged[0]["reason"], reason, "a body {name}");
        assert_eq!(logged[0]["message_id"], id("bad"), "a body {name}");
        for raw in RAW {
            assert!(!logs.text().contains(raw), "a body {name} leaves {raw} in the log");
        }
    }

    let mut expected: Vec<_> = (0..bodies().len())
        .flat_map(|number| [format!("{number}-after"), format!("{number}-before")])
        .collect();
    expected.sort();
    assert_eq!(database.user_ids().await, expected);
}

#[tokio::test]
async fn lone_surrogate_fails_its_message_alone() {
    let database = Database::create().await;
    let ingest = database.ingest().await;
    let event = batch([login("a", "a"), record("b", "BODY"), login("c", "c")]).to_string();
    let event = event.replace("\"BODY\"", r#""{\"user_id\":\"leak-me\ud800\"}""#);

    let answer = crate::support::invoke_within(&ingest, &event, std::time::Duration::from_secs(9)).await;

    assert_eq!(answer, failures(&["b"]));
    assert_eq!(database.user_ids().await, ["a", "c"]);
}

#[tokio::test]
async fn bad_timestamp_fails_its_message_alone() {
    let database = Database::create().await;
    let ingest = database.ingest().await;
    let bad = [
        json!("soon"),
        json!(""),
        json!("-1"),
        json!("+1"),
        json!("1e3"),
        json!(1.5),
        json!([]),
        json!("253402300800000"),
    ];
    let good = [json!("0"), json!("253402300799999"), json!(1_794_614_400_000_u64)];
    let records = bad.iter().chain(&good).enumerate().map(|(number, timestamp)| {
        let mut record = login(&number.to_string(), &number.to_string());
        record["attributes"]["SentTimestamp"] = timestamp.clone();
        record
    });

    let answer = invoke(&ingest, &batch(records)).await;

    assert_eq!(answer, failures(&["0", "1", "2", "3", "4", "5", "6", "7"]));
    assert_eq!(database.user_ids().await, ["10", "8", "9"]);
}

#[tokio::test]
async fn escaped_characters_are_unescaped() {
    let database = Database::create().await;
    let ingest = database.ingest().await;
    let notification = json!({"Type": "KIND", "Message": body("b").to_string()}).to_string();
    let mut a = login("a", "a");
    a["attributes"]["SentTimestamp"] = "DIGITS".into();
    let event = batch([a, record("b", notification.replace("KIND", r"Notif\u0069cation"))]).to_string();
    let event = event.replace("DIGITS", r"\u0031\u0037");

    let answer = crate::support::invoke_within(&ingest, &event, std::time::Duration::from_secs(9)).await;

    assert_eq!(answer, failures(&[]));
    assert_eq!(database.user_ids().await, ["a", "b"]);
}

#[tokio::test]
async fn missing_message_id_fails_the_batch() {
    let database = Database::create().await;
    let ingest = database.ingest().await;

    for id in [Value::Null, json!("")] {
        let mut nameless = login("x", "x");
        nameless["messageId"] = id;
        let outcome = invoke(&ingest, &batch([login("a", "a"), nameless])).await;
        assert_eq!(error_type(&outcome), "MissingMessageId");
    }
    let mut nameless = login("x", "x");
    nameless.as_object_mut().unwrap().remove("messageId");
    let outcome = invoke(&ingest, &batch([nameless, login("a", "a")])).await;

    assert_eq!(error_type(&outcome), "MissingMessageId");
    assert_eq!(database.rows().await, [""; 0]);
    assert_eq!(database.ledger_entries().await, 0);
}

#[tokio::test]
async fn malformed_event_error_quotes_nothing() {
    let database = Database::create().await;
    let ingest = database.ingest().await;

    for event in [
        json!({}),
        json!("leak-me"),
        json!(["leak-me"]),
        json!({"Records": "leak-me"}),
        json!({"Records": [{"messageId": {"leak-me": 1}}]}),
        json!({"Records": [{"messageId": "a", "attributes": "leak-me"}]}),
        json!({"Records": ["leak-me"]}),
        // Serde's derive alone would take these for objects.
        json!([[]]),
        json!({"Records": [["leak-me"]]}),
        json!({"Records": [{"messageId": "a", "attributes": ["leak-me"]}]}),
    ] {
        let logs = Logs::capture();
        let outcome = invoke(&ingest, &event).await;
        assert_eq!(error_type(&outcome), "MalformedEvent", "{event}");
        assert!(!outcome.unwrap_err().error_message.contains("leak-me"));
        assert!(!logs.text().contains("leak-me"));
    }
}

#[tokio::test]
async fn json_error_names_line_and_column() {
    let database = Database::create().await;
    let ingest = database.ingest().await;

    for (payload, place) in [
        (&b""[..], "line 1, column 0"),
        (b"leak-me", "line 1, column 1"),
        (b"{\"Records\": [{\"messageId\": \"a\",\n\"body\": \"leak-me", "line 2, column 16"),
        (b"{\"Records\": [{\"messageId\": \"a\", \"body\": \"leak-me\xff\"}]}", "line 1, column 49"),
        (b"{\"Records\": []} leak-me", "line 1, column 17"),
    ] {
        let diagnostic = invoke_within(&ingest, payload, INVOCATION).await.unwrap_err();
        assert_eq!(diagnostic.error_type, "MalformedEvent");
        assert_eq!(diagnostic.error_message, format!("the payload is not an SQS event, at {place}"));
    }
}

#[tokio::test]
async fn event_without_records_succeeds() {
    let database = Database::create().await;
    let ingest = database.ingest().await;

    let answer = invoke(&ingest, &batch([])).await;

    assert_eq!(answer, failures(&[]));
}

#[tokio::test]
async fn failed_message_holds_back_its_fifo_group() {
    let database = Database::create().await;
    let ingest = database.ingest().await;
    let good = |user: &str| body(user).to_string();
    let event = batch([
        fifo("a1", "a", good("a1")),
        fifo("a2", "a", "not JSON"),
        fifo("b1", "b", good("b1")),
        fifo("a3", "a", good("a3")),
        fifo("b2", "b", good("b2")),
        fifo("a4", "a", "not JSON either"),
    ]);

    let answer = invoke(&ingest, &event).await;

    assert_eq!(answer, failures(&["a2", "a3", "a4"]));
    assert_eq!(database.user_ids().await, ["a1", "b1", "b2"]);
}

#[tokio::test]
async fn standard_queue_groups_hold_nothing_back() {
    let database = Database::create().await;
    let ingest = database.ingest().await;
    let grouped = |mut record: Value| {
        record["attributes"]["MessageGroupId"] = "tenant".into();
        record
    };
    let event = batch([grouped(record("a", "not JSON")), grouped(login("b", "b"))]);

    let answer = invoke(&ingest, &event).await;

    assert_eq!(answer, failures(&["a"]));
    assert_eq!(database.user_ids().await, ["b"]);
}
