//! What must hold of every input, whoever makes it up: the fuzzer, or the kept corpus.
//!
//! - Nothing panics.
//! - What decodes is what [`model`], a second and slower reading of the README, says it is, and so can be
//!   stored; what does not decode is refused for a reason that the model sees too.
//! - However a body is spelt, nested or enveloped, it is the same login, or the same refusal.
//! - An error's text is of the program's own words, and of numbers that are places in the input.

use std::borrow::Cow;
use std::collections::HashSet;
use std::error::Error;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use serde::de::IgnoredAny;
use serde_json::{Value, json};

use login::decode::{DecodeError, decode};
use login::event::{EventError, SqsMessage, read};
use login::mask::mask;
use login::message_key::MessageKey;
use login::pii::Masker;
use model::SALT;
use row::Row;

mod model;
mod row;

/// Every word of our errors, in their texts and in their `Debug`.
static VOCABULARY: LazyLock<HashSet<&str>> = LazyLock::new(|| {
    "
    the message has no body is not Unicode text JSON at line column a object more than envelopes occurs once
    missing an array boolean number string empty longer characters holds character U 0000 version of one to three
    numbers SentTimestamp milliseconds payload SQS event position messageId
    user_id app_version device_type ip locale device_id
    UserId AppVersion DeviceType Ip Locale DeviceId
    MissingBody NotText NotJson NotAnObject TooManyEnvelopes Ambiguous MissingField WrongType EmptyText TooLong
    NulCharacter BadVersion BadSentTimestamp MalformedEvent MissingMessageId
    field found limit Boolean Number Array Object
    "
    .split_whitespace()
    .collect()
});

static MASKER: LazyLock<Masker> =
    LazyLock::new(|| Masker::new(&SALT.into()).expect("the salt is long enough"));

/// The last moment of the year 9999.
const MAX_SENT_MILLIS: u64 = 253_402_300_799_999;

/// Four envelopes take more than this many bytes.
const FOUR_ENVELOPES: usize = 4 * r#"{"detail-type":0,"detail":}"#.len();

/// Takes an event all the way to its rows.
pub fn check_event(event: &[u8]) {
    let text = &String::from_utf8_lossy(event);
    let messages = match read(event) {
        Ok(messages) => messages,
        Err(error) => return quotes_nothing(&error, &event_places(&error), text),
    };
    let mut keys = Vec::new();
    for (position, message) in messages.iter().enumerate() {
        assert!(!message.id.is_empty(), "a message without an id");
        if let Err(error) = take(message, position) {
            quotes_nothing(&error, &places(&error), text);
        }
        let key = MessageKey::read(message, position, SystemTime::UNIX_EPOCH);
        keys.extend(key.map(|key| (&message.id, key)));
    }
    for (id, key) in &keys {
        assert!(key.sent_at <= SystemTime::UNIX_EPOCH + Duration::from_millis(MAX_SENT_MILLIS));
        for (other_id, other) in &keys {
            assert_eq!(id == other_id, key.ledger_id == other.ledger_id, "two ids are one in the ledger");
        }
    }
    if let Ok(value) = serde_json::from_slice::<Value>(event) {
        agrees(&value, &messages);
    }
}

/// Takes a body to its row, in every way in which it may be spelt.
pub fn check_body(body: &[u8]) {
    let Ok(body) = str::from_utf8(body) else {
        return;
    };
    let plain = outcome(body);

    match model::read(body) {
        Some(Ok(row)) => assert_eq!(plain.as_ref(), Ok(&row)),
        Some(Err(reasons)) => {
            let code = plain.as_ref().err().map(DecodeError::code);
            assert!(code.is_some_and(|code| reasons.contains(code)), "{code:?} is not one of {reasons:?}");
        }
        // More than the model can read, and then it is JSON still.
        None => assert!(plain.is_err() || serde_json::from_str::<IgnoredAny>(body).is_ok()),
    }
    assert_eq!(plain, outcome_of(&by_number(body)), "not the same with every character escaped");
    same(&plain, &json!({"Type": "Notification", "Message": body}).to_string(), body);
    // Text that is no object would not stay inside the envelope.
    if body.starts_with('{') && !matches!(plain, Err(DecodeError::NotJson { .. })) {
        same(&plain, &format!(r#"{{"detail-type": "login", "detail": {body}}}"#), body);
    }
    if model::parse(body).is_some_and(|json| !json.has_twins())
        && let Ok(Value::Object(mut object)) = serde_json::from_str(body)
    {
        same(&plain, &Value::Object(object.clone()).to_string(), body);
        for (outer, inner) in [("device", "id"), ("device", "type"), ("user", "id"), ("app", "version")] {
            if nest(&mut object, outer, inner) {
                same(&plain, &Value::Object(object.clone()).to_string(), body);
            }
        }
    }
}

/// The messages are what the parser of any JSON finds in the event.
fn agrees(event: &Value, messages: &[SqsMessage<'_>]) {
    let records = event["Records"].as_array().expect("an event has records");
    assert_eq!(records.len(), messages.len(), "records are lost or made up");
    for (position, (record, message)) in records.iter().zip(messages).enumerate() {
        assert_eq!(record["messageId"], *message.id);
        let taken = take(message, position);
        let bad_timestamp = taken == Err(DecodeError::BadSentTimestamp);
        match model::sent_millis(&record["attributes"]["SentTimestamp"]) {
            Some(millis) => assert_eq!(bad_timestamp, millis > MAX_SENT_MILLIS),
            None => assert!(bad_timestamp, "a timestamp is made up"),
        }
        match (taken, record["body"].as_str()) {
            _ if bad_timestamp => {}
            (taken, Some(body)) => assert_eq!(taken, outcome(body), "the body is unescaped in another way"),
            (taken, None) => assert_eq!(taken, Err(DecodeError::MissingBody)),
        }
    }
}

/// Moves `outer_inner` to `inner` within `outer`, if there is something to move, and room for it.
fn nest(object: &mut serde_json::Map<String, Value>, outer: &str, inner: &str) -> bool {
    let flat = format!("{outer}_{inner}");
    let room = match object.get(outer) {
        None => true,
        Some(Value::Object(nested)) => !nested.contains_key(inner),
        Some(_) => false,
    };
    if !room || !object.contains_key(&flat) {
        return false;
    }
    let value = object.remove(&flat);
    object.entry(outer).or_insert_with(|| json!({}))[inner] = json!(value);
    true
}

/// Another spelling of a body comes to the same.
fn same(plain: &Result<Row, DecodeError>, spelling: &str, body: &str) {
    let other = outcome(spelling);
    match (plain, &other) {
        // A body may have as many envelopes as are allowed, so that one more is too many.
        (_, Err(DecodeError::TooManyEnvelopes)) if body.len() > FOUR_ENVELOPES => {}
        // Which of several is named depends on their order.
        (Err(DecodeError::Ambiguous { .. }), Err(DecodeError::Ambiguous { .. })) => {}
        _ => assert_eq!(plain, &other, "not the same as {spelling}"),
    }
}

fn outcome(body: &str) -> Result<Row, DecodeError> {
    outcome_of(&Value::from(body).to_string())
}

/// What becomes of a body that is a string literal in its event.
fn outcome_of(literal: &str) -> Result<Row, DecodeError> {
    let event = format!(r#"{{"Records": [{{"messageId": "m", "body": {literal}}}]}}"#);
    let messages = read(event.as_bytes()).expect("it is an event");
    let outcome = take(&messages[0], 0);
    if let Err(error) = &outcome {
        quotes_nothing(error, &places(error), &event);
    }
    outcome
}

/// A string literal in which every character is escaped by its number.
fn by_number(text: &str) -> String {
    let escapes: Vec<_> = text.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect();
    format!("\"{}\"", escapes.concat())
}

/// Takes a message to its row, which must be one that the table can hold.
fn take(message: &SqsMessage<'_>, position: usize) -> Result<Row, DecodeError> {
    MessageKey::read(message, position, SystemTime::UNIX_EPOCH)?;
    let row = mask(decode(message)?, &mut MASKER.clone());
    let row = Row {
        user_id: row.user_id.into_owned(),
        device_type: row.device_type.map(Cow::into_owned),
        masked_ip: row.masked_ip.map(|token| token.as_str().to_owned()),
        masked_device_id: row.masked_device_id.map(|token| token.as_str().to_owned()),
        locale: row.locale.map(Cow::into_owned),
        app_version: row.app_version,
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

/// An error consists of our own words and of places. It cannot quote what is not among these, and
/// a place that is greater than the input would be none.
fn quotes_nothing(error: &impl Error, places: &[usize], input: &str) {
    for place in places {
        assert!(*place <= input.len().max(128) + 1, "{place} is no place in the input");
    }
    for text in [format!("{error}"), format!("{error:?}")] {
        for word in text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty()) {
            let known =
                VOCABULARY.contains(word) || word.parse().is_ok_and(|number| places.contains(&number));
            assert!(known, "{word:?} is not our own: {text}");
        }
    }
}

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
