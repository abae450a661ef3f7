//! How fresh the rollups are.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use login_etl::analytics::MARKER;
use serde::Serialize;
use tokio_postgres::Row;
use utoipa::ToSchema;

use crate::parameters::Day;
use crate::statement::{Parameter, Statement};

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

/// Why there are no rollups to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotReady {
    /// The schema of the rollups is missing or empty.
    #[error("the logins are not rolled up yet")]
    NotRolledUp,
    /// The schema of the rollups is of another version than this program.
    #[error("the rollups have another version")]
    OtherVersion,
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
    Statement::new(include_str!("freshness/freshness.sql"), [Parameter::Text(analytics.to_owned())])
}

/// Returns the statement that reads the marker alone, which also succeeds without the schema.
#[must_use]
pub fn marker(analytics: &str) -> Statement {
    Statement::new(include_str!("freshness/marker.sql"), [Parameter::Text(analytics.to_owned())])
}

/// Reads the row of [`statement`].
///
/// # Errors
///
/// [`NotReady`].
pub fn read(rows: &[Row]) -> Result<Freshness, NotReady> {
    check_marker(rows)?;
    let row = rows.first().ok_or(NotReady::NotRolledUp)?;
    let rolled_up_at = row.try_get::<_, Option<Timestamp>>("rolled_up_at")?;
    Ok(Freshness {
        run: row.try_get("run")?,
        rolled_up_at: rolled_up_at.ok_or(NotReady::NotRolledUp)?,
        through: row.try_get("through")?,
        days_left: row.try_get::<_, i32>("days_left")?.into(),
        logins_without_day: row.try_get("logins_without_day")?,
        cursor_key: row.try_get("cursor_key")?,
    })
}

/// Checks the marker, in the row of either statement.
///
/// # Errors
///
/// [`NotReady`].
pub fn check_marker(rows: &[Row]) -> Result<(), NotReady> {
    match rows.first().map(|row| row.try_get("marker")).transpose()?.flatten() {
        Some(MARKER) => Ok(()),
        Some(_) => Err(NotReady::OtherVersion),
        None => Err(NotReady::NotRolledUp),
    }
}

/// The rows have other columns.
impl From<tokio_postgres::Error> for NotReady {
    fn from(_: tokio_postgres::Error) -> Self {
        Self::OtherVersion
    }
}
