//! How fresh the rollups are.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;
use tokio_postgres::Row;
use utoipa::ToSchema;

use crate::database::{Database, DatabaseError};
use crate::parameters::Day;
use crate::statement::{Parameter, Statement};

/// The comment on the schema of rollups that this program can read.
pub const MARKER: &str = "login-etl rollups, version 1";

/// How fresh the rollups are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Freshness {
    /// The number of the roll-up that last changed something.
    #[schema(minimum = 1)]
    pub run: i64,
    /// The time of the last roll-up.
    #[schema(value_type = String, format = DateTime)]
    pub rolled_up_at: Timestamp,
    /// The latest day that has logins; the periods end on it. Null without logins.
    pub through: Option<Day>,
    /// The days that are not rolled up yet. The next roll-up continues with them.
    #[schema(minimum = 0)]
    pub days_left: i64,
    /// The logins without a usable day, which are in no rollup.
    #[schema(minimum = 0)]
    pub logins_without_day: i64,
    /// Random text of the schema, which is another after the schema was dropped and made again.
    #[serde(skip)]
    pub cursor_key: String,
}

impl Freshness {
    /// Returns the day on which ranges of days end by default: the latest day with logins, or the day of the roll-up.
    #[must_use]
    pub fn last_day(&self) -> Day {
        self.through.unwrap_or_else(|| Day(TimeZone::UTC.to_datetime(self.rolled_up_at).date()))
    }
}

/// Returns the statement that reads how fresh the rollups are.
#[must_use]
pub fn statement(analytics: &str) -> Statement {
    Statement::new(include_str!("freshness.sql"), [Parameter::Text(analytics.to_owned())])
}

/// Returns the statement that reads the marker alone, which also succeeds without the schema.
#[must_use]
pub fn marker(analytics: &str) -> Statement {
    Statement::new(include_str!("marker.sql"), [Parameter::Text(analytics.to_owned())])
}

/// Reads how fresh the rollups are.
///
/// # Errors
///
/// [`DatabaseError::NotRolledUp`], [`DatabaseError::OtherVersion`], and the others.
pub async fn read(database: &Database) -> Result<Freshness, DatabaseError> {
    let rows = database.sql_rows(&statement(database.analytics())).await?;
    check_marker(rows.first())?;
    let row = rows.first().ok_or(DatabaseError::NotRolledUp)?;
    let freshness = || {
        let Some(rolled_up_at) = row.try_get("rolled_up_at")? else { return Ok(None) };
        Ok(Some(Freshness {
            run: row.try_get("run")?,
            rolled_up_at,
            through: row.try_get("through")?,
            days_left: row.try_get::<_, i32>("days_left")?.into(),
            logins_without_day: row.try_get("logins_without_day")?,
            cursor_key: row.try_get("cursor_key")?,
        }))
    };
    freshness().map_err(DatabaseError::of_columns)?.ok_or(DatabaseError::NotRolledUp)
}

/// Checks the marker, in a row of either statement.
///
/// # Errors
///
/// [`DatabaseError::NotRolledUp`] or [`DatabaseError::OtherVersion`].
pub fn check_marker(row: Option<&Row>) -> Result<(), DatabaseError> {
    let marker = row.map(|row| row.try_get("marker")).transpose().map_err(DatabaseError::of_columns)?;
    match marker.flatten() {
        Some(MARKER) => Ok(()),
        Some(_) => Err(DatabaseError::OtherVersion),
        None => Err(DatabaseError::NotRolledUp),
    }
}
