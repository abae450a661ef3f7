//! A run: exports the days that are due, one after the other.

use std::time::{Duration, Instant, SystemTime};

use login_etl::deadline::Deadline;
use login_etl::store::error::StoreError;
use serde::Serialize;
use tokio_postgres::{Client, IsolationLevel};

use crate::books::{self, Plan};
use crate::bucket::Bucket;
use crate::day::{self, Outcome, Run};
use crate::error::{DayError, RunError};
use crate::session::{BeginError, Schemas};

/// What a run did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Days that were exported.
    pub days: u64,
    /// Rows that were exported.
    pub rows: u64,
    /// Days that are still due, because they failed or the time was not enough.
    pub days_left: u64,
}

/// What a run did, and its error if it did not do all of it.
#[derive(Debug, Default)]
pub struct Report {
    /// What was done.
    pub summary: Summary,
    /// Number of days that failed; 1 if the run failed before its first day.
    pub failures: u64,
    /// The error.
    pub error: Option<RunError>,
}

/// Exports the days that are due at `now`, until the deadline. If a day fails for a reason of its own, the run goes on with
/// the next day.
pub async fn run(
    client: &mut Client,
    schemas: &Schemas,
    bucket: &Bucket,
    now: SystemTime,
    deadline: Deadline,
) -> Report {
    let plan = match plan(client, schemas, now, deadline).await {
        Ok(plan) => plan,
        Err(error) => return Report::from(error),
    };
    if plan.rows_without_date > 0 {
        let rows = plan.rows_without_date;
        tracing::warn!(rows, "rows without a create_date of the years 1 to 9999 are not exported");
    }
    let run = Run { bucket, schemas, now, deadline, most_entries: plan.most_entries };
    let mut report = Report::default();
    let mut longest = Duration::ZERO;
    let mut days = plan.days.into_iter();
    for date in days.by_ref() {
        let started = Instant::now();
        // Boxed: the future of the upload is large.
        match Box::pin(day::export(client, run, date)).await {
            Ok(Outcome::Exported(record)) => {
                report.summary.days += 1;
                report.summary.rows += record.rows.unsigned_abs();
                tracing::info!(
                    day = %date,
                    rows = record.rows,
                    objects = record.objects,
                    bytes = record.bytes,
                    key = record.key,
                    is_final = record.is_closed,
                    elapsed_ms = started.elapsed().as_millis(),
                    "day exported"
                );
            }
            Ok(Outcome::NotDue) => {}
            Ok(Outcome::Changed) => {
                report.summary.days_left += 1;
                tracing::info!(day = %date, "the day was changed while it was exported; the next run exports it again");
            }
            Err(DayError::Busy) => {
                report.summary.days_left += 1;
                report.error.get_or_insert(RunError::Busy);
                break;
            }
            Err(error) => {
                report.summary.days_left += 1;
                report.failures += 1;
                tracing::error!(day = %date, error = %error, "the day was not exported");
                let is_of_day = error.is_of_day();
                report.error.get_or_insert(RunError::Days { failures: 1, date, error });
                if !is_of_day {
                    break;
                }
            }
        }
        longest = longest.max(started.elapsed());
        // The next day may take longer.
        if deadline.left() < longest * 2 {
            break;
        }
    }
    report.summary.days_left += days.len() as u64;
    if let Some(RunError::Days { failures, .. }) = &mut report.error {
        *failures = report.failures;
    }
    report
}

impl From<RunError> for Report {
    fn from(error: RunError) -> Self {
        let failures = u64::from(!matches!(error, RunError::Busy));
        Self { summary: Summary::default(), failures, error: Some(error) }
    }
}

impl From<BeginError> for RunError {
    fn from(error: BeginError) -> Self {
        match error {
            BeginError::Busy => Self::Busy,
            BeginError::Database(error) => Self::Database(error),
        }
    }
}

async fn plan(
    client: &mut Client,
    schemas: &Schemas,
    now: SystemTime,
    deadline: Deadline,
) -> Result<Plan, RunError> {
    schemas.check(client).await?;
    let transaction = schemas.begin(client, IsolationLevel::ReadCommitted, deadline.left()).await?;
    let plan = async {
        let limits = books::read_limits(&transaction, now).await?;
        let plan = books::plan(&transaction, limits).await?;
        transaction.commit().await?;
        Ok(plan)
    };
    plan.await.map_err(|error: tokio_postgres::Error| RunError::Database(StoreError::from(&error)))
}
