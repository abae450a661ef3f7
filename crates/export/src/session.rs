//! The transactions of the export, and what must be true before the first of them.

use std::time::Duration;

use jiff::civil::Date;
use login_etl::lake;
use login_etl::store::error::StoreError;
use postgres_protocol::escape::escape_identifier;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Error, IsolationLevel, Transaction};

use crate::error::RunError;

const BEGIN: &str = include_str!("session/begin.sql");
const MARKER: &str = include_str!("session/marker.sql");
const WRONG_COLUMNS: &str = include_str!("session/wrong_columns.sql");

/// How long a run waits for a lock: longer than an automatic vacuum of the locked table takes.
const LOCK_TIMEOUT: &str = "2s";

/// The schemas of the logins and of the books.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schemas {
    /// The schema of the logins.
    pub logins: String,
    /// The schema of the books.
    pub lake: String,
}

/// The days that a transaction reads and writes, which no other run can lock until the transaction ends.
///
/// There are two locks, and the date alone decides which of them a day needs. So no two transactions export the same day
/// at the same time, and a run can begin a day before it has ended the day before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Days {
    /// All days: both locks.
    All,
    /// The days with an even number since 1970-01-01.
    Even,
    /// The other days.
    Odd,
}

/// Why a transaction did not begin.
#[derive(Debug)]
pub enum BeginError {
    /// Another run has a lock.
    Busy,
    /// Postgres is out of reach, or refused a statement.
    Database(StoreError),
}

impl Schemas {
    /// Returns the schemas that belong to the schema of the logins.
    #[must_use]
    pub fn of(logins: &str) -> Self {
        Self { logins: logins.to_owned(), lake: lake::schema_name(logins) }
    }

    /// Checks that the books are there, and that `user_logins` has the columns.
    ///
    /// # Errors
    ///
    /// [`RunError::NoBooks`], [`RunError::NoColumn`], [`RunError::WrongType`] and [`RunError::Database`].
    pub async fn check(&self, client: &Client) -> Result<(), RunError> {
        let parameters = [(&self.lake as _, Type::TEXT)];
        let marker = client.query_typed_one(MARKER, &parameters).await.map_err(database)?;
        let marker: Option<String> = marker.try_get(0).map_err(database)?;
        if marker.as_deref() != Some(lake::MARKER) {
            return Err(RunError::NoBooks { schema: self.lake.clone() });
        }
        let parameters = [(&self.logins as _, Type::TEXT)];
        let wrong = client.query_typed_opt(WRONG_COLUMNS, &parameters).await.map_err(database)?;
        let Some(wrong) = wrong else { return Ok(()) };
        let column = wrong.try_get(0).map_err(database)?;
        Err(match wrong.try_get(1).map_err(database)? {
            None => RunError::NoColumn { column },
            Some(type_name) => {
                RunError::WrongType { column, type_name, known: wrong.try_get(2).map_err(database)? }
            }
        })
    }

    /// Begins a transaction for these days. Bare names refer to the books, then to the logins. The lock and all settings
    /// end with the transaction, so that it also works behind a pooler.
    ///
    /// # Errors
    ///
    /// [`BeginError`].
    pub async fn begin<'c>(
        &self,
        client: &'c mut Client,
        isolation_level: IsolationLevel,
        days: Days,
        time_limit: Duration,
    ) -> Result<Transaction<'c>, BeginError> {
        let builder = client.build_transaction().isolation_level(isolation_level).read_only(false);
        let transaction = builder.start().await?;
        // First of all: these statements take no snapshot. A snapshot from before the lock would not have the books that the
        // other run wrote.
        let lock = format!("SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'; {}", self.lock(days));
        match transaction.batch_execute(&lock).await {
            Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {
                return Err(BeginError::Busy);
            }
            outcome => outcome?,
        }
        let time_limit = format!("{}ms", time_limit.as_millis().clamp(1, i32::MAX as u128));
        let parameters =
            [(&self.lake as _, Type::TEXT), (&self.logins as _, Type::TEXT), (&time_limit as _, Type::TEXT)];
        transaction.execute_typed(BEGIN, &parameters).await?;
        Ok(transaction)
    }

    /// Returns the statements that lock these days. Neither lock blocks `mark_changed`, or a transaction with the other lock
    /// that writes the books.
    fn lock(&self, days: Days) -> String {
        let lake = escape_identifier(&self.lake);
        let even = format!("LOCK TABLE {lake}.state IN SHARE ROW EXCLUSIVE MODE;");
        let odd = format!("LOCK TABLE {lake}.exports IN SHARE UPDATE EXCLUSIVE MODE;");
        match days {
            Days::All => even + &odd,
            Days::Even => even,
            Days::Odd => odd,
        }
    }
}

impl Days {
    /// Returns the lock of a day.
    #[must_use]
    pub fn of(date: Date) -> Self {
        let days = date.duration_since(Date::constant(1970, 1, 1)).as_hours() / 24;
        if days % 2 == 0 { Self::Even } else { Self::Odd }
    }
}

impl From<Error> for BeginError {
    fn from(error: Error) -> Self {
        Self::Database(StoreError::from(&error))
    }
}

#[expect(clippy::needless_pass_by_value, reason = "`Result::map_err` passes a value")]
fn database(error: Error) -> RunError {
    RunError::Database(StoreError::from(&error))
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;

    /// Otherwise a run would not overlap them.
    #[test]
    fn consecutive_days_have_different_locks() {
        assert_eq!(Days::of(date(1970, 1, 1)), Days::Even);
        for first in
            [date(1, 1, 1), date(1969, 12, 31), date(1970, 1, 1), date(2026, 12, 31), date(9999, 12, 30)]
        {
            assert_ne!(Days::of(first), Days::of(first.tomorrow().unwrap()), "{first}");
        }
    }
}
