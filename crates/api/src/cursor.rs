//! The places from which a page continues. Each well-formed place is valid, also one that no row has: the page has the
//! rows after it.

use std::fmt;

use serde::Deserialize;
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::parameters::{is_hash, text_schema};

/// A count and a key of 64 hexadecimal digits, for rows with the largest count first.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct CountThenKey {
    /// The count of the last row before the page.
    pub count: i64,
    /// The key of the last row before the page.
    pub key: String,
}

/// The start: before the first row.
impl Default for CountThenKey {
    fn default() -> Self {
        Self { count: i64::MAX, key: String::new() }
    }
}

impl fmt::Display for CountThenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{}", self.count, self.key)
    }
}

impl TryFrom<String> for CountThenKey {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let problem = "must be a count of at most 15 digits, a comma and 64 hexadecimal digits in lower case";
        let (count, key) = text.split_once(',').ok_or(problem)?;
        let is_count = (1..=15).contains(&count.len()) && count.bytes().all(|byte| byte.is_ascii_digit());
        if !is_count || !is_hash(key) {
            return Err(problem);
        }
        Ok(Self { count: count.parse().map_err(|_| problem)?, key: key.to_owned() })
    }
}

impl PartialSchema for CountThenKey {
    fn schema() -> RefOr<Schema> {
        RefOr::T(Schema::Object(text_schema().pattern(Some("^[0-9]{1,15},[0-9a-f]{64}$")).build()))
    }
}

impl ToSchema for CountThenKey {}
