//! The places from which a page continues. Each well-formed place is valid, also one that no row has: the page has the
//! rows after it.
//!
//! A day is written as a number, because a pattern that matches exactly the days that exist would be unreadable.

use serde::Deserialize;
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::parameters::{EXAMPLE_TOKEN, is_hash, text_schema};

/// A number and a key of 64 hexadecimal digits, for rows with the largest number first. The number is a count of users
/// or logins, or the number of a day.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct NumberThenKey {
    /// The number of the last row before the page.
    pub number: i64,
    /// The key of the last row before the page.
    pub key: String,
}

/// The number of a day and a rank within the day, for rows with the latest day first.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct NumberThenRank {
    /// The number of the day of the last row before the page.
    pub number: i64,
    /// The rank of the last row before the page.
    pub rank: i64,
}

/// The start: before the first row.
impl Default for NumberThenKey {
    fn default() -> Self {
        Self { number: i64::MAX, key: String::new() }
    }
}

/// The start: before the first row.
impl Default for NumberThenRank {
    fn default() -> Self {
        Self { number: i64::MAX, rank: 0 }
    }
}

impl TryFrom<String> for NumberThenKey {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let place = text.split_once(',').and_then(|(number, key)| {
            Some(Self { number: digits(number)?, key: is_hash(key).then(|| key.to_owned())? })
        });
        place.ok_or("must be 1 to 15 digits, a comma and 64 hexadecimal digits in lower case")
    }
}

impl TryFrom<String> for NumberThenRank {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let place = text
            .split_once(',')
            .and_then(|(number, rank)| Some(Self { number: digits(number)?, rank: digits(rank)? }));
        place.ok_or("must be two numbers of 1 to 15 digits, with a comma between")
    }
}

impl PartialSchema for NumberThenKey {
    fn schema() -> RefOr<Schema> {
        place("^[0-9]{1,15},[0-9a-f]{64}$", format!("2,{EXAMPLE_TOKEN}"))
    }
}

impl ToSchema for NumberThenKey {}

impl PartialSchema for NumberThenRank {
    fn schema() -> RefOr<Schema> {
        place("^[0-9]{1,15},[0-9]{1,15}$", "739933,1".to_owned())
    }
}

impl ToSchema for NumberThenRank {}

/// Reads 1 to 15 digits, which an `i64` can hold.
fn digits(text: &str) -> Option<i64> {
    let is_number = (1..=15).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok()).flatten()
}

fn place(pattern: &str, example: String) -> RefOr<Schema> {
    RefOr::T(Schema::Object(text_schema().pattern(Some(pattern)).examples([example]).build()))
}
