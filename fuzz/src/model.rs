//! A second decoder and masker, as simple as possible. It is written from `docs/message-format.md` and
//! `docs/privacy.md` and shares no code with the program, so that it does not repeat the program's mistakes.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use hmac::{Hmac, KeyInit, Mac};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use sha2::Sha256;

use crate::row::Row;

pub(crate) const SALT: &str = "0123456789abcdef0123456789abcdef";

const COLUMNS: [&str; 6] = ["user_id", "app_version", "device_type", "ip", "locale", "device_id"];
const MAX_ENVELOPES: usize = 4;
/// The keys by which envelopes are recognised. `EventSource` counts as `eventSource`.
const ENVELOPE_KEYS: [&str; 21] = [
    "Type",
    "Message",
    "Token",
    "TopicArn",
    "source",
    "detail-type",
    "detail",
    "eventSource",
    "messageId",
    "receiptHandle",
    "body",
    "data",
    "dynamodb",
    "topic",
    "requestContext",
    "isBase64Encoded",
    "Records",
    "Event",
    "Service",
    "s3BucketName",
    "s3Key",
];

/// A JSON value that keeps repeated keys.
#[derive(Clone, PartialEq)]
pub(crate) enum Json {
    Null,
    Boolean(bool),
    Number,
    Text(String),
    Array(Vec<Json>),
    Object(Vec<(String, Json)>),
}

/// An envelope: its content, or every reason for which it may fail.
type Envelope = Result<Json, BTreeSet<&'static str>>;

/// Returns the row of a body, or every reason for which the body may fail; `None` where the model cannot read
/// the body, for example a number that is not an `f64`.
pub(crate) fn read(body: &str) -> Option<Result<Row, BTreeSet<&'static str>>> {
    let mut json = parse_text(body)?;
    for _ in 0..=MAX_ENVELOPES {
        let object = match json {
            Ok(Json::Object(object)) => object,
            Ok(Json::Array(array)) => return Some(Err(array_reason(&array).into())),
            Ok(_) => return Some(Err(["NotAnObject"].into())),
            Err(reasons) => return Some(Err(reasons)),
        };
        json = match envelope_content(&object) {
            None => return Some(row(&object)),
            Some(Ok(Json::Text(text))) => parse_text(&text)?,
            Some(content_or_reasons) => content_or_reasons,
        };
    }
    Some(Err(["TooManyEnvelopes"].into()))
}

/// Parses a body, or the text inside an envelope. The text may be JSON in a JSON string; both texts may start with
/// a byte-order mark.
fn parse_text(text: &str) -> Option<Envelope> {
    Some(match parse(text)? {
        Json::Text(inner) if inner.trim_start_matches('\u{feff}').trim_start().starts_with(['{', '[']) => {
            Ok(parse(&inner)?)
        }
        Json::Text(_) => Err(["NotAnObject"].into()),
        json => Ok(json),
    })
}

pub(crate) fn parse(text: &str) -> Option<Json> {
    serde_json::from_str(text.strip_prefix('\u{feff}').unwrap_or(text)).ok()
}

/// Returns the milliseconds of a `SentTimestamp`, which is a number or a string of digits; 0 where it is
/// absent.
pub(crate) fn sent_millis(timestamp: &Value) -> Option<u64> {
    match timestamp {
        Value::Null => Some(0),
        Value::String(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().ok(),
        Value::Number(number) => number.as_u64(),
        _ => None,
    }
}

/// Returns the content of an envelope; `None` if the object is not an envelope.
fn envelope_content(object: &[(String, Json)]) -> Option<Envelope> {
    let same_key = |key: &str, wanted: &str| key == wanted || (key, wanted) == ("EventSource", "eventSource");
    let get = |wanted: &str| object.iter().rfind(|(key, _)| same_key(key, wanted)).map(|(_, value)| value);
    let text = |wanted: &str| match get(wanted) {
        Some(Json::Text(text)) => text.as_str(),
        _ => "",
    };
    let is_text = |wanted: &str| matches!(get(wanted), Some(Json::Text(_)));
    let source = text("eventSource");
    let mut envelopes: Vec<Envelope> = Vec::new();
    match text("Type") {
        "Notification" if is_text("Message") && is_text("TopicArn") => {
            envelopes.push(Ok(Json::Text(text("Message").to_owned())));
        }
        "SubscriptionConfirmation" | "UnsubscribeConfirmation" if is_text("Token") => {
            envelopes.push(Err(["SnsConfirmation"].into()));
        }
        _ => {}
    }
    if let (true, true, Some(detail @ Json::Object(_))) =
        (is_text("detail-type"), is_text("source"), get("detail"))
    {
        envelopes.push(Ok(detail.clone()));
    }
    if source == "aws:sqs" && is_text("messageId") && is_text("receiptHandle") {
        envelopes.push(match get("body") {
            Some(content @ (Json::Text(_) | Json::Object(_))) => Ok(content.clone()),
            _ => Err(["MissingBody"].into()),
        });
    }
    let payload = match source {
        "aws:kinesis" | "aws:amq" | "aws:rmq" => "data",
        "aws:dynamodb" => "dynamodb",
        "aws:kafka" | "SelfManagedKafka" => "topic",
        _ => "",
    };
    if !payload.is_empty() && get(payload).is_some() {
        envelopes.push(Err(["UnsupportedEnvelope"].into()));
    }
    if let (Some(Json::Object(_)), Some(Json::Boolean(base64))) =
        (get("requestContext"), get("isBase64Encoded"))
    {
        envelopes.push(match get("body") {
            Some(Json::Text(_)) if *base64 => Err(["UnsupportedEnvelope"].into()),
            Some(text @ Json::Text(_)) => Ok(text.clone()),
            _ => Err(["MissingBody"].into()),
        });
    }
    if let Some(Json::Array(records)) = get("Records")
        && array_reason(records) == ["RecordList"]
    {
        envelopes.push(Err(["RecordList"].into()));
    }
    if text("Event") == "s3:TestEvent" && text("Service") == "Amazon S3" {
        envelopes.push(Err(["S3TestEvent"].into()));
    }
    let mut columns = Vec::new();
    find(object, "", &mut columns);
    let repeats_key =
        ENVELOPE_KEYS.iter().any(|wanted| object.iter().filter(|(key, _)| same_key(key, wanted)).count() > 1);
    let is_ambiguous = !columns.is_empty() || repeats_key || envelopes.len() > 1;
    let first = envelopes.into_iter().next()?;
    Some(if is_ambiguous { Err(["AmbiguousEnvelope"].into()) } else { first })
}

/// Returns the reason why an array fails.
fn array_reason(array: &[Json]) -> [&'static str; 1] {
    let has = |json: &Json, wanted: &[&str]| match json {
        Json::Object(object) => {
            let last = object.iter().rfind(|(key, _)| wanted.contains(&key.as_str()));
            matches!(last, Some((_, Json::Text(_))))
        }
        _ => false,
    };
    if let [Json::Text(_), pointer] = array
        && has(pointer, &["s3BucketName"])
        && has(pointer, &["s3Key"])
    {
        return ["BodyInS3"];
    }
    let is_record = |json: &Json| has(json, &["eventSource", "EventSource"]);
    if !array.is_empty() && array.iter().all(is_record) { ["RecordList"] } else { ["NotAnObject"] }
}

fn row(object: &[(String, Json)]) -> Result<Row, BTreeSet<&'static str>> {
    let mut reasons = BTreeSet::new();
    let mut found = Vec::new();
    find(object, "", &mut found);
    let mut text = |column: &str| {
        let values: Vec<_> =
            found.iter().filter(|(path, _)| path == column).map(|(_, value)| *value).collect();
        match values[..] {
            [] | [Json::Null] => None,
            [Json::Text(text)] => {
                if text.contains('\0') {
                    reasons.insert("NulCharacter");
                }
                Some(text.clone())
            }
            [_] => {
                reasons.insert("WrongType");
                None
            }
            _ => {
                reasons.insert("Ambiguous");
                None
            }
        }
    };
    let [user_id, app_version, device_type, ip, locale, device_id] = COLUMNS.map(&mut text);
    let is_misspelt =
        |key: &str| key != "user_id" && key.to_lowercase().replace(['_', '-', '.', ' '], "") == "userid";
    if user_id.is_none() {
        let misspelt = object.iter().any(|(key, _)| is_misspelt(key));
        reasons.insert(if misspelt { "MisspeltKey" } else { "MissingField" });
    }
    if user_id.as_ref().is_some_and(String::is_empty) {
        reasons.insert("EmptyText");
    }
    for (text, limit) in [(&user_id, 128), (&device_type, 32), (&locale, 32)] {
        if text.as_ref().is_some_and(|text| text.chars().count() > limit) {
            reasons.insert("TooLong");
        }
    }
    let number = app_version.as_deref().and_then(version);
    if number.is_none() && app_version.is_some() {
        reasons.insert("BadVersion");
    }
    if !reasons.is_empty() {
        return Err(reasons);
    }
    Ok(Row {
        user_id: user_id.unwrap_or_default(),
        device_type,
        masked_ip: ip.and_then(|ip| token("ip", &address(ip.trim()))),
        masked_device_id: device_id.and_then(|id| token("device_id", id.trim())),
        locale,
        app_version: number,
    })
}

/// Finds every column in the object: keys are joined by `_` until they are the name of a column.
fn find<'a>(object: &'a [(String, Json)], prefix: &str, found: &mut Vec<(String, &'a Json)>) {
    for (key, value) in object {
        let path = format!("{prefix}{key}");
        if COLUMNS.contains(&path.as_str()) {
            found.push((path, value));
        } else if let Json::Object(inner) = value {
            find(inner, &format!("{path}_"), found);
        }
    }
}

fn version(text: &str) -> Option<i32> {
    let parts: Vec<_> = text.split('.').collect();
    if parts.len() > 3 {
        return None;
    }
    let mut number = 0;
    for (index, limit) in [2146, 999, 999].into_iter().enumerate() {
        let part = parts.get(index).copied().unwrap_or("0");
        let digits = part.trim_start_matches('0');
        if part.is_empty() || digits.len() > 4 || !part.chars().all(|c| c.is_ascii_digit()) {
            return None;
        }
        let part = digits.chars().fold(0, |sum, digit| sum * 10 + i32::from(digit as u8 - b'0'));
        if part > limit {
            return None;
        }
        number = number * 1_000 + part;
    }
    Some(number)
}

fn address(trimmed: &str) -> String {
    let Ok(address) = trimmed.parse::<IpAddr>() else {
        return trimmed.to_owned();
    };
    match address {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or_else(|| v6.to_string(), |v4| v4.to_string()),
        IpAddr::V4(v4) => v4.to_string(),
    }
}

fn token(field: &str, canonical: &str) -> Option<String> {
    if canonical.is_empty() {
        return None;
    }
    let mut hmac = Hmac::<Sha256>::new_from_slice(SALT.as_bytes()).expect("HMAC refuses no key");
    hmac.update(format!("{field}:{canonical}").as_bytes());
    Some(base16ct::lower::encode_string(&hmac.finalize().into_bytes()))
}

impl Json {
    /// Whether an object in the value has a key more than once.
    pub(crate) fn has_repeated_key(&self) -> bool {
        match self {
            Self::Array(array) => array.iter().any(Self::has_repeated_key),
            Self::Object(object) => {
                let keys: BTreeSet<_> = object.iter().map(|(key, _)| key).collect();
                keys.len() < object.len() || object.iter().any(|(_, value)| value.has_repeated_key())
            }
            _ => false,
        }
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(JsonVisitor)
    }
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Boolean(value))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Json, E> {
        Ok(Json::Number)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Json, E> {
        Ok(Json::Number)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Json, E> {
        Ok(Json::Number)
    }

    fn visit_str<E>(self, text: &str) -> Result<Json, E> {
        Ok(Json::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Json, A::Error> {
        let mut array = Vec::new();
        while let Some(element) = seq.next_element()? {
            array.push(element);
        }
        Ok(Json::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
        let mut object = Vec::new();
        while let Some(entry) = map.next_entry()? {
            object.push(entry);
        }
        Ok(Json::Object(object))
    }
}
