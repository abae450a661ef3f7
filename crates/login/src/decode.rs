//! Decodes a message into a [`Login`]. Every login that decodes can be stored.

use std::borrow::Cow;

use secrecy::zeroize::Zeroizing;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use crate::envelope::{self, Content, Envelope, ExpectedEnvelopes, RefusedEnvelope, UnsupportedEnvelope};
use crate::event::SqsMessage;
use crate::flat_body::{Column, ColumnValue, FlatBody, JsonType};
use crate::flatten::flatten;
use crate::json_string::{self, NotText};
use crate::ordinary_body::flatten_ordinary;
use crate::pii::{DeviceId, Ip, Pii};

/// How many envelopes may be nested around a login. EventBridge to SNS to SQS makes two.
const MAX_ENVELOPES: usize = 4;

/// The limits of the table's text columns, in characters as Postgres counts them.
const MAX_USER_ID_CHARS: usize = 128;
const MAX_TEXT_CHARS: usize = 32;

/// A login whose personal values are not masked yet. Its texts fit the table.
#[expect(missing_debug_implementations, reason = "a user id is personal data")]
#[expect(missing_docs, reason = "each is named for its key")]
pub struct Login<'m> {
    /// 1 to 128 characters.
    pub user_id: Cow<'m, str>,
    /// At most 32 characters.
    pub device_type: Option<Cow<'m, str>>,
    pub ip: Option<Pii<'m, Ip>>,
    /// At most 32 characters.
    pub locale: Option<Cow<'m, str>>,
    pub device_id: Option<Pii<'m, DeviceId>>,
    /// `major * 1_000_000 + minor * 1_000 + patch`.
    pub app_version: Option<i32>,
}

/// Why a message cannot be stored. The text names the place, never the value.
#[derive(Clone, Debug, PartialEq, Eq, strum::IntoStaticStr, strum::VariantNames, thiserror::Error)]
#[expect(missing_docs, reason = "`field` is the column")]
pub enum DecodeError {
    /// The message, or the record or request inside it, has no body, or its body is not a string.
    #[error("the message has no body")]
    MissingBody,
    /// The body is not Unicode text: half of a surrogate pair stands alone in it.
    #[error("the body is not Unicode text")]
    NotText,
    /// The body is not JSON.
    #[error("the body is not JSON, at line {line}, column {column}")]
    NotJson {
        /// From 1, in the innermost envelope's content.
        line: usize,
        /// In bytes, from 1, without a byte-order mark; 0 stands for the end of the line before.
        column: usize,
    },
    /// The body is JSON, but not an object.
    #[error("the body is not a JSON object")]
    NotAnObject,
    /// Too many envelopes are nested.
    #[error("the body has more than {MAX_ENVELOPES} envelopes")]
    TooManyEnvelopes,
    /// The body is an envelope, and it is not clear where the login is.
    #[error("the body is an envelope that also has a column, a key twice, or the keys of another envelope")]
    AmbiguousEnvelope,
    /// The body is an envelope that is not unwrapped.
    #[error("the body is {envelope}, which is not unwrapped")]
    UnsupportedEnvelope { envelope: UnsupportedEnvelope },
    /// The body is a list of records. One message is one login.
    #[error("the body is a list of records, not one login")]
    RecordList,
    /// SQS's extended client keeps the body in S3.
    #[error("the body is in S3, and the message has only a pointer to it")]
    BodyInS3,
    /// S3 sends this when the notifications of a bucket are switched on.
    #[error("the body is the test event of an S3 bucket, not a login")]
    S3TestEvent,
    /// SNS sends this when a subscription is made or removed.
    #[error("the body is a confirmation of an SNS subscription, not a login")]
    SnsConfirmation,
    /// The body has a column more than once.
    #[error("{field} occurs more than once")]
    Ambiguous { field: Column },
    /// A required column is absent or null.
    #[error("{field} is missing")]
    MissingField { field: Column },
    /// A required column is absent or null, and a key differs from it only in case or separators.
    #[error("{field} is missing, and a key differs from it only in spelling")]
    MisspeltKey { field: Column },
    /// A column holds neither a string nor null.
    #[error("{field} is {found}, not a string")]
    WrongType {
        field: Column,
        /// The type of the value.
        found: JsonType,
    },
    /// A text has no characters.
    #[error("{field} is empty")]
    EmptyText { field: Column },
    /// A text is longer than its column.
    #[error("{field} is longer than {limit} characters")]
    TooLong {
        field: Column,
        /// The column's limit in characters.
        limit: usize,
    },
    /// A text holds U+0000, which [Postgres cannot store][pg].
    ///
    /// [pg]: https://www.postgresql.org/docs/current/datatype-character.html
    #[error("{field} holds the character U+0000")]
    NulCharacter { field: Column },
    /// `app_version` is not one to three dotted decimal numbers within their limits.
    #[error("app_version is not a version of one to three numbers")]
    BadVersion,
    /// `SentTimestamp` is not a number of milliseconds.
    #[error("SentTimestamp is not a number of milliseconds")]
    BadSentTimestamp,
}

impl Login<'_> {
    fn into_owned<'m>(self) -> Login<'m> {
        let owned = |text: Cow<'_, str>| Cow::Owned(text.into_owned());
        Login {
            user_id: owned(self.user_id),
            device_type: self.device_type.map(owned),
            ip: self.ip.map(Pii::into_owned),
            locale: self.locale.map(owned),
            device_id: self.device_id.map(Pii::into_owned),
            app_version: self.app_version,
        }
    }
}

impl DecodeError {
    /// Returns the error's stable name, for logs and metrics.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.into()
    }

    /// Returns the name of the bad field, where a field is bad.
    #[must_use]
    pub fn field(&self) -> Option<&'static str> {
        match self {
            Self::Ambiguous { field }
            | Self::MissingField { field }
            | Self::MisspeltKey { field }
            | Self::WrongType { field, .. }
            | Self::EmptyText { field }
            | Self::TooLong { field, .. }
            | Self::NulCharacter { field } => Some(field.into()),
            Self::BadVersion => Some(Column::AppVersion.into()),
            Self::BadSentTimestamp => Some("SentTimestamp"),
            Self::MissingBody
            | Self::NotText
            | Self::NotJson { .. }
            | Self::NotAnObject
            | Self::TooManyEnvelopes
            | Self::AmbiguousEnvelope
            | Self::UnsupportedEnvelope { .. }
            | Self::RecordList
            | Self::BodyInS3
            | Self::S3TestEvent
            | Self::SnsConfirmation => None,
        }
    }
}

/// Decodes a message. The login borrows from the event if the body is ordinary (see `ordinary_body`),
/// and owns its texts if the body had to be unescaped.
///
/// # Errors
///
/// The first [`DecodeError`] found.
pub fn decode<'m>(
    message: &SqsMessage<'m>,
    expected_envelopes: ExpectedEnvelopes,
) -> Result<Login<'m>, DecodeError> {
    let source = message.body.map(RawValue::get).ok_or(DecodeError::MissingBody)?;
    if let Some(body) = flatten_ordinary(source) {
        return login_from(body);
    }
    let text = json_string::unescape(source).ok_or(DecodeError::MissingBody)??;
    decode_text(&text, expected_envelopes, MAX_ENVELOPES)
}

impl From<NotText> for DecodeError {
    fn from(_: NotText) -> Self {
        Self::NotText
    }
}

impl From<RefusedEnvelope> for DecodeError {
    fn from(envelope: RefusedEnvelope) -> Self {
        match envelope {
            RefusedEnvelope::Ambiguous => Self::AmbiguousEnvelope,
            RefusedEnvelope::Empty => Self::MissingBody,
            RefusedEnvelope::Unsupported(envelope) => Self::UnsupportedEnvelope { envelope },
            RefusedEnvelope::RecordList => Self::RecordList,
            RefusedEnvelope::S3Pointer => Self::BodyInS3,
            RefusedEnvelope::S3TestEvent => Self::S3TestEvent,
            RefusedEnvelope::SnsConfirmation => Self::SnsConfirmation,
        }
    }
}

/// Decodes a text: a body, or the content of an envelope that holds it in a string.
fn decode_text<'m>(
    text: &str,
    expected_envelopes: ExpectedEnvelopes,
    envelopes_left: usize,
) -> Result<Login<'m>, DecodeError> {
    let json = without_byte_order_mark(text);
    match encoded_twice(json)? {
        Some(text) => decode_json(without_byte_order_mark(&text), expected_envelopes, envelopes_left),
        None => decode_json(json, expected_envelopes, envelopes_left),
    }
}

/// Decodes a JSON text. An envelope's content is decoded in its place, through at most `envelopes_left` envelopes.
fn decode_json<'m>(
    json: &str,
    expected_envelopes: ExpectedEnvelopes,
    envelopes_left: usize,
) -> Result<Login<'m>, DecodeError> {
    let body = flatten(json).map_err(|error| not_an_object(json, &error))?;
    let Some(envelope) = envelope::of_object(&body) else {
        return Ok(login_from(body)?.into_owned());
    };
    let envelopes_left = envelopes_left.checked_sub(1).ok_or(DecodeError::TooManyEnvelopes)?;
    match envelope {
        Envelope::Content(kind, _) if !expected_envelopes.contains(kind) => {
            Err(DecodeError::UnsupportedEnvelope { envelope: UnsupportedEnvelope::Unexpected })
        }
        Envelope::Content(_, Content::Text(string)) => {
            let text = json_string::unescape(string).ok_or(DecodeError::MissingBody)??;
            decode_text(&text, expected_envelopes, envelopes_left)
        }
        Envelope::Content(_, Content::Object(json)) => decode_json(json, expected_envelopes, envelopes_left),
        Envelope::Refused(envelope) => Err(envelope.into()),
    }
}

/// Returns a text without the byte-order mark that some editors and libraries write at the start. A reader [may
/// ignore this mark][rfc].
///
/// [rfc]: https://www.rfc-editor.org/rfc/rfc8259#section-8.1
fn without_byte_order_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

/// Returns the JSON in a body that was encoded twice, and so is a JSON string; `None` for any other body.
fn encoded_twice(json: &str) -> Result<Option<Zeroizing<String>>, DecodeError> {
    if !starts_with(json, &['"']) {
        return Ok(None);
    }
    let string: &RawValue = serde_json::from_str(json).map_err(|error| not_json(&error))?;
    let text = json_string::unescape(string.get()).ok_or(DecodeError::NotAnObject)??;
    if starts_with(without_byte_order_mark(&text), &['{', '[']) {
        Ok(Some(text))
    } else {
        Err(DecodeError::NotAnObject)
    }
}

/// Whether the first character of a JSON text that is not white space is one of these.
fn starts_with(json: &str, characters: &[char]) -> bool {
    json.trim_start_matches([' ', '\t', '\n', '\r']).starts_with(characters)
}

/// Returns the reason for a text that the parser refuses as an object. The parser's own error is dropped, because
/// it may quote a value.
fn not_an_object(json: &str, error: &serde_json::Error) -> DecodeError {
    if !error.is_data() {
        return not_json(error);
    }
    // The parser stops at the first character of anything but an object.
    match serde_json::from_str::<IgnoredAny>(json) {
        Ok(_) => envelope::of_array(json).map_or(DecodeError::NotAnObject, DecodeError::from),
        Err(error) => not_json(&error),
    }
}

fn not_json(error: &serde_json::Error) -> DecodeError {
    DecodeError::NotJson { line: error.line(), column: error.column() }
}

fn login_from(mut body: FlatBody<'_>) -> Result<Login<'_>, DecodeError> {
    if let Some(field) = body.repeated {
        return Err(DecodeError::Ambiguous { field });
    }
    let user_id = column_text(&mut body, Column::UserId)?;
    let app_version = column_text(&mut body, Column::AppVersion)?;
    let device_type = column_text(&mut body, Column::DeviceType)?;
    let ip = column_text(&mut body, Column::Ip)?;
    let locale = column_text(&mut body, Column::Locale)?;
    let device_id = column_text(&mut body, Column::DeviceId)?;

    let user_id = user_id.ok_or(if body.has_misspelt_user_id {
        DecodeError::MisspeltKey { field: Column::UserId }
    } else {
        DecodeError::MissingField { field: Column::UserId }
    })?;
    if user_id.is_empty() {
        return Err(DecodeError::EmptyText { field: Column::UserId });
    }
    Ok(Login {
        user_id: within_limit(Column::UserId, user_id, MAX_USER_ID_CHARS)?,
        device_type: device_type
            .map(|text| within_limit(Column::DeviceType, text, MAX_TEXT_CHARS))
            .transpose()?,
        ip: ip.and_then(Pii::new),
        locale: locale.map(|text| within_limit(Column::Locale, text, MAX_TEXT_CHARS)).transpose()?,
        device_id: device_id.and_then(Pii::new),
        app_version: app_version.map(|text| version(&text)).transpose()?,
    })
}

/// Takes the text of a column. Null counts as absent.
fn column_text<'t>(body: &mut FlatBody<'t>, field: Column) -> Result<Option<Cow<'t, str>>, DecodeError> {
    match body.take(field) {
        None | Some(ColumnValue::Null) => Ok(None),
        // A borrowed text holds no U+0000: JSON allows a control character only as an escape.
        Some(ColumnValue::Text(Cow::Owned(text))) if text.contains('\0') => {
            Err(DecodeError::NulCharacter { field })
        }
        Some(ColumnValue::Text(text)) => Ok(Some(text)),
        Some(ColumnValue::Other(found)) => Err(DecodeError::WrongType { field, found }),
    }
}

fn within_limit(field: Column, text: Cow<'_, str>, limit: usize) -> Result<Cow<'_, str>, DecodeError> {
    // The first comparison saves counting: a text has at most as many characters as bytes.
    if text.len() > limit && text.chars().count() > limit {
        return Err(DecodeError::TooLong { field, limit });
    }
    Ok(text)
}

/// Turns a version into one number, so that numbers sort as their versions do: the way in which
/// [SQLite numbers its versions][sqlite].
///
/// [sqlite]: https://www.sqlite.org/c3ref/c_source_id.html
fn version(text: &str) -> Result<i32, DecodeError> {
    let mut numbers = [0, 0, 0];
    let mut parts = numbers.iter_mut().zip([2146, 999, 999]);
    for part in text.split('.') {
        let (number, limit) = parts.next().ok_or(DecodeError::BadVersion)?;
        // `parse` would accept a sign.
        if !part.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(DecodeError::BadVersion);
        }
        *number = part.parse().ok().filter(|value| *value <= limit).ok_or(DecodeError::BadVersion)?;
    }
    let [major, minor, patch] = numbers;
    Ok(major * 1_000_000 + minor * 1_000 + patch)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Returns the user of a body, or the text of its error.
    fn user_of(body: &str) -> Result<String, String> {
        let event = serde_json::json!({"Records": [{"messageId": "m", "body": body}]}).to_string();
        let messages = crate::event::read(event.as_bytes()).unwrap();
        let login = decode(&messages[0], ExpectedEnvelopes::default()).map_err(|error| error.to_string())?;
        Ok(login.user_id.into_owned())
    }

    #[test]
    fn byte_order_mark_is_skipped_at_the_start() {
        assert_eq!(user_of("\u{feff}{\"user_id\": \"u\"}"), Ok("u".into()));
        assert_eq!(user_of("\u{feff} {\"user_id\": \"u\"}"), Ok("u".into()));
        assert_eq!(
            user_of(" \u{feff}{\"user_id\": \"u\"}"),
            Err("the body is not JSON, at line 1, column 2".into())
        );
        assert_eq!(
            user_of("\u{feff}{\"user_id\"}"),
            Err("the body is not JSON, at line 1, column 11".into())
        );
        assert_eq!(user_of("\u{feff}"), Err("the body is not JSON, at line 1, column 0".into()));
    }

    #[test]
    fn body_encoded_twice_is_unwrapped_once() {
        let twice = serde_json::json!(r#"{"user_id": "u"}"#).to_string();
        let not_an_object = "the body is not a JSON object";

        assert_eq!(user_of(&twice), Ok("u".into()));
        assert_eq!(user_of(&format!("\t{twice}\n")), Ok("u".into()));
        assert_eq!(user_of(&serde_json::json!(twice).to_string()), Err(not_an_object.into()));
        assert_eq!(user_of(r#""u""#), Err(not_an_object.into()));
        assert_eq!(user_of(r#""[1]""#), Err(not_an_object.into()));
        assert_eq!(user_of(r#""{""#), Err("the body is not JSON, at line 1, column 1".into()));
        assert_eq!(user_of(r#""{}"#), Err("the body is not JSON, at line 1, column 3".into()));
        assert_eq!(user_of(r#""{\ud800}""#), Err("the body is not Unicode text".into()));
    }

    #[test]
    fn text_that_is_not_json_is_no_array() {
        for (body, column) in [("[", 1), ("[1,]", 4), ("1x", 2), ("nul", 3), ("[] []", 4)] {
            assert_eq!(user_of(body), Err(format!("the body is not JSON, at line 1, column {column}")));
        }
        for body in ["[]", "[1e999]", "1", "null", "true", "[{}]"] {
            assert_eq!(user_of(body), Err("the body is not a JSON object".into()), "{body}");
        }
    }

    #[test]
    fn misspelt_user_id_is_named() {
        for key in
            ["userId", "UserId", "userID", "USERID", "user-id", "User_Id", "user.id", "user id", "_userid"]
        {
            let body = format!(r#"{{"ip": "192.0.2.1", "{key}": "u"}}"#);
            let text = "user_id is missing, and a key differs from it only in spelling";
            assert_eq!(user_of(&body), Err(text.into()), "{key}");
        }
        for body in
            [r#"{"uid": "u"}"#, r#"{"user": "u"}"#, r#"{"x": {"userId": "u"}}"#, r#"{"userIdentity": 1}"#]
        {
            assert_eq!(user_of(body), Err("user_id is missing".into()), "{body}");
        }
        assert_eq!(user_of(r#"{"userId": "v", "user_id": "u"}"#), Ok("u".into()));
    }

    #[test]
    fn refused_envelope_is_named() {
        for (body, text) in [
            (
                r#"{"eventSource": "aws:kinesis", "data": ""}"#,
                "the body is a record of a stream or a message broker, which is not unwrapped",
            ),
            (
                r#"{"requestContext": {}, "isBase64Encoded": true, "body": ""}"#,
                "the body is an HTTP request in base64, which is not unwrapped",
            ),
            (r#"{"requestContext": {}, "isBase64Encoded": true}"#, "the message has no body"),
            (r#"[{"eventSource": "x"}]"#, "the body is a list of records, not one login"),
            (
                r#"["x", {"s3BucketName": "", "s3Key": ""}]"#,
                "the body is in S3, and the message has only a pointer to it",
            ),
            (
                r#"{"Event": "s3:TestEvent", "Service": "Amazon S3"}"#,
                "the body is the test event of an S3 bucket, not a login",
            ),
            (
                r#"{"Type": "UnsubscribeConfirmation", "Token": ""}"#,
                "the body is a confirmation of an SNS subscription, not a login",
            ),
            (
                r#"{"detail-type": "", "source": "", "detail": {}, "device": {"id": null}}"#,
                "the body is an envelope that also has a column, a key twice, or the keys of another envelope",
            ),
        ] {
            assert_eq!(user_of(body), Err(text.into()), "{body}");
        }
    }

    #[test]
    fn arrays_of_other_things_are_no_envelopes() {
        for body in [
            r#"[{"eventSource": "x"}, {}]"#,
            r#"[{"eventSource": 1}]"#,
            r#"["x", {"s3BucketName": ""}]"#,
            r#"[1, {"s3BucketName": "", "s3Key": ""}]"#,
            r#"["x", {"s3BucketName": "", "s3Key": ""}, 1]"#,
            r#"["x", ["", ""]]"#,
        ] {
            assert_eq!(user_of(body), Err("the body is not a JSON object".into()), "{body}");
        }
    }

    #[test]
    fn versions_become_numbers() {
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
    fn bad_versions_are_refused() {
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

    proptest! {
        #[test]
        fn numbers_sort_as_their_versions(one: (u8, u8, u8), other: (u8, u8, u8)) {
            let number = |(major, minor, patch): (u8, u8, u8)| version(&format!("{major}.{minor}.{patch}")).unwrap();
            prop_assert_eq!(number(one).cmp(&number(other)), one.cmp(&other));
        }

        #[test]
        fn numbers_can_be_read_back(major in 0..=2146_i32, minor in 0..=999_i32, patch in 0..=999_i32) {
            let number = version(&format!("{major}.{minor}.{patch}")).unwrap();
            prop_assert_eq!((number / 1_000_000, number / 1_000 % 1_000, number % 1_000), (major, minor, patch));
        }

        #[test]
        fn error_texts_quote_no_value(body in r#"\PC{0,60}|\{"(user_id|ip|locale|x)":("[a-z0-9 \\u]{0,200}"|[0-9e.]{1,9}|\[\])\}"#) {
            let event = serde_json::json!({"Records": [{"messageId": "m", "body": body}]}).to_string();
            let messages = crate::event::read(event.as_bytes()).unwrap();
            if let Err(error) = decode(&messages[0], ExpectedEnvelopes::default()) {
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
