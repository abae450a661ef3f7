//! Checks what must hold for every input, from the fuzzer or from the corpus.
//!
//! - No input makes the program panic.
//! - A body that decodes has the row that `model` computes, and the table can hold this row. The model is a
//!   second and slower program, written from the documents.
//! - A body that does not decode fails for a reason that the model finds too.
//! - A body has the same row or the same error in every spelling, flat or nested, and in an envelope, encoded
//!   twice or after a byte-order mark.
//! - The text of an error consists of the program's own words, and of numbers that are places in the input.

use std::borrow::Cow;
use std::collections::HashSet;
use std::error::Error;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use serde::de::IgnoredAny;
use serde_json::{Value, json};

use login::decode::{DecodeError, decode};
use login::envelope::ExpectedEnvelopes;
use login::event::{EventError, SqsMessage, read};
use login::mask::{LoginRow, mask};
use login::message_key::MessageKey;
use login::pii::Masker;
use model::SALT;
use row::Row;

mod model;
mod row;

/// Every word of the errors' `Display` and `Debug` texts.
static VOCABULARY: LazyLock<HashSet<&str>> = LazyLock::new(|| {
    "
    the message has no body is not Unicode text JSON at line column a object more than envelopes occurs once
    missing an array boolean number string empty longer characters holds character U 0000 version of one to three
    numbers SentTimestamp milliseconds payload SQS event position messageId
    envelope that also has column key twice or keys another which unwrapped record stream message broker HTTP request in
    base64 it list records login S3 only pointer test bucket confirmation SNS subscription and differs from spelling
    user_id app_version device_type ip locale device_id
    UserId AppVersion DeviceType Ip Locale DeviceId
    MissingBody NotText NotJson NotAnObject TooManyEnvelopes Ambiguous MissingField WrongType EmptyText TooLong
    NulCharacter BadVersion BadSentTimestamp MalformedEvent MissingMessageId
    AmbiguousEnvelope UnsupportedEnvelope Record Base64Request RecordList BodyInS3 S3TestEvent SnsConfirmation
    MisspeltKey
    envelope field found limit Boolean Number Array Object
    "
    .split_whitespace()
    .collect()
});

static MASKER: LazyLock<Masker> =
    LazyLock::new(|| Masker::new(&SALT.into()).expect("the salt is long enough"));

/// The last millisecond of the year 9999.
const MAX_SENT_MILLIS: u64 = 253_402_300_799_999;

const BYTE_ORDER_MARK: char = '\u{feff}';

/// A body with four envelopes is longer than this number of bytes.
const FOUR_ENVELOPES_BYTES: usize = 4 * r#"{"detail-type":"","source":"","detail":}"#.len();

/// Checks an event: its messages, their keys and their rows.
pub fn check_event(event: &[u8]) {
    let text = &String::from_utf8_lossy(event);
    let messages = match read(event) {
        Ok(messages) => messages,
        Err(error) => return assert_quotes_nothing(&error, &event_places(&error), text),
    };
    let mut keys = Vec::new();
    for (position, message) in messages.iter().enumerate() {
        assert!(!message.id.is_empty(), "a message without an id");
        if let Err(error) = decode_message(message, position) {
            assert_quotes_nothing(&error, &places(&error), text);
        }
        let key = MessageKey::read(message, position, SystemTime::UNIX_EPOCH);
        keys.extend(key.map(|key| (&message.id, key)));
    }
    for (id, key) in &keys {
        assert!(key.sent_at <= SystemTime::UNIX_EPOCH + Duration::from_millis(MAX_SENT_MILLIS));
        for (other_id, other) in &keys {
            assert_eq!(
                id == other_id,
                key.ledger_id == other.ledger_id,
                "equal ids have two ledger ids, or different ids have one"
            );
        }
    }
    if let Ok(value) = serde_json::from_slice::<Value>(event) {
        assert_messages_equal(&messages, &value);
    }
}

/// Checks a body: its row or its error, in every spelling.
pub fn check_body(body: &[u8]) {
    let Ok(body) = str::from_utf8(body) else {
        return;
    };
    let plain = decode_body(body);

    match model::read(body) {
        Some(Ok(row)) => assert_eq!(plain.as_ref(), Ok(&row)),
        Some(Err(reasons)) => {
            let code = plain.as_ref().err().map(DecodeError::code);
            assert!(code.is_some_and(|code| reasons.contains(code)), "{code:?} is not one of {reasons:?}");
        }
        // The model reads less than the program: no number that is not an `f64`, for example.
        None => {
            let json = body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body);
            assert!(plain.is_err() || serde_json::from_str::<IgnoredAny>(json).is_ok());
        }
    }
    assert_eq!(plain, decode_json_string(&escaped(body)), "another result with every character escaped");
    for envelope in [
        json!({"Type": "Notification", "TopicArn": "t", "Message": body}),
        json!({"messageId": "m", "receiptHandle": "r", "eventSource": "aws:sqs", "body": body}),
        json!({"requestContext": {}, "isBase64Encoded": false, "body": body}),
    ] {
        assert_same(&plain, &envelope.to_string(), body);
    }
    if body.starts_with(['{', '[']) {
        assert_same(&plain, &Value::from(body).to_string(), body);
        assert_same(&plain, &format!("{BYTE_ORDER_MARK}{body}"), body);
    }
    // A text that is not JSON could end the envelope too early.
    if body.starts_with('{') && !matches!(plain, Err(DecodeError::NotJson { .. })) {
        assert_same(&plain, &format!(r#"{{"detail-type": "login", "source": "s", "detail": {body}}}"#), body);
    }
    if model::parse(body).is_some_and(|json| !json.has_repeated_key())
        && let Ok(Value::Object(mut object)) = serde_json::from_str(body)
    {
        assert_same(&plain, &Value::Object(object.clone()).to_string(), body);
        for (outer, inner) in [("device", "id"), ("device", "type"), ("user", "id"), ("app", "version")] {
            if nest(&mut object, outer, inner) {
                assert_same(&plain, &Value::Object(object.clone()).to_string(), body);
            }
        }
    }
}

/// Asserts that the messages are those of the event as a general JSON parser reads it.
fn assert_messages_equal(messages: &[SqsMessage<'_>], event: &Value) {
    let records = event["Records"].as_array().expect("the event has no records");
    assert_eq!(records.len(), messages.len(), "records and messages differ in number");
    for (position, (record, message)) in records.iter().zip(messages).enumerate() {
        assert_eq!(record["messageId"], *message.id);
        let result = decode_message(message, position);
        let bad_timestamp = result == Err(DecodeError::BadSentTimestamp);
        match model::sent_millis(&record["attributes"]["SentTimestamp"]) {
            Some(millis) => assert_eq!(bad_timestamp, millis > MAX_SENT_MILLIS),
            None => assert!(bad_timestamp, "a bad timestamp is accepted"),
        }
        match (result, record["body"].as_str()) {
            _ if bad_timestamp => {}
            (result, Some(body)) => assert_eq!(result, decode_body(body), "the body is unescaped wrongly"),
            (result, None) => assert_eq!(result, Err(DecodeError::MissingBody)),
        }
    }
}

/// Moves the value of `outer_inner` to `inner` inside `outer`. Returns whether the value was moved: it must
/// exist, and `inner` must be free.
fn nest(object: &mut serde_json::Map<String, Value>, outer: &str, inner: &str) -> bool {
    let flat = format!("{outer}_{inner}");
    let is_free = match object.get(outer) {
        None => true,
        Some(Value::Object(nested)) => !nested.contains_key(inner),
        Some(_) => false,
    };
    if !is_free || !object.contains_key(&flat) {
        return false;
    }
    let value = object.remove(&flat);
    object.entry(outer).or_insert_with(|| json!({}))[inner] = json!(value);
    true
}

/// Asserts that another spelling of `body` has the same result.
fn assert_same(plain: &Result<Row, DecodeError>, spelling: &str, body: &str) {
    let other = decode_body(spelling);
    match (plain, &other) {
        // The body may have all envelopes that are allowed, so that one more is too many.
        (_, Err(DecodeError::TooManyEnvelopes)) if body.len() > FOUR_ENVELOPES_BYTES => {}
        // The order of the keys decides which of several repeated columns the error names.
        (Err(DecodeError::Ambiguous { .. }), Err(DecodeError::Ambiguous { .. })) => {}
        _ => assert_eq!(plain, &other, "another result for {spelling}"),
    }
}

fn decode_body(body: &str) -> Result<Row, DecodeError> {
    decode_json_string(&Value::from(body).to_string())
}

/// Decodes a body that is still a JSON string: quotes around, escapes inside.
fn decode_json_string(json_string: &str) -> Result<Row, DecodeError> {
    let event = format!(r#"{{"Records": [{{"messageId": "m", "body": {json_string}}}]}}"#);
    let messages = read(event.as_bytes()).expect("the event is malformed");
    let result = decode_message(&messages[0], 0);
    if let Err(error) = &result {
        assert_quotes_nothing(error, &places(error), &event);
    }
    result
}

/// Returns a JSON string with every character as a `\u` escape.
fn escaped(text: &str) -> String {
    let escapes: Vec<_> = text.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect();
    format!("\"{}\"", escapes.concat())
}

/// Decodes and masks a message, and asserts that the table can hold its row.
fn decode_message(message: &SqsMessage<'_>, position: usize) -> Result<Row, DecodeError> {
    MessageKey::read(message, position, SystemTime::UNIX_EPOCH)?;
    // All fields by name: a new column must be compared, too.
    let LoginRow { user_id, device_type, masked_ip, masked_device_id, locale, app_version } =
        mask(decode(message, ExpectedEnvelopes::default())?, &mut MASKER.clone());
    let row = Row {
        user_id: user_id.into_owned(),
        device_type: device_type.map(Cow::into_owned),
        masked_ip: masked_ip.map(|token| token.as_str().to_owned()),
        masked_device_id: masked_device_id.map(|token| token.as_str().to_owned()),
        locale: locale.map(Cow::into_owned),
        app_version,
    };
    assert!((1..=128).contains(&row.user_id.chars().count()));
    for text in [&row.device_type, &row.locale].into_iter().flatten() {
        assert!(text.chars().count() <= 32);
    }
    for text in [Some(&row.user_id), row.device_type.as_ref(), row.locale.as_ref()].into_iter().flatten() {
        assert!(!text.contains('\0'));
    }
    for token in [&row.masked_ip, &row.masked_device_id].into_iter().flatten() {
        assert!(token.len() == 64 && token.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')));
    }
    assert!(row.app_version.is_none_or(|version| (0..=2_146_999_999).contains(&version)));
    Ok(row)
}

/// Asserts that an error consists of the program's own words and of places in the input: any other word or
/// number may be a quotation. The limits of the columns, at most 128, count as places too.
fn assert_quotes_nothing(error: &impl Error, places: &[usize], input: &str) {
    for place in places {
        assert!(*place <= input.len().max(128) + 1, "{place} is not a place in the input");
    }
    for text in [format!("{error}"), format!("{error:?}")] {
        for word in text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty()) {
            let known =
                VOCABULARY.contains(word) || word.parse().is_ok_and(|number| places.contains(&number));
            assert!(known, "{word:?} is not a word of the program: {text}");
        }
    }
}

/// Returns the numbers that the error's text may hold.
fn places(error: &DecodeError) -> Vec<usize> {
    match error {
        DecodeError::NotJson { line, column } => vec![*line, *column],
        DecodeError::TooLong { limit, .. } => vec![*limit],
        DecodeError::TooManyEnvelopes => vec![4],
        _ => vec![],
    }
}

fn event_places(error: &EventError) -> Vec<usize> {
    match error {
        EventError::MalformedEvent { line, column } => vec![*line, *column],
        EventError::MissingMessageId { position } => vec![*position],
    }
}
