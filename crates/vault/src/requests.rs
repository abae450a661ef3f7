//! The requests: parsed bodies, which the next stage cannot refuse.

use std::fmt;
use std::time::SystemTime;

use aws_sdk_kms::primitives::{DateTime, DateTimeFormat};
use zeroize::Zeroizing;

use crate::fields::Fields;
use crate::problem::Problem;
use crate::token::{Field, Token};

/// Number of values that `POST /verify` opens if the request names none, and the most that it opens.
const SAMPLE: u64 = 10;
const MAX_SAMPLE: u64 = 100;

/// The most tokens that `POST /honey` makes.
const MAX_HONEY: u64 = 100;

/// The most characters of a user id, as in `user_logins`.
const MAX_USER_ID: usize = 128;

/// `POST /token`: what is the token of a value?
#[derive(Debug)]
pub struct TokenRequest {
    /// The value.
    pub value: Value,
}

/// `POST /reveal`: what is the value of a token?
#[derive(Debug)]
pub struct RevealRequest {
    /// The token.
    pub token: Token,
    /// Why the value is needed.
    pub purpose: Purpose,
}

/// `POST /erase`: forget the value.
#[derive(Debug)]
pub struct EraseRequest {
    /// What to erase.
    pub target: Target,
    /// Why.
    pub purpose: Purpose,
    /// Whether the value is never sealed again.
    pub never_again: bool,
    /// Whether the tokens in the rows of `user_logins` are erased too.
    pub rows: bool,
}

/// `POST /audit`: which entries does the audit have?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditRequest {
    /// The time of the first entry.
    pub from: SystemTime,
    /// The time after the last entry.
    pub to: SystemTime,
    /// The number of the entry after which the page begins; 0 for the first page.
    pub after: i64,
}

/// `POST /verify`: do sealed values open?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerifyRequest {
    /// How many values to open, at most 100.
    pub sample: u16,
}

/// `POST /honey`: make tokens that belong to no value.
#[derive(Debug)]
pub struct HoneyRequest {
    /// How many, at most 100.
    pub count: u16,
    /// Why.
    pub purpose: Purpose,
}

/// What to erase.
#[derive(Debug)]
pub enum Target {
    /// The value of a token.
    Token(Token),
    /// A value.
    Value(Value),
    /// The values that only this user has.
    User(UserId),
}

/// A value of a field.
pub struct Value {
    /// The field.
    pub field: Field,
    /// The value, which is not blank.
    pub text: Zeroizing<String>,
}

/// The id of a user.
pub struct UserId(Zeroizing<String>);

/// Why a value is needed or erased.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Purpose {
    /// The kind of reason.
    pub reason: Reason,
    /// The number of a ticket.
    pub ticket: Ticket,
}

/// A kind of reason. There is no free text: it would become a copy of the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::EnumString, strum::IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
#[expect(missing_docs, reason = "each is named for its code")]
pub enum Reason {
    Incident,
    Fraud,
    Legal,
    DataSubject,
    Support,
    Test,
}

/// The number of a ticket, such as `SEC-1`: a project of 2 to 10 capital letters and digits, and a number of at most 9
/// digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ticket(String);

impl TokenRequest {
    /// Reads a body.
    ///
    /// # Errors
    ///
    /// The problem of the body.
    pub fn read(body: &[u8]) -> Result<Self, Problem> {
        let mut fields = Fields::read(body)?;
        let value = Value::take(&mut fields)?;
        fields.end("field and value")?;
        Ok(Self { value })
    }
}

impl RevealRequest {
    /// Reads a body.
    ///
    /// # Errors
    ///
    /// The problem of the body.
    pub fn read(body: &[u8]) -> Result<Self, Problem> {
        let mut fields = Fields::read(body)?;
        let token = take_token(&mut fields)?;
        let purpose = Purpose::take(&mut fields)?;
        fields.end("token, reason and ticket")?;
        Ok(Self { token, purpose })
    }
}

impl EraseRequest {
    /// Reads a body.
    ///
    /// # Errors
    ///
    /// The problem of the body.
    pub fn read(body: &[u8]) -> Result<Self, Problem> {
        let mut fields = Fields::read(body)?;
        let is_value = fields.contains("field") || fields.contains("value");
        let target = match (fields.contains("token"), is_value, fields.contains("user_id")) {
            (true, false, false) => Target::Token(take_token(&mut fields)?),
            (false, true, false) => Target::Value(Value::take(&mut fields)?),
            (false, false, true) => Target::User(UserId::take(&mut fields)?),
            _ => {
                let detail = "the body must have exactly one of token, user_id, or field with value";
                return Err(Problem::bad_request(detail));
            }
        };
        let purpose = Purpose::take(&mut fields)?;
        let never_again = fields.flag("never_again")?;
        let rows = fields.flag("rows")?;
        fields.end("token, field, value, user_id, reason, ticket, never_again and rows")?;
        Ok(Self { target, purpose, never_again, rows })
    }
}

impl AuditRequest {
    /// Reads a body.
    ///
    /// # Errors
    ///
    /// The problem of the body.
    pub fn read(body: &[u8]) -> Result<Self, Problem> {
        let mut fields = Fields::read(body)?;
        let (from, to) = (take_time(&mut fields, "from")?, take_time(&mut fields, "to")?);
        if from >= to {
            return Err(Problem::bad_request("the field from is not before the field to"));
        }
        let after = fields.number("after")?.unwrap_or_default();
        let after = after.try_into().map_err(|_| Problem::bad_request("the field after is too large"))?;
        fields.end("from, to and after")?;
        Ok(Self { from, to, after })
    }
}

impl VerifyRequest {
    /// Reads a body.
    ///
    /// # Errors
    ///
    /// The problem of the body.
    pub fn read(body: &[u8]) -> Result<Self, Problem> {
        let mut fields = Fields::read(body)?;
        let sample = within(fields.number("sample")?.unwrap_or(SAMPLE), MAX_SAMPLE);
        let sample = sample.ok_or_else(|| Problem::bad_request("the field sample is not 1 to 100"))?;
        fields.end("sample")?;
        Ok(Self { sample })
    }
}

impl HoneyRequest {
    /// Reads a body.
    ///
    /// # Errors
    ///
    /// The problem of the body.
    pub fn read(body: &[u8]) -> Result<Self, Problem> {
        let mut fields = Fields::read(body)?;
        let count = fields.number("count")?;
        let count = count.ok_or_else(|| Problem::bad_request("the field count is missing"))?;
        let count = within(count, MAX_HONEY);
        let count = count.ok_or_else(|| Problem::bad_request("the field count is not 1 to 100"))?;
        let purpose = Purpose::take(&mut fields)?;
        fields.end("count, reason and ticket")?;
        Ok(Self { count, purpose })
    }
}

impl Value {
    fn take(fields: &mut Fields) -> Result<Self, Problem> {
        let field = fields.text("field")?;
        let field =
            field.parse().map_err(|_| Problem::bad_request("the field field is neither ip nor device_id"))?;
        let text = fields.text("value")?;
        if text.trim().is_empty() || text.contains('\0') {
            return Err(Problem::bad_request("the field value is blank, or has a character U+0000"));
        }
        Ok(Self { field, text })
    }
}

impl UserId {
    /// Returns the id.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn take(fields: &mut Fields) -> Result<Self, Problem> {
        let id = fields.text("user_id")?;
        if id.is_empty() || id.chars().nth(MAX_USER_ID).is_some() || id.contains('\0') {
            let detail = "the field user_id has not 1 to 128 characters, or has a character U+0000";
            return Err(Problem::bad_request(detail));
        }
        Ok(Self(id))
    }
}

impl Purpose {
    fn take(fields: &mut Fields) -> Result<Self, Problem> {
        let reason = fields.text("reason")?.parse().map_err(|_| {
            Problem::bad_request(
                "the field reason is none of incident, fraud, legal, data-subject, support and test",
            )
        })?;
        let ticket = Ticket::read(&fields.text("ticket")?)?;
        Ok(Self { reason, ticket })
    }
}

impl Reason {
    /// Returns the code.
    #[must_use]
    pub fn code(self) -> &'static str {
        self.into()
    }
}

impl Ticket {
    /// Returns the number.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn read(text: &str) -> Result<Self, Problem> {
        let is_ticket = text.split_once('-').is_some_and(|(project, number)| {
            (2..=10).contains(&project.len())
                && project.starts_with(|first: char| first.is_ascii_uppercase())
                && project.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
                && (1..=9).contains(&number.len())
                && number.bytes().all(|byte| byte.is_ascii_digit())
        });
        if is_ticket {
            return Ok(Self(text.to_owned()));
        }
        let detail = "the field ticket is not the number of a ticket, such as SEC-1: 2 to 10 capital letters \
                      and digits, a hyphen, 1 to 9 digits";
        Err(Problem::bad_request(detail))
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Value").field("field", &self.field).finish_non_exhaustive()
    }
}

impl fmt::Debug for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UserId")
    }
}

/// Takes a field with a time, as [RFC 3339] writes it, in UTC.
///
/// [RFC 3339]: https://www.rfc-editor.org/rfc/rfc3339
fn take_time(fields: &mut Fields, name: &'static str) -> Result<SystemTime, Problem> {
    let text = fields.text(name)?;
    // The parser's error is dropped: it quotes the text.
    let time = DateTime::from_str(&text, DateTimeFormat::DateTime).ok();
    time.and_then(|time| time.try_into().ok()).ok_or_else(|| {
        Problem::bad_request(format!("the field {name} is not a time, such as 2026-11-27T00:00:00Z"))
    })
}

/// Returns a number if it is 1 to `most`.
fn within(number: u64, most: u64) -> Option<u16> {
    (1..=most).contains(&number).then(|| number.try_into().ok()).flatten()
}

fn take_token(fields: &mut Fields) -> Result<Token, Problem> {
    let token = Token::parse(&fields.text("token")?);
    token.map_err(|_| Problem::bad_request("the field token is not 64 lowercase hexadecimal digits"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const TOKEN: &str = "fadc60fe27578c94ae3481d3cf8f232ae63d3e3880d9c5ac1a481ef6ea51a5a3";

    fn detail<R>(read: Result<R, Problem>) -> String {
        match read {
            Ok(_) => "read".to_owned(),
            Err(problem) => {
                assert_eq!(problem.status, 400);
                problem.detail.into_owned()
            }
        }
    }

    #[test]
    fn complete_requests_are_read() {
        let token = TokenRequest::read(br#"{"field": "ip", "value": " 192.0.2.1"}"#).unwrap();
        let body = json!({ "token": TOKEN, "reason": "data-subject", "ticket": "SEC-1" }).to_string();
        let reveal = RevealRequest::read(body.as_bytes()).unwrap();

        assert_eq!((token.value.field, &**token.value.text), (Field::Ip, " 192.0.2.1"));
        assert_eq!(reveal.token.to_text(), TOKEN);
        assert_eq!(reveal.purpose, Purpose { reason: Reason::DataSubject, ticket: Ticket("SEC-1".into()) });
    }

    #[test]
    fn erasure_has_one_target() {
        let erase = |mut body: serde_json::Value| {
            body["reason"] = "legal".into();
            body["ticket"] = "DPO2-123456789".into();
            EraseRequest::read(body.to_string().as_bytes())
        };
        let one = "the body must have exactly one of token, user_id, or field with value";

        assert!(matches!(erase(json!({ "token": TOKEN })).unwrap().target, Target::Token(_)));
        let by_value = erase(json!({ "field": "device_id", "value": "x", "never_again": true })).unwrap();
        assert!(matches!(by_value.target, Target::Value(Value { field: Field::DeviceId, .. })));
        assert_eq!((by_value.never_again, by_value.rows), (true, false));
        let by_user = erase(json!({ "user_id": "ann", "rows": true })).unwrap();
        assert!(matches!(by_user.target, Target::User(_)));
        assert_eq!((by_user.never_again, by_user.rows), (false, true));
        for target in [
            json!({}),
            json!({ "token": TOKEN, "user_id": "ann" }),
            json!({ "token": TOKEN, "field": "ip", "value": "x" }),
            json!({ "value": "x", "user_id": "ann" }),
        ] {
            assert_eq!(detail(erase(target)), one);
        }
        assert_eq!(detail(erase(json!({ "value": "x" }))), "the field field is missing");
        assert_eq!(detail(erase(json!({ "field": "ip" }))), "the field value is missing");
        for user_id in ["", &"x".repeat(129), "\0"] {
            assert_eq!(
                detail(erase(json!({ "user_id": user_id }))),
                "the field user_id has not 1 to 128 characters, or has a character U+0000"
            );
        }
        assert_eq!(
            detail(erase(json!({ "token": TOKEN, "rows": "true" }))),
            "the field rows is neither true nor false"
        );
    }

    #[test]
    fn errors_name_the_field_only() {
        let leak = "192.0.2.1";
        let with = |name: &str, value: serde_json::Value| {
            let mut body = json!({ "token": TOKEN, "reason": "fraud", "ticket": "SEC-1" });
            body[name] = value;
            body.to_string()
        };
        let ticket = "the field ticket is not the number of a ticket, such as SEC-1: 2 to 10 capital letters \
                      and digits, a hyphen, 1 to 9 digits";
        let reason = "the field reason is none of incident, fraud, legal, data-subject, support and test";

        for (body, expected) in [
            (String::new(), "the body is not a JSON object"),
            (leak.to_owned(), "the body is not a JSON object"),
            (format!(r#"["{leak}"]"#), "the body is not a JSON object"),
            (format!(r#"{{"token": "{leak}"#), "the body is not a JSON object"),
            (format!("{{}} {leak}"), "the body is not a JSON object"),
            (r#"{"token": "\ud800"}"#.to_owned(), "the body is not a JSON object"),
            ("{}".to_owned(), "the field token is missing"),
            (with("token", leak.into()), "the field token is not 64 lowercase hexadecimal digits"),
            (with("token", json!([leak])), "the field token is not a string"),
            (with("token", json!(null)), "the field token is not a string"),
            (with("reason", leak.into()), reason),
            (with("reason", "Fraud".into()), reason),
            (with("reason", "DataSubject".into()), reason),
            (with("ticket", leak.into()), ticket),
            (with("ticket", "he asked for it".into()), ticket),
            (with(leak, leak.into()), "the body has a field that is none of token, reason and ticket"),
            (
                format!(r#"{{"token": "{TOKEN}", "token": "{leak}", "reason": "fraud", "ticket": "SEC-1"}}"#),
                "the field token occurs more than once",
            ),
        ] {
            assert_eq!(detail(RevealRequest::read(body.as_bytes())), expected);
        }
    }

    #[test]
    fn values_are_of_a_known_field() {
        let read = |field: &str, value: &str| {
            detail(TokenRequest::read(json!({ "field": field, "value": value }).to_string().as_bytes()))
        };

        assert_eq!(read("device_id", "593-47-5928"), "read");
        for field in ["", "IP", "Ip", "user_id", "deviceId"] {
            assert_eq!(read(field, "192.0.2.1"), "the field field is neither ip nor device_id");
        }
        for value in ["", " \t", "1\u{0}"] {
            assert_eq!(read("ip", value), "the field value is blank, or has a character U+0000");
        }
    }

    /// As the constraint of the database: `^[A-Z][A-Z0-9]{1,9}-[0-9]{1,9}$`.
    #[test]
    fn tickets_are_short_codes() {
        for ticket in ["SEC-1", "A1-0", "ABCDEFGHIJ-123456789"] {
            assert_eq!(Ticket::read(ticket).unwrap().as_str(), ticket);
        }
        for other in [
            "",
            "SEC",
            "SEC-",
            "-1",
            "A-1",
            "1A-1",
            "ABCDEFGHIJK-1",
            "SEC-1234567890",
            "sec-1",
            "SEC-1 ",
            "SEC-1\n",
            "SEC-+1",
            "SEC--1",
            "SEC-1-2",
            "SÉC-1",
            "SEC-١",
        ] {
            assert!(Ticket::read(other).is_err(), "{other:?}");
        }
    }

    #[test]
    fn debug_prints_no_value() {
        let token = TokenRequest::read(br#"{"field": "ip", "value": "192.0.2.1"}"#).unwrap();
        let body = json!({ "user_id": "ann", "reason": "fraud", "ticket": "SEC-1" }).to_string();
        let erase = EraseRequest::read(body.as_bytes()).unwrap();

        let text = format!("{token:?} {erase:?}");

        assert!(!text.contains("192") && !text.contains("ann"), "{text}");
    }
}
