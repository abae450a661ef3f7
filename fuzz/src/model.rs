//! What the README says of a body, written as plainly as can be and without a glance at the program.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use hmac::{Hmac, KeyInit, Mac};
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use sha2::Sha256;

use crate::row::Row;

pub(crate) const SALT: &str = "0123456789abcdef0123456789abcdef";

const COLUMNS: [&str; 6] = ["user_id", "app_version", "device_type", "ip", "locale", "device_id"];
const MAX_ENVELOPES: usize = 4;

/// A JSON value in which no key is lost, however often it is there.
#[derive(PartialEq)]
pub(crate) enum Json {
    Null,
    Text(String),
    Object(Vec<(String, Json)>),
    /// A boolean, a number or an array.
    Other,
}

/// The row of a body, or every reason for which it may be refused; `None` where it is beyond this
/// reader, as numbers that are no `f64` are.
pub(crate) fn read(body: &str) -> Option<Result<Row, BTreeSet<&'static str>>> {
    let mut json = parse(body)?;
    for _ in 0..=MAX_ENVELOPES {
        let Json::Object(object) = json else {
            return Some(Err(["NotAnObject"].into()));
        };
        json = match envelope(&object) {
            Some(Json::Text(content)) => parse(content)?,
            Some(Json::Object(_)) => last(object, "detail"),
            _ => return Some(row(&object)),
        };
    }
    Some(Err(["TooManyEnvelopes"].into()))
}

pub(crate) fn parse(text: &str) -> Option<Json> {
    serde_json::from_str(text).ok()
}

/// The milliseconds of a `SentTimestamp`, a number or the digits of one; 0 where there is none.
pub(crate) fn sent_millis(timestamp: &Value) -> Option<u64> {
    match timestamp {
        Value::Null => Some(0),
        Value::String(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().ok(),
        Value::Number(number) => number.as_u64(),
        _ => None,
    }
}

fn envelope(object: &[(String, Json)]) -> Option<&Json> {
    let get = |wanted: &str| object.iter().rfind(|(key, _)| key == wanted).map(|(_, value)| value);
    if get("Type") == Some(&Json::Text("Notification".to_owned()))
        && let Some(message @ Json::Text(_)) = get("Message")
    {
        return Some(message);
    }
    get("detail-type")?;
    get("detail").filter(|detail| matches!(detail, Json::Object(_)))
}

fn last(object: Vec<(String, Json)>, wanted: &str) -> Json {
    object.into_iter().rfind(|(key, _)| key == wanted).map_or(Json::Null, |(_, value)| value)
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
    if user_id.is_none() {
        reasons.insert("MissingField");
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

/// Every column of the object, with keys joined by `_` until they make one.
fn find<'a>(object: &'a [(String, Json)], above: &str, found: &mut Vec<(String, &'a Json)>) {
    for (key, value) in object {
        let path = format!("{above}{key}");
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
    for (place, limit) in [2146, 999, 999].into_iter().enumerate() {
        let part = parts.get(place).copied().unwrap_or("0");
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
    let mut hmac = Hmac::<Sha256>::new_from_slice(SALT.as_bytes()).expect("any key will do");
    hmac.update(format!("{field}:{canonical}").as_bytes());
    Some(base16ct::lower::encode_string(&hmac.finalize().into_bytes()))
}

impl Json {
    /// Whether any object in it has a key twice.
    pub(crate) fn has_twins(&self) -> bool {
        let Self::Object(object) = self else {
            return false;
        };
        let keys: BTreeSet<_> = object.iter().map(|(key, _)| key).collect();
        keys.len() < object.len() || object.iter().any(|(_, value)| value.has_twins())
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

    fn visit_bool<E>(self, _: bool) -> Result<Json, E> {
        Ok(Json::Other)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Json, E> {
        Ok(Json::Other)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Json, E> {
        Ok(Json::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Json, E> {
        Ok(Json::Other)
    }

    fn visit_str<E>(self, text: &str) -> Result<Json, E> {
        Ok(Json::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Json, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Json::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
        let mut object = Vec::new();
        while let Some(entry) = map.next_entry()? {
            object.push(entry);
        }
        Ok(Json::Object(object))
    }
}
