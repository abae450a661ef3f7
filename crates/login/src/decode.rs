//! Decodes a message into a [`Login`], or refuses it: what decodes, Postgres can store.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use secrecy::zeroize::Zeroizing;
use serde_json::value::RawValue;
use uuid::Uuid;
use uuid::fmt::Hyphenated;

use crate::event::SqsMessage;
use crate::flatten::{Flat, JsonType, Leaf, flatten, flatten_plain};
use crate::literal::{self, NotText};
use crate::pii::{DeviceId, Ip, Pii};

/// The columns of a body, as flat keys.
const COLUMNS: [&str; 6] = ["user_id", "app_version", "device_type", "ip", "locale", "device_id"];

/// The keys that make a body an envelope.
const ENVELOPE: [&str; 4] = ["Type", "Message", "detail-type", "detail"];

/// How many envelopes may be around one login. EventBridge to SNS to SQS makes two.
const MAX_ENVELOPES: usize = 4;

/// The limits of the table's text columns, in characters as Postgres counts them.
const MAX_USER_ID: usize = 128;
const MAX_TEXT: usize = 32;

/// The last millisecond of the year 9999, beyond which no client prints a date as it should.
const MAX_SENT_MILLIS: u64 = 253_402_300_799_999;

/// A login, good to be stored once its personal values are masked.
///
/// Its texts, which go into the row, stay in the message (`'m`) unless they had to be unescaped; its raw
/// values, which do not, may stay in the [`Scratch`] (`'s`) as well.
///
/// It has no `Debug`, since a user's id is personal too.
#[expect(missing_debug_implementations, reason = "a user's id is personal data")]
pub struct Login<'m, 's> {
    /// Which message it came in.
    pub arrival: Arrival,
    /// 1 to 128 characters.
    pub user_id: Cow<'m, str>,
    /// Up to 32 characters.
    pub device_type: Option<Cow<'m, str>>,
    /// The address, raw.
    pub ip: Option<Pii<'s, Ip>>,
    /// Up to 32 characters.
    pub locale: Option<Cow<'m, str>>,
    /// The device's id, raw.
    pub device_id: Option<Pii<'s, DeviceId>>,
    /// `major * 1_000_000 + minor * 1_000 + patch`.
    pub app_version: Option<i32>,
}

/// What identifies a message, here and at every redelivery, and in which order it is written: that
/// of the ledger's key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Arrival {
    /// When the message was sent, which redelivery does not change.
    pub sent_at: SystemTime,
    /// The message's id, as the ledger keeps it.
    pub ledger_id: Uuid,
    /// The place in the batch, from 0.
    pub position: usize,
    /// The FIFO message group, if the queue is one.
    pub group: Option<Box<str>>,
}

/// Room for the texts that have to be unescaped before they can be read: a body, and what is in its
/// envelopes. It is kept from one message to the next, and wiped when it is dropped.
#[expect(missing_debug_implementations, reason = "the texts are personal data")]
#[derive(Default)]
pub struct Scratch {
    body: Zeroizing<Vec<u8>>,
    /// One of them to see that there is an envelope too many.
    contents: [Zeroizing<Vec<u8>>; MAX_ENVELOPES + 1],
}

/// Why a message is refused: the place, never the value.
#[derive(Clone, Debug, PartialEq, Eq, strum::IntoStaticStr, strum::VariantNames, thiserror::Error)]
pub enum DecodeError {
    /// The message has no body, or one that is not text.
    #[error("the message has no body")]
    MissingBody,
    /// The body is not Unicode text: half of a surrogate pair stands alone in it.
    #[error("the body is not Unicode text")]
    NotText,
    /// The body is not JSON.
    #[error("the body is not JSON, at line {line}, column {column}")]
    NotJson {
        /// From 1; of the innermost envelope's content.
        line: usize,
        /// From 0 at the end of a line before, in bytes.
        column: usize,
    },
    /// The body is JSON, but not an object.
    #[error("the body is not a JSON object")]
    NotAnObject,
    /// There are envelopes around envelopes around envelopes.
    #[error("the body has more than {MAX_ENVELOPES} envelopes")]
    TooManyEnvelopes,
    /// The body spells one column more than once, so which one is meant is a guess.
    #[error("{field} is there more than once")]
    Ambiguous {
        /// The column.
        field: &'static str,
    },
    /// A column that every login has is absent or null.
    #[error("{field} is missing")]
    MissingField {
        /// The column.
        field: &'static str,
    },
    /// A column holds another JSON type than a string.
    #[error("{field} is {found}, not a string")]
    WrongType {
        /// The column.
        field: &'static str,
        /// What is there.
        found: JsonType,
    },
    /// A text has no characters.
    #[error("{field} is empty")]
    EmptyText {
        /// The column.
        field: &'static str,
    },
    /// A text is longer than its column.
    #[error("{field} is longer than {limit} characters")]
    TooLong {
        /// The column.
        field: &'static str,
        /// The column's limit in characters.
        limit: usize,
    },
    /// A text holds U+0000, which [Postgres cannot store][pg].
    ///
    /// [pg]: https://www.postgresql.org/docs/current/datatype-character.html
    #[error("{field} holds the character U+0000")]
    NulCharacter {
        /// The column.
        field: &'static str,
    },
    /// `app_version` is not one to three dotted decimal numbers within their limits.
    #[error("app_version is not a version of one to three numbers")]
    BadVersion,
    /// `SentTimestamp` is not a number of milliseconds.
    #[error("SentTimestamp is not a number of milliseconds")]
    BadSentTimestamp,
}

impl From<NotText> for DecodeError {
    fn from(_: NotText) -> Self {
        Self::NotText
    }
}

impl DecodeError {
    /// The reason's stable name, for logs and metrics.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.into()
    }

    /// The field that is to blame, where it is one.
    #[must_use]
    pub fn field(&self) -> Option<&'static str> {
        match self {
            Self::Ambiguous { field }
            | Self::MissingField { field }
            | Self::WrongType { field, .. }
            | Self::EmptyText { field }
            | Self::TooLong { field, .. }
            | Self::NulCharacter { field } => Some(field),
            Self::BadVersion => Some("app_version"),
            Self::BadSentTimestamp => Some("SentTimestamp"),
            Self::MissingBody
            | Self::NotText
            | Self::NotJson { .. }
            | Self::NotAnObject
            | Self::TooManyEnvelopes => None,
        }
    }
}

/// Reads what identifies the message at `position` of its batch.
///
/// `today` is when a message counts as sent that has no `SentTimestamp`, as hand-made test events
/// have none.
///
/// # Errors
///
/// [`DecodeError::BadSentTimestamp`].
pub fn arrival(message: &SqsMessage<'_>, position: usize, today: SystemTime) -> Result<Arrival, DecodeError> {
    Ok(Arrival {
        sent_at: message.sent_timestamp.map_or(Ok(today), sent_at)?,
        ledger_id: ledger_id(&message.id),
        position,
        group: message.group.as_deref().map(Into::into),
    })
}

/// Decodes a message, whose raw values stay in the message or in `scratch`.
///
/// # Errors
///
/// The first reason found why the message cannot be stored.
pub fn decode<'m: 's, 's>(
    message: &SqsMessage<'m>,
    arrival: Arrival,
    scratch: &'s mut Scratch,
) -> Result<Login<'m, 's>, DecodeError> {
    let source = message.body.map(RawValue::get);
    if let Some(flat) =
        source.and_then(literal::content).and_then(|body| flatten_plain(body, &COLUMNS, &ENVELOPE))
    {
        return login(flat, arrival);
    }
    let body = source.and_then(|source| literal::text(source, &mut scratch.body));
    let login = read(body.ok_or(DecodeError::MissingBody)??, arrival, &mut scratch.contents)?;
    Ok(Login {
        user_id: owned(login.user_id),
        device_type: login.device_type.map(owned),
        locale: login.locale.map(owned),
        ..login
    })
}

/// A text that outlives the room in which it was unescaped.
fn owned<'m>(text: Cow<'_, str>) -> Cow<'m, str> {
    Cow::Owned(text.into_owned())
}

/// Reads a login, or what is in the envelope around it.
fn read<'t>(
    json: &'t str,
    arrival: Arrival,
    rooms: &'t mut [Zeroizing<Vec<u8>>],
) -> Result<Login<'t, 't>, DecodeError> {
    let (room, rooms) = rooms.split_first_mut().ok_or(DecodeError::TooManyEnvelopes)?;
    let flat = flatten(json, &COLUMNS, &ENVELOPE).map_err(|error| refusal(&error))?;
    match content(flat.raw, room)? {
        Some(content) => read(content, arrival, rooms),
        None => login(flat, arrival),
    }
}

/// The JSON inside an [SNS notification][sns] or an [EventBridge event][eventbridge]; `None` where
/// the object is neither.
///
/// [sns]: https://docs.aws.amazon.com/sns/latest/dg/sns-message-and-json-formats.html
/// [eventbridge]: https://docs.aws.amazon.com/eventbridge/latest/ref/overiew-event-structure.html
fn content<'t>(
    envelope: [Option<&'t RawValue>; 4],
    room: &'t mut Vec<u8>,
) -> Result<Option<&'t str>, DecodeError> {
    let [kind, message, detail_type, detail] = envelope.map(|raw| raw.map(RawValue::get));
    let mut unescaped_kind = Vec::new();
    if let Some(Ok("Notification")) = kind.and_then(|kind| literal::text(kind, &mut unescaped_kind))
        && let Some(content) = message.and_then(|message| literal::text(message, room))
    {
        return Ok(Some(content?));
    }
    Ok(detail.filter(|detail| detail_type.is_some() && detail.starts_with('{')))
}

fn login(flat: Flat<'_, 6, 4>, arrival: Arrival) -> Result<Login<'_, '_>, DecodeError> {
    if let Some(column) = flat.repeated {
        return Err(DecodeError::Ambiguous { field: COLUMNS[column] });
    }
    let mut columns = COLUMNS.into_iter().zip(flat.leaves).map(|(field, leaf)| text(field, leaf));
    let mut next = || columns.next().unwrap_or(Ok(None));
    let [user_id, app_version, device_type, ip, locale, device_id] =
        [next()?, next()?, next()?, next()?, next()?, next()?];

    let user_id = user_id.ok_or(DecodeError::MissingField { field: "user_id" })?;
    if user_id.is_empty() {
        return Err(DecodeError::EmptyText { field: "user_id" });
    }
    Ok(Login {
        arrival,
        user_id: limited("user_id", user_id, MAX_USER_ID)?,
        device_type: device_type.map(|text| limited("device_type", text, MAX_TEXT)).transpose()?,
        ip: ip.and_then(Pii::new),
        locale: locale.map(|text| limited("locale", text, MAX_TEXT)).transpose()?,
        device_id: device_id.and_then(Pii::new),
        app_version: app_version.map(|text| version(&text)).transpose()?,
    })
}

/// The text of a column; null is as good as absent.
fn text<'a>(field: &'static str, leaf: Option<Leaf<'a>>) -> Result<Option<Cow<'a, str>>, DecodeError> {
    match leaf {
        None | Some(Leaf::Null) => Ok(None),
        // What is borrowed has none: JSON has no control character in a string that is not escaped.
        Some(Leaf::Text(Cow::Owned(text))) if text.contains('\0') => Err(DecodeError::NulCharacter { field }),
        Some(Leaf::Text(text)) => Ok(Some(text)),
        Some(Leaf::Other(found)) => Err(DecodeError::WrongType { field, found }),
    }
}

fn limited<'t>(field: &'static str, text: Cow<'t, str>, limit: usize) -> Result<Cow<'t, str>, DecodeError> {
    // A text of so few bytes cannot have more characters.
    if text.len() > limit && text.chars().count() > limit {
        return Err(DecodeError::TooLong { field, limit });
    }
    Ok(text)
}

/// A version as one number that sorts like it, the way [SQLite numbers its own][sqlite].
///
/// [sqlite]: https://www.sqlite.org/c3ref/c_source_id.html
fn version(text: &str) -> Result<i32, DecodeError> {
    let mut numbers = [0, 0, 0];
    let mut places = numbers.iter_mut().zip([2146, 999, 999]);
    for part in text.split('.') {
        let (number, limit) = places.next().ok_or(DecodeError::BadVersion)?;
        // `parse` alone would allow a sign.
        if !part.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(DecodeError::BadVersion);
        }
        *number = part.parse().ok().filter(|value| *value <= limit).ok_or(DecodeError::BadVersion)?;
    }
    let [major, minor, patch] = numbers;
    Ok(major * 1_000_000 + minor * 1_000 + patch)
}

fn sent_at(timestamp: &RawValue) -> Result<SystemTime, DecodeError> {
    // Lambda sends the digits as a string; a number, as a person would write it, means the same.
    let source = timestamp.get();
    let mut room = Vec::new();
    let digits = literal::text(source, &mut room).unwrap_or(Ok(source));
    let digits = digits.map_err(|_| DecodeError::BadSentTimestamp)?;
    let millis = digits.parse().ok().filter(|millis| *millis <= MAX_SENT_MILLIS);
    // `parse` alone would allow a sign.
    match millis {
        Some(millis) if !digits.starts_with('+') => {
            Ok(SystemTime::UNIX_EPOCH + Duration::from_millis(millis))
        }
        _ => Err(DecodeError::BadSentTimestamp),
    }
}

/// An id as the 16 bytes that the ledger keeps: SQS's ids are UUIDs and stay as they are; any other
/// id, as test events have them, becomes the UUID (version 8) of its SHA-256.
fn ledger_id(message_id: &str) -> Uuid {
    // Only the one spelling that SQS uses, so that no two ids are taken for one.
    let as_of_sqs =
        message_id.len() == Hyphenated::LENGTH && !message_id.bytes().any(|byte| byte.is_ascii_uppercase());
    match Uuid::try_parse(message_id) {
        Ok(id) if as_of_sqs => id,
        _ => {
            use sha2::{Digest, Sha256};
            let digest: [u8; 32] = Sha256::digest(message_id).into();
            let mut half = [0; 16];
            half.copy_from_slice(&digest[..16]);
            uuid::Builder::from_custom_bytes(half).into_uuid()
        }
    }
}

/// The parser's complaint without its text, which may quote a value.
fn refusal(error: &serde_json::Error) -> DecodeError {
    if error.is_data() {
        DecodeError::NotAnObject
    } else {
        DecodeError::NotJson { line: error.line(), column: error.column() }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn versions_are_numbered_as_sqlite_numbers_its_own() {
        for (text, number) in [
            ("2.3.0", 2_003_000),
            ("6.02", 6_002_000),
            ("2.00", 2_000_000),
            ("9", 9_000_000),
            ("0.0.1", 1),
            ("0", 0),
            ("2146.999.999", 2_146_999_999),
            ("000000000002.0000000000003", 2_003_000),
        ] {
            assert_eq!(version(text), Ok(number), "{text}");
        }
    }

    #[test]
    fn what_is_no_version_is_refused() {
        for text in [
            "",
            ".",
            "1.",
            ".1",
            "1..2",
            "1.2.3.4",
            "v1",
            "1.2-beta",
            " 1.2",
            "1.2 ",
            "+1",
            "-1",
            "1,2",
            "2147",
            "1.1000",
            "1.2.1000",
            "99999999999999999999",
            "١.٢",
            "1.2\n",
        ] {
            assert_eq!(version(text), Err(DecodeError::BadVersion), "{text:?}");
        }
    }

    #[test]
    fn an_id_of_sqs_is_its_own_ledger_id() {
        let id = "059f36b4-87a3-44ab-83d2-661975830a7d";

        assert_eq!(ledger_id(id).to_string(), id);
        let others = [
            "any other",
            "059F36B4-87A3-44AB-83D2-661975830A7D",
            "059f36b487a344ab83d2661975830a7d",
            "{059f36b4-87a3-44ab-83d2-661975830a7d}",
            "urn:uuid:059f36b4-87a3-44ab-83d2-661975830a7d",
        ];
        for other in others {
            assert_eq!(ledger_id(other).get_version_num(), 8, "{other}");
        }
    }

    proptest! {
        #[test]
        fn versions_sort_as_their_numbers(one: (u8, u8, u8), other: (u8, u8, u8)) {
            let number = |(major, minor, patch): (u8, u8, u8)| version(&format!("{major}.{minor}.{patch}")).unwrap();
            prop_assert_eq!(number(one).cmp(&number(other)), one.cmp(&other));
        }

        #[test]
        fn versions_can_be_read_back(major in 0..=2146_i32, minor in 0..=999_i32, patch in 0..=999_i32) {
            let number = version(&format!("{major}.{minor}.{patch}")).unwrap();
            prop_assert_eq!((number / 1_000_000, number / 1_000 % 1_000, number % 1_000), (major, minor, patch));
        }

        /// No text of ours holds a value: whatever the body is, a refusal reads like one of these.
        #[test]
        fn a_refusal_quotes_nothing(body in r#"\PC{0,60}|\{"(user_id|ip|locale|x)":("[a-z0-9 \\u]{0,200}"|[0-9e.]{1,9}|\[\])\}"#) {
            let event = serde_json::json!({"Records": [{"messageId": "m", "body": body}]}).to_string();
            let messages = crate::event::read(event.as_bytes()).unwrap();
            let arrival = arrival(&messages[0], 0, SystemTime::UNIX_EPOCH).unwrap();
            if let Err(error) = decode(&messages[0], arrival, &mut Scratch::default()) {
                let words = error.to_string();
                let digits_masked = words.replace(|c: char| c.is_ascii_digit(), "0");
                let known = [
                    "the body is not JSON, at line", "the body is not a JSON object", "user_id is missing", "user_id is empty",
                    "user_id is a number, not a string", "user_id is an array, not a string",
                    "ip is a number, not a string", "ip is an array, not a string",
                    "locale is a number, not a string", "locale is an array, not a string",
                    "user_id is longer than 000 characters", "locale is longer than 00 characters",
                    "user_id holds the character U+0000", "ip holds the character U+0000", "locale holds the character U+0000",
                ];
                prop_assert!(known.iter().any(|known| digits_masked.starts_with(known)), "{}", words);
            }
        }
    }
}
