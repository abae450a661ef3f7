//! Bad bodies, bad messages and bad events. Every bad body is sent between two good bodies.

use serde_json::{Value, json};

use crate::support::{
    Database, Logs, TIME_LIMIT, batch, body, error_type, failures, fifo, invoke, invoke_within, login, record,
};

/// The raw values of the good and the bad bodies, none of which may be logged.
const RAW_VALUES: [&str; 4] = ["203.0.113.77", "593-47-5928", "198.51.100.9", "leak-me"];

/// Returns a body that is good but for this field.
fn body_with(field: &str, value: impl Into<Value>) -> Value {
    let mut body = body("leak-me");
    body["ip"] = "198.51.100.9".into();
    body[field] = value.into();
    body.to_string().into()
}

/// A description, the value of `body` in the event, and the reason that must be logged.
type BadBody = (&'static str, Value, &'static str);

fn bad_bodies() -> Vec<BadBody> {
    let deep_object = format!("{}1{}", r#"{"device":"#.repeat(10_000), "}".repeat(10_000));
    let deep_array = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let megabyte = format!(r#"{{"ip":"198.51.100.9","user_id":"{}"}}"#, "leak-me".repeat(150_000));
    vec![
        ("missing", Value::Null, "MissingBody"),
        ("a number", json!(198), "MissingBody"),
        ("an empty string", json!(""), "NotJson"),
        ("a blank string", json!("  \n"), "NotJson"),
        ("not JSON", json!("leak-me 198.51.100.9"), "NotJson"),
        ("JSON that is cut off", json!(r#"{"user_id":"leak-me","ip":"198.51.100.9"#), "NotJson"),
        ("two objects", json!(r#"{"user_id":"leak-me"}{"ip":"198.51.100.9"}"#), "NotJson"),
        ("an array", json!(r#"[{"user_id":"leak-me"}]"#), "NotAnObject"),
        ("a string", json!(r#""leak-me""#), "NotAnObject"),
        ("null", json!("null"), "NotAnObject"),
        ("another kind of message", json!(r#"{"foo":"leak-me","bar":"123"}"#), "MissingField"),
        ("user_id null", body_with("user_id", Value::Null), "MissingField"),
        ("user_id empty", body_with("user_id", ""), "EmptyText"),
        ("user_id a number", body_with("user_id", 1_985_110_099), "WrongType"),
        ("locale a boolean", body_with("locale", true), "WrongType"),
        ("ip an array", body_with("ip", json!(["198.51.100.9"])), "WrongType"),
        ("device_id an object", body_with("device_id", json!({"raw": "leak-me"})), "WrongType"),
        ("a number beyond i64", json!(r#"{"user_id":92233720368547758079}"#), "WrongType"),
        ("a number beyond f64", json!(r#"{"user_id":1e999}"#), "NotJson"),
        ("user_id too long", body_with("user_id", "é".repeat(129)), "TooLong"),
        ("locale too long", body_with("locale", "é".repeat(33)), "TooLong"),
        ("device_type too long", body_with("device_type", "x".repeat(33)), "TooLong"),
        ("U+0000, raw", json!("{\"user_id\":\"leak-me\0\"}"), "NotJson"),
        ("U+0000, escaped", body_with("user_id", "leak\0me"), "NulCharacter"),
        ("U+0000 in a masked field", body_with("device_id", "leak-me\0"), "NulCharacter"),
        ("half a surrogate pair", json!(r#"{"user_id":"leak-me\ud800"}"#), "NotJson"),
        ("a version of four numbers", body_with("app_version", "1.2.3.4"), "BadVersion"),
        ("a version of letters", body_with("app_version", "leak-me"), "BadVersion"),
        ("a signed version", body_with("app_version", "+1.2"), "BadVersion"),
        ("an empty version", body_with("app_version", ""), "BadVersion"),
        ("a version that ends in a dot", body_with("app_version", "1."), "BadVersion"),
        ("a version too large", body_with("app_version", "2147.0.0"), "BadVersion"),
        ("app_version a number", body_with("app_version", 2.3), "WrongType"),
        ("a repeated key", json!(r#"{"user_id":"leak-me","user_id":"leak-me"}"#), "Ambiguous"),
        ("two spellings of device_id", body_with("device", json!({"id": "leak-me"})), "Ambiguous"),
        ("deeply nested objects", json!(deep_object), "MissingField"),
        ("deeply nested arrays", json!(deep_array), "NotAnObject"),
        ("a megabyte", json!(megabyte), "TooLong"),
        ("an unknown envelope", json!({ "payload": body("leak-me") }).to_string().into(), "MissingField"),
        (
            "an SNS envelope with an object",
            json!(r#"{"Type":"Notification","TopicArn":"t","Message":{}}"#),
            "MissingField",
        ),
        ("an SNS envelope without JSON", sns("leak-me"), "NotJson"),
        (
            "an SNS envelope without a topic",
            json!(r#"{"Type":"Notification","Message":"leak-me"}"#),
            "MissingField",
        ),
        ("too many envelopes", enveloped(6), "TooManyEnvelopes"),
    ]
}

/// Returns bodies in envelopes that cannot be unwrapped, and messages of AWS services, in the form of
/// [`bad_bodies`].
fn bad_wrappings() -> Vec<BadBody> {
    let good = body("leak-me").to_string();
    vec![
        ("two byte-order marks", format!("\u{feff}\u{feff}{good}").into(), "NotJson"),
        ("a byte-order mark at the end", format!("{good}\u{feff}").into(), "NotJson"),
        ("encoded three times", json!(json!(json!(good).to_string()).to_string()), "NotAnObject"),
        ("encoded twice and cut off", json!(json!(good[1..]).to_string()), "NotAnObject"),
        ("encoded twice and not JSON", json!(json!("{leak-me 198.51.100.9").to_string()), "NotJson"),
        ("an array that is cut off", json!(r#"["leak-me""#), "NotJson"),
        ("a record of Kinesis", of_source("aws:kinesis", "data"), "UnsupportedEnvelope"),
        ("a record of DynamoDB", of_source("aws:dynamodb", "dynamodb"), "UnsupportedEnvelope"),
        ("a record of MSK", of_source("aws:kafka", "topic"), "UnsupportedEnvelope"),
        ("a record of Kafka", of_source("SelfManagedKafka", "topic"), "UnsupportedEnvelope"),
        ("a record of ActiveMQ", of_source("aws:amq", "data"), "UnsupportedEnvelope"),
        ("a record of RabbitMQ", of_source("aws:rmq", "data"), "UnsupportedEnvelope"),
        ("a record of another source", of_source("aws:s3", "s3"), "MissingField"),
        ("a record of SQS without a body", sqs_record(&Value::Null), "MissingBody"),
        ("a list with a record", format!("[{}]", text(&sqs_record(&json!(good)))).into(), "RecordList"),
        ("an event", json!({"Records": [{"eventSource": "leak-me"}]}).to_string().into(), "RecordList"),
        (
            "an event of SNS",
            json!({"Records": [{"EventSource": "leak-me"}]}).to_string().into(),
            "RecordList",
        ),
        ("a request in base64", http_request(&json!("bGVhay1tZQ=="), true), "UnsupportedEnvelope"),
        ("a request with a null", http_request(&Value::Null, false), "MissingBody"),
        ("a pointer to S3", s3_pointer("software.amazon.payloadoffloading.PayloadS3Pointer"), "BodyInS3"),
        ("an old pointer to S3", s3_pointer("com.amazon.sqs.javamessaging.MessageS3Pointer"), "BodyInS3"),
        (
            "S3's test event",
            json!({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "leak-me"}).to_string().into(),
            "S3TestEvent",
        ),
        ("a new subscription of SNS", sns_confirmation("SubscriptionConfirmation"), "SnsConfirmation"),
        ("a removed subscription of SNS", sns_confirmation("UnsubscribeConfirmation"), "SnsConfirmation"),
        ("a notification with a column", beside(&sns(&good), r#""user_id":"leak-me""#), "AmbiguousEnvelope"),
        (
            "a record with a nested column",
            beside(&sqs_record(&json!(good)), r#""device":{"id":null}"#),
            "AmbiguousEnvelope",
        ),
        (
            "a request with a column",
            beside(&http_request(&json!(good), false), r#""ip":"198.51.100.9""#),
            "AmbiguousEnvelope",
        ),
        (
            "a test event with a column",
            beside(&json!(r#"{"Service":"Amazon S3","Event":"s3:TestEvent"}"#), r#""locale":"leak-me""#),
            "AmbiguousEnvelope",
        ),
        (
            "an event with a column",
            beside(&json!(r#"{"detail-type":"login","source":"app","detail":{}}"#), r#""user_id":"leak-me""#),
            "AmbiguousEnvelope",
        ),
        (
            "a notification with two messages",
            beside(&sns(&good), r#""Message":"leak-me""#),
            "AmbiguousEnvelope",
        ),
        (
            "two envelopes at once",
            beside(&sns(&good), r#""detail-type":"login","source":"app","detail":{"user_id":"leak-me"}"#),
            "AmbiguousEnvelope",
        ),
        ("userId", misspelt("userId"), "MisspeltKey"),
        ("UserId", misspelt("UserId"), "MisspeltKey"),
        ("userID", misspelt("userID"), "MisspeltKey"),
        ("user-id", misspelt("user-id"), "MisspeltKey"),
        ("USER_ID", misspelt("USER_ID"), "MisspeltKey"),
        ("userid", misspelt("userid"), "MisspeltKey"),
        ("userId and a null", json!(r#"{"user_id":null,"userId":"leak-me"}"#), "MisspeltKey"),
        ("uid", misspelt("uid"), "MissingField"),
    ]
}

fn text(body: &Value) -> &str {
    body.as_str().unwrap()
}

fn sns(message: &str) -> Value {
    json!({"Type": "Notification", "TopicArn": "leak-me", "Message": message}).to_string().into()
}

fn sns_confirmation(kind: &str) -> Value {
    let message = "You have chosen to subscribe to the topic leak-me.";
    let confirmation =
        json!({"Type": kind, "Token": "leak-me", "SubscribeURL": "leak-me", "Message": message});
    confirmation.to_string().into()
}

fn sqs_record(body: &Value) -> Value {
    let mut record = record("leak-me", body.clone());
    record["receiptHandle"] = "leak-me".into();
    record.to_string().into()
}

/// Returns a record of a source other than SQS, with its payload at this key.
fn of_source(source: &str, payload: &str) -> Value {
    json!({"eventSource": source, payload: "leak-me"}).to_string().into()
}

fn http_request(body: &Value, is_base64: bool) -> Value {
    let context = json!({"http": {"sourceIp": "198.51.100.9"}});
    json!({"requestContext": context, "isBase64Encoded": is_base64, "body": body}).to_string().into()
}

fn s3_pointer(class: &str) -> Value {
    json!([class, {"s3BucketName": "leak-me", "s3Key": "leak-me"}]).to_string().into()
}

/// Adds another key and its value to an object.
fn beside(object: &Value, more: &str) -> Value {
    format!("{},{more}}}", text(object).strip_suffix('}').unwrap()).into()
}

fn misspelt(user_id: &str) -> Value {
    body("leak-me").to_string().replace("user_id", user_id).into()
}

fn enveloped(times: usize) -> Value {
    let mut inner = body("leak-me").to_string();
    for _ in 0..times {
        text(&sns(&inner)).clone_into(&mut inner);
    }
    inner.into()
}

#[tokio::test]
async fn bad_body_fails_alone_and_logs_its_place() {
    let database = Database::create().await;
    let ingest = database.ingest().await;

    let bad_bodies = [bad_bodies(), bad_wrappings()].concat();
    let numbers = 0..bad_bodies.len();

    for (number, (description, bad_body, reason)) in bad_bodies.into_iter().enumerate() {
        let logs = Logs::capture();
        let id = |part: &str| format!("{number}-{part}");
        let event = batch([
            login(&id("before"), &id("before")),
            record(&id("bad"), bad_body),
            login(&id("after"), &id("after")),
        ]);

        let answer = invoke(&ingest, &event).await;

        assert_eq!(answer, failures(&[&id("bad")]), "{description}");
        let logged = logs.lines("message failed");
        assert_eq!(logged.len(), 1, "{description}");
        assert_eq!(logged[0]["reason"], reason, "{description}");
        assert_eq!(logged[0]["message_id"], id("bad"), "{description}");
        for raw in RAW_VALUES {
            assert!(!logs.text().contains(raw), "{description}: the log holds {raw}");
        }
    }

    let mut expected: Vec<_> =
        numbers.flat_map(|number| [format!("{number}-after"), format!("{number}-before")]).collect();
    expected.sort();
    assert_eq!(database.user_ids().await, expected);
}

#[tokio::test]
async fn lone_surrogate_fails_its_message_alone() {
    let database = Database::create().await;
    let ingest = database.ingest().await;
    let event = batch([login("a", "a"), record("b", "BODY"), login("c", "c")]).to_string();
    let event = event.replace("\"BODY\"", r#""{\"user_id\":\"leak-me\ud800\"}""#);

    let answer = invoke_within(&ingest, &event, TIME_LIMIT).await;

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
    let notification = text(&sns(&body("b").to_string())).replace("Notification", r"Notif\u0069cation");
    let mut a = login("a", "a");
    a["attributes"]["SentTimestamp"] = "DIGITS".into();
    let event = batch([a, record("b", notification)]).to_string();
    let event = event.replace("DIGITS", r"\u0031\u0037");

    let answer = invoke_within(&ingest, &event, TIME_LIMIT).await;

    assert_eq!(answer, failures(&[]));
    assert_eq!(database.user_ids().await, ["a", "b"]);
}

#[tokio::test]
async fn missing_message_id_fails_the_batch() {
    let database = Database::create().await;
    let ingest = database.ingest().await;
    let (mut null, mut empty, mut absent) = (login("x", "x"), login("x", "x"), login("x", "x"));
    null["messageId"] = Value::Null;
    empty["messageId"] = "".into();
    absent.as_object_mut().unwrap().remove("messageId");

    for records in [[login("a", "a"), null], [login("a", "a"), empty], [absent, login("a", "a")]] {
        let outcome = invoke(&ingest, &batch(records)).await;
        assert_eq!(error_type(&outcome), "MissingMessageId");
    }

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
        // Serde's derive would read these arrays as objects.
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

    for (event, place) in [
        (&b""[..], "line 1, column 0"),
        (b"leak-me", "line 1, column 1"),
        (b"{\"Records\": [{\"messageId\": \"a\",\n\"body\": \"leak-me", "line 2, column 16"),
        (b"{\"Records\": [{\"messageId\": \"a\", \"body\": \"leak-me\xff\"}]}", "line 1, column 49"),
        (b"{\"Records\": []} leak-me", "line 1, column 17"),
    ] {
        let diagnostic = invoke_within(&ingest, event, TIME_LIMIT).await.unwrap_err();

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
