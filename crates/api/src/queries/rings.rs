//! Groups of users that share devices.

use serde::Serialize;
use utoipa::ToSchema;

use super::duplicates::Duplicate;
use crate::database::{Database, DatabaseError};
use crate::parameters::{Day, Token};
use crate::rows::{Page, Row};
use crate::statement::{Parameter, Statement};

/// A group of users that share devices, in the last 28 days.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Ring {
    /// The name of the ring: the first of its device tokens.
    pub ring: Token,
    /// The users.
    #[schema(minimum = 2)]
    pub users: i64,
    /// The devices that connect the users.
    #[schema(minimum = 1)]
    pub devices: i64,
    /// The logins of the users with these devices.
    #[schema(minimum = 1)]
    pub logins: i64,
    /// The day of the first of these logins.
    pub first_day: Day,
    /// The day of the last of these logins.
    pub last_day: Day,
}

/// A user of a ring.
#[derive(Clone, PartialEq, Eq, Serialize, ToSchema)]
#[expect(missing_debug_implementations, reason = "a user id is personal data")]
pub struct RingMember {
    /// The user's id.
    pub user_id: String,
    /// The devices of the ring that the user logged in with.
    #[schema(minimum = 1)]
    pub devices: i64,
    /// The user's logins with these devices.
    #[schema(minimum = 1)]
    pub logins: i64,
    /// The day of the first of these logins.
    pub first_day: Day,
    /// The day of the last of these logins.
    pub last_day: Day,
    #[serde(skip)]
    key: String,
}

/// Returns the statement that lists the rings.
#[must_use]
pub fn statement(page: &Page) -> Statement {
    let parameters = [
        Parameter::Integer(page.after.number),
        Parameter::Text(page.after.key.clone()),
        Parameter::Integer(page.limit.get()),
    ];
    Statement::new(include_str!("rings.sql"), parameters)
}

/// Lists the rings, the largest first.
///
/// # Errors
///
/// [`DatabaseError`].
pub async fn rows(database: &Database, page: &Page) -> Result<Vec<Ring>, DatabaseError> {
    database.rows(&statement(page)).await
}

/// Returns the statement that finds a ring.
#[must_use]
pub fn ring_statement(ring: &Token) -> Statement {
    Statement::new(include_str!("ring.sql"), [Parameter::Text(ring.to_string())])
}

/// Finds a ring: one row, or none.
///
/// # Errors
///
/// [`DatabaseError`].
pub async fn ring(database: &Database, ring: &Token) -> Result<Vec<Ring>, DatabaseError> {
    database.rows(&ring_statement(ring)).await
}

/// Returns the statement that lists the devices of a ring.
#[must_use]
pub fn devices_statement(ring: &Token, page: &Page) -> Statement {
    let sql =
        "SELECT token, users, logins, first_day, last_day FROM {analytics}.ring_devices($1, $2, $3, $4)";
    Statement::new(sql, page.parameters(ring))
}

/// Lists the devices that connect the users of a ring, the most shared first.
///
/// # Errors
///
/// [`DatabaseError`].
pub async fn devices(
    database: &Database,
    ring: &Token,
    page: &Page,
) -> Result<Vec<Duplicate>, DatabaseError> {
    database.rows(&devices_statement(ring, page)).await
}

/// Returns the statement that lists the users of a ring.
#[must_use]
pub fn members_statement(ring: &Token, page: &Page) -> Statement {
    let sql = "SELECT user_id, devices, logins, first_day, last_day, key FROM {analytics}.ring_users($1, $2, $3, $4)";
    Statement::new(sql, page.parameters(ring))
}

/// Lists the users of a ring, those with the most logins first.
///
/// # Errors
///
/// [`DatabaseError`].
pub async fn members(
    database: &Database,
    ring: &Token,
    page: &Page,
) -> Result<Vec<RingMember>, DatabaseError> {
    database.rows(&members_statement(ring, page)).await
}

impl Row for Ring {
    const COLUMNS: &'static [&'static str] = &["ring", "users", "devices", "logins", "first_day", "last_day"];

    fn read(row: &tokio_postgres::Row) -> Result<Self, tokio_postgres::Error> {
        Ok(Self {
            ring: row.try_get("ring")?,
            users: row.try_get("users")?,
            devices: row.try_get("devices")?,
            logins: row.try_get("logins")?,
            first_day: row.try_get("first_day")?,
            last_day: row.try_get("last_day")?,
        })
    }

    fn position(&self) -> Option<String> {
        Some(format!("{},{}", self.users, self.ring))
    }
}

impl Row for RingMember {
    const COLUMNS: &'static [&'static str] = &["user_id", "devices", "logins", "first_day", "last_day"];

    fn read(row: &tokio_postgres::Row) -> Result<Self, tokio_postgres::Error> {
        Ok(Self {
            user_id: row.try_get("user_id")?,
            devices: row.try_get("devices")?,
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
