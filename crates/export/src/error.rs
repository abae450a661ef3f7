//! Why a run failed. The texts hold no value of a row.

use jiff::civil::Date;
use login_etl::aws::secrets::SecretError;
use login_etl::config::SettingError;
use login_etl::deadline::DeadlinePassed;
use login_etl::store::error::StoreError;

use crate::books::CountMismatch;
use crate::bucket::BucketError;
use crate::encoder::EncodeError;

/// Why a run failed.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A setting is missing or wrong.
    #[error(transparent)]
    Setting(#[from] SettingError),
    /// The credentials of the database are unavailable.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// Postgres is out of reach, or refused a statement.
    #[error(transparent)]
    Database(#[from] StoreError),
    /// The books are missing, or of another version.
    #[error("the schema {schema} is not there, or of another version: run migrate with EXPORT=true")]
    NoBooks {
        /// The schema of the books.
        schema: String,
    },
    /// The table has no such column.
    #[error("user_logins has no column {column}")]
    NoColumn {
        /// The column.
        column: String,
    },
    /// The column has a type that cannot be exported.
    #[error("the column {column} of user_logins has the type {type_name}, and the export reads only {known}")]
    WrongType {
        /// The column.
        column: String,
        /// Its type.
        type_name: String,
        /// The types that can be exported.
        known: String,
    },
    /// Another run exports a day at this moment.
    #[error("another export is running; nothing is lost, because the next run exports the rest")]
    Busy,
    /// Days were not exported. The run went on with the other days, if the problem was in the day.
    #[error("{failures} of the days were not exported; of {date}: {error}")]
    Days {
        /// Number of days that failed.
        failures: u64,
        /// The first of them.
        date: Date,
        /// Why it failed.
        error: DayError,
    },
}

/// Why a day was not exported. Its objects are as before.
#[derive(Debug, thiserror::Error)]
pub enum DayError {
    /// The numbers of rows disagree.
    #[error(transparent)]
    Count(#[from] CountMismatch),
    /// The rows cannot be encoded.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// Postgres is out of reach, or refused a statement.
    #[error(transparent)]
    Database(#[from] StoreError),
    /// S3 refused a request, or is out of reach.
    #[error(transparent)]
    Bucket(#[from] BucketError),
    /// The day takes longer than the run may.
    #[error("the time of the run was not enough; run the program where it has more time")]
    TooLarge(#[from] DeadlinePassed),
    /// Another run exports a day at this moment.
    #[error("another export is running")]
    Busy,
}

impl DayError {
    /// Whether the problem is in the day, so that other days can be exported.
    #[must_use]
    pub fn is_of_day(&self) -> bool {
        matches!(self, Self::Count(_) | Self::Encode(_))
    }
}
