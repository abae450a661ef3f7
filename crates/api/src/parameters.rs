//! The types of the parameters. What one of them accepts, the schema in `/openapi.json` accepts too, and the reverse.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::ops::RangeInclusive;

use jiff::ToSpan;
use jiff::civil::Date;
use serde::de::{Error as _, Visitor};
use serde::{Deserialize, Serialize};
use tokio_postgres::types::{FromSql, Type as SqlType};
use utoipa::openapi::schema::{KnownFormat, SchemaFormat, SchemaType, Type};
use utoipa::openapi::{Object, ObjectBuilder, RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

/// The pattern of a token: the masked value of a field.
pub const TOKEN_PATTERN: &str = "^[0-9a-f]{64}$";

/// A token for the examples in the document.
pub(crate) const EXAMPLE_TOKEN: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

/// The most rows of an answer.
pub type Limit = Number<1, 200, 50>;

/// A masked value, as it stands in the database.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize)]
#[serde(try_from = "String")]
pub struct Token(String);

/// The id of a user, as it stands in a login.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
#[expect(missing_debug_implementations, reason = "a user id is personal data")]
pub struct UserId(String);

/// A masked field of a login.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", rename_all = "snake_case")]
pub enum Field {
    /// The device's id.
    DeviceId,
    /// The address.
    Ip,
}

/// A period of the rollups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String")]
pub enum Period {
    /// The last day.
    #[serde(rename = "1d")]
    Day,
    /// The last 7 days.
    #[serde(rename = "7d")]
    Week,
    /// The last 28 days.
    #[default]
    #[serde(rename = "28d")]
    Month,
    /// All time.
    #[serde(rename = "all")]
    All,
}

/// A whole number from `MIN` to `MAX`, by default `DEFAULT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Number<const MIN: u32, const MAX: u32, const DEFAULT: u32>(u32);

/// A day from 0001-01-01 to 9999-12-31, which both Postgres and JSON can write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(try_from = "String")]
pub struct Day(pub Date);

impl Token {
    /// Returns the text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Token {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if is_hash(&text) { Ok(Self(text)) } else { Err("must be 64 hexadecimal digits in lower case") }
    }
}

/// Whether the text is 64 hexadecimal digits in lower case.
pub(crate) fn is_hash(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

impl UserId {
    /// The most characters. The column of a table that `migrate` made has no more.
    const MAX_LENGTH: usize = 128;

    /// Returns the text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for UserId {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if (1..=Self::MAX_LENGTH).contains(&text.chars().count()) && !text.contains('\0') {
            Ok(Self(text))
        } else {
            Err("must have 1 to 128 characters, and no NUL")
        }
    }
}

impl Field {
    /// All fields.
    pub const ALL: [Self; 2] = [Self::DeviceId, Self::Ip];

    /// Returns the name in URLs and in the database.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::DeviceId => "device_id",
            Self::Ip => "ip",
        }
    }
}

impl TryFrom<String> for Field {
    type Error = &'static str;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        Self::ALL.into_iter().find(|field| field.name() == name).ok_or("must be device_id or ip")
    }
}

impl Period {
    /// All periods, the shortest first.
    pub const ALL: [Self; 4] = [Self::Day, Self::Week, Self::Month, Self::All];

    /// Returns the name in URLs and in the database.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Day => "1d",
            Self::Week => "7d",
            Self::Month => "28d",
            Self::All => "all",
        }
    }
}

impl TryFrom<String> for Period {
    type Error = &'static str;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        Self::ALL.into_iter().find(|period| period.name() == name).ok_or("must be 1d, 7d, 28d or all")
    }
}

impl<const MIN: u32, const MAX: u32, const DEFAULT: u32> Number<MIN, MAX, DEFAULT> {
    /// Makes a number, if it is in the range.
    #[must_use]
    pub fn new(number: u32) -> Option<Self> {
        (MIN..=MAX).contains(&number).then_some(Self(number))
    }

    /// Returns the number.
    #[must_use]
    pub fn get(self) -> i64 {
        i64::from(self.0)
    }
}

impl<const MIN: u32, const MAX: u32, const DEFAULT: u32> Default for Number<MIN, MAX, DEFAULT> {
    fn default() -> Self {
        Self(DEFAULT)
    }
}

/// Reads a number of a query string, or a number of JSON, which may be written as `5.0`.
impl<'de, const MIN: u32, const MAX: u32, const DEFAULT: u32> Deserialize<'de> for Number<MIN, MAX, DEFAULT> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = deserializer.deserialize_u32(WholeNumber).ok().and_then(Self::new);
        number.ok_or_else(|| D::Error::custom(format!("must be a whole number from {MIN} to {MAX}")))
    }
}

struct WholeNumber;

impl Visitor<'_> for WholeNumber {
    type Value = u32;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number")
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<u32, E> {
        number.try_into().map_err(E::custom)
    }

    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<u32, E> {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "compared below")]
        let whole = number as u32;
        #[expect(clippy::float_cmp, reason = "a whole number is exact")]
        let is_whole = f64::from(whole) == number;
        is_whole.then_some(whole).ok_or_else(|| E::custom("not whole"))
    }
}

impl Day {
    const YEARS: RangeInclusive<i16> = 1..=9999;
    const FIRST: Date = Date::constant(1, 1, 1);
    const LAST_NUMBER: i64 = 3_652_058;

    /// Returns the number of the day: 0 for 0001-01-01.
    #[must_use]
    pub fn number(self) -> i64 {
        self.0.duration_since(Self::FIRST).as_hours() / 24
    }

    /// Returns the day with a number; for a number that is too large, the last day.
    #[must_use]
    pub fn numbered(number: i64) -> Self {
        Self(Self::FIRST.saturating_add(number.clamp(0, Self::LAST_NUMBER).days()))
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl TryFrom<String> for Day {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let has_shape = text.len() == 10
            && text.bytes().enumerate().all(|(place, byte)| match place {
                4 | 7 => byte == b'-',
                _ => byte.is_ascii_digit(),
            });
        let date = has_shape.then(|| text.parse::<Date>().ok()).flatten();
        date.filter(|date| Self::YEARS.contains(&date.year()))
            .map(Self)
            .ok_or("must be a day from 0001-01-01 to 9999-12-31")
    }
}

/// Implements `FromSql` for a type that is made of a text.
macro_rules! from_sql_text {
    ($($name:ty),*) => {$(
        impl<'a> FromSql<'a> for $name {
            fn from_sql(kind: &SqlType, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
                Ok(String::from_sql(kind, raw)?.try_into()?)
            }

            fn accepts(kind: &SqlType) -> bool {
                <String as FromSql>::accepts(kind)
            }
        }
    )*};
}

from_sql_text!(Token, Field, Period);

impl<'a> FromSql<'a> for Day {
    fn from_sql(kind: &SqlType, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Date::from_sql(kind, raw).map(Self)
    }

    fn accepts(kind: &SqlType) -> bool {
        <Date as FromSql>::accepts(kind)
    }
}

/// Makes the schema of a text.
pub(crate) fn text_schema() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(SchemaType::Type(Type::String))
}

fn schema(object: impl Into<Object>) -> RefOr<Schema> {
    RefOr::T(Schema::Object(object.into()))
}

impl PartialSchema for Token {
    fn schema() -> RefOr<Schema> {
        schema(text_schema().pattern(Some(TOKEN_PATTERN)).examples([EXAMPLE_TOKEN]))
    }
}

impl ToSchema for Token {}

impl PartialSchema for UserId {
    fn schema() -> RefOr<Schema> {
        let text = text_schema().min_length(Some(1)).max_length(Some(Self::MAX_LENGTH));
        schema(text.pattern(Some("^[^\\u0000]*$")).examples(["a user"]))
    }
}

impl ToSchema for UserId {}

impl PartialSchema for Field {
    fn schema() -> RefOr<Schema> {
        schema(text_schema().enum_values(Some(Self::ALL.map(Self::name))).examples([Self::DeviceId.name()]))
    }
}

impl ToSchema for Field {}

impl PartialSchema for Period {
    fn schema() -> RefOr<Schema> {
        let names = Self::ALL.map(Self::name);
        schema(
            text_schema()
                .enum_values(Some(names))
                .default(Some(Self::default().name().into()))
                .examples([Self::default().name()]),
        )
    }
}

impl ToSchema for Period {}

impl<const MIN: u32, const MAX: u32, const DEFAULT: u32> PartialSchema for Number<MIN, MAX, DEFAULT> {
    fn schema() -> RefOr<Schema> {
        let number = ObjectBuilder::new()
            .schema_type(SchemaType::Type(Type::Integer))
            .minimum(Some(MIN))
            .maximum(Some(MAX))
            .default(Some(DEFAULT.into()))
            .examples([DEFAULT]);
        schema(number)
    }
}

impl<const MIN: u32, const MAX: u32, const DEFAULT: u32> ToSchema for Number<MIN, MAX, DEFAULT> {
    fn name() -> Cow<'static, str> {
        format!("Number{MIN}To{MAX}").into()
    }
}

impl PartialSchema for Day {
    fn schema() -> RefOr<Schema> {
        let format = SchemaFormat::KnownFormat(KnownFormat::Date);
        schema(text_schema().format(Some(format)).examples(["2026-11-14"]))
    }
}

impl ToSchema for Day {}
