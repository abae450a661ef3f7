//! A token: its periods, its days and its users.

use serde::Serialize;
use utoipa::ToSchema;

use crate::database::{Database, DatabaseError};
use crate::parameters::{Day, Field, Period, Token};
use crate::rows::{Page, Row};
use crate::statement::{Parameter, Statement};

/// The most users of a token that the database lists: `src/analytics/roll_up.sql` stores as many.
pub const MAX_LISTED_USERS: i64 = 1000;

/// A token in one period that has logins with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct TokenPeriod {
    /// The masked field.
    pub field: Field,
    /// The period.
    pub period: Period,
    /// The different users in the period.
    #[schema(minimum = 1)]
    pub users: i64,
    /// The logins in the period.
    #[schema(minimum = 1)]
    pub logins: i64,
    /// The day of the first login in the period.
    pub first_day: Day,
    /// The day of the last login in the period.
    pub last_day: Day,
    /// The ring that the token belongs to.
    pub ring: Option<Token>,
}

/// A day that has logins with a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct TokenDay {
    /// The day.
    pub day: Day,
    /// The logins of the day.
    #[schema(minimum = 1)]
    pub logins: i64,
    /// The different users of the day.
    #[schema(minimum = 1)]
    pub users: i64,
}

/// A user of a token.
#[derive(Clone, PartialEq, Eq, Serialize, ToSchema)]
#[expect(missing_debug_implementations, reason = "a user id is personal data")]
pub struct TokenUser {
    /// The user's id.
    pub user_id: String,
    /// The user's logins with the token.
    #[schema(minimum = 1)]
    pub logins: i64,
    /// The day of the first of these logins.
    pub first_day: Day,
    /// The day of the last of these logins.
    pub last_day: Day,
    #[serde(skip)]
    key: String,
}

/// Returns the statement that counts the users and logins of a token in each period.
#[must_use]
pub fn statement(token: &Token) -> Statement {
    let sql =
        "SELECT field, period, users, logins, first_day, last_day, ring FROM {analytics}.token_periods($1)";
    Statement::new(sql, [Parameter::Text(token.to_string())])
}

/// Counts the users and logins of a token in each period. A token without logins has no rows.
///
/// # Errors
///
/// [`DatabaseError`].
pub async fn rows(database: &Database, token: &Token) -> Result<Vec<TokenPeriod>, DatabaseError> {
    database.rows(&statement(token)).await
}

/// Returns the statement that counts the logins of a token by day.
#[must_use]
pub fn daily_statement(token: &Token) -> Statement {
    let sql = "SELECT day, logins, users FROM {analytics}.token_days($1)";
    Statement::new(sql, [Parameter::Text(token.to_string())])
}

/// Counts the logins of a token on each of the last 28 days that has any, the last day first.
///
/// # Errors
///
/// [`DatabaseError`].
pub async fn daily(database: &Database, token: &Token) -> Result<Vec<TokenDay>, DatabaseError> {
    database.rows(&daily_statement(token)).await
}

/// Returns the statement that lists the users of a token.
#[must_use]
pub fn users_statement(token: &Token, page: &Page) -> Statement {
    let sql = "SELECT user_id, logins, first_day, last_day, key FROM {analytics}.token_users($1, $2, $3, $4)";
    Statement::new(sql, page.parameters(token))
}

/// Lists the users of a token, at most 1,000 of them, those with the most logins first.
///
/// # Errors
///
/// [`DatabaseError`].
pub async fn users(database: &Database, token: &Token, page: &Page) -> Result<Vec<TokenUser>, DatabaseError> {
    database.rows(&users_statement(token, page)).await
}

impl Row for TokenPeriod {
    const COLUMNS: &'static [&'static str] =
        &["field", "period", "users", "logins", "first_day", "last_day", "ring"];

    fn read(row: &tokio_postgres::Row) -> Result<Self, tokio_postgres::Error> {
        Ok(Self {
            field: row.try_get("field")?,
            period: row.try_get("period")?,
            users: row.try_get("users")?,
            logins: row.try_get("logins")?,
            first_day: row.try_get("first_day")?,
            last_day: row.try_get("last_day")?,
            ring: row.try_get("ring")?,
        })
    }
}

impl Row for TokenDay {
    const COLUMNS: &'static [&'static str] = &["day", "logins", "users"];

    fn read(row: &tokio_postgres::Row) -> Result<Self, tokio_postgres::Error> {
        Ok(Self { day: row.try_get("day")?, logins: row.try_get("logins")?, users: row.try_get("users")? })
    }
}

impl Row for TokenUser {
    const COLUMNS: &'static [&'static str] = &["user_id", "logins", "first_day", "last_day"];

    fn read(row: &tokio_postgres::Row) -> Result<Self, tokio_postgres::Error> {
        Ok(Self {
            user_id: row.try_get("user_id")?,
            logins: row.try_get("logins")?,
            first_day: row.try_get("first_day")?,
            last_day: row.try_get("last_day")?,
            key: row.try_get("key")?,
        })
    }

    fn position(&self) -> Option<String> {
        Some(format!("{},{}", self.logins, self.key))
    }
}
