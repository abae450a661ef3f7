//! How fresh the rollups are.

use jiff::Timestamp;
use serde::Serialize;
use tokio_postgres::Row;
use utoipa::ToSchema;

use crate::database::{Database, DatabaseError};
use crate::parameters::Day;
use crate::statement::{Parameter, Schemas, Statement};

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
    #[schema(inline)]
    pub through: Option<Day>,
    /// The days that are not rolled up yet. The next roll-up continues with them.
    #[schema(minimum = 0)]
    pub days_left: i64,
    /// The logins without a usable day, which are in no rollup.
    #[schema(minimum = 0)]
    pub logins_without_day: i64,
}

/// Returns the statement that reads how fresh the rollups are.
#[must_use]
pub fn statement(schemas: &Schemas) -> Statement {
    Statement::new(include_str!("freshness.sql"), [Parameter::Text(schemas.analytics().to_owned())])
}

/// Returns the statement that reads the marker alone, which also succeeds without the schema.
#[must_use]
pub fn marker(schemas: &Schemas) -> Statement {
    Statement::new(include_str!("marker.sql"), [Parameter::Text(schemas.analytics().to_owned())])
}

/// Reads how fresh the rollups are.
///
/// # Errors
///
/// [`DatabaseError::NotRolledUp`], [`DatabaseError::OtherVersion`], and the others.
pub async fn read(database: &Database) -> Result<Freshness, DatabaseError> {
    let rows = database.rows(&statement(database.schemas())).await?;
    check_marker(rows.first())?;
    let row = rows.first().ok_or(DatabaseError::NotRolledUp)?;
    Ok(Freshness {
        run: row.get("run"),
        rolled_up_at: row.get::<_, Option<_>>("rolled_up_at").ok_or(DatabaseError::NotRolledUp)?,
        through: row.get::<_, Option<_>>("through").map(Day),
        days_left: i64::from(row.get::<_, i32>("days_left")),
        logins_without_day: row.get("logins_without_day"),
    })
}

/// Checks the marker, in a row of either statement.
///
/// # Errors
///
/// [`DatabaseError::NotRolledUp`] or [`DatabaseError::OtherVersion`].
pub fn check_marker(row: Option<&Row>) -> Result<(), DatabaseError> {
    match row.map(|row| row.get::<_, Option<String>>("marker")) {
        Some(Some(marker)) if marker == MARKER => Ok(()),
        Some(Some(_)) => Err(DatabaseError::OtherVersion),
        Some(None) | None => Err(DatabaseError::NotRolledUp),
    }
}
