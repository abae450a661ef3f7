//! A run: exports the days that are due. Each begins when the rows of the day before are read.

use std::cell::Cell;
use std::iter;
use std::pin::pin;
use std::time::{Duration, Instant, SystemTime};

use futures_util::{StreamExt, stream};
use jiff::civil::Date;
use login_etl::deadline::Deadline;
use login_etl::store::error::StoreError;
use serde::Serialize;
use tokio::sync::Mutex;
use tokio_postgres::{Client, IsolationLevel};

use crate::books::{self, Plan};
use crate::bucket::Bucket;
use crate::day::{self, Outcome, Run};
use crate::error::{DayError, RunError};
use crate::session::{BeginError, Days, Schemas};

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
///
/// If several days are due, it waits for `second`, another connection: while the last rows of a day are encoded, uploaded
/// and committed, Postgres reads the next day. With `None`, the run exports one day after the other.
pub async fn run(
    client: &mut Client,
    second: impl Future<Output = Option<Client>>,
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
    // Boxed: the futures of connections and uploads are large.
    let mut second = if plan.days.len() > 1 { Box::pin(second).await } else { None };
    let clients: Vec<_> = iter::once(client).chain(&mut second).map(Mutex::new).collect();
    let run = Run { bucket, schemas, now, deadline, most_entries: plan.most_entries };
    let queue = Queue {
        run,
        clients: &clients,
        turn: Mutex::new(()),
        newest: Cell::new(None),
        longest: Cell::new(Duration::ZERO),
        is_over: Cell::new(false),
    };
    let exports = stream::iter(plan.days).map(|date| Box::pin(queue.export(date))).buffered(clients.len());
    let mut exports = pin!(exports);
    let mut report = Report::default();
    while let Some((date, ended)) = exports.next().await {
        report.add(date, ended);
    }
    report
}

/// The days of a run, in the order in which they begin. As many days are exported at the same time as there are
/// connections.
struct Queue<'r> {
    run: Run<'r>,
    clients: &'r [Mutex<&'r mut Client>],
    /// Held by the day that begins or whose rows are read.
    turn: Mutex<()>,
    /// When the newest day began.
    newest: Cell<Option<Instant>>,
    /// The longest time that a day took.
    longest: Cell<Duration>,
    /// Whether no other day may begin.
    is_over: Cell<bool>,
}

/// The end of a day.
struct Ended {
    result: Result<Outcome, DayError>,
    elapsed: Duration,
}

impl Queue<'_> {
    /// Exports a day, after the rows of the days before it are read. Returns `None` if the run ends before this day begins.
    async fn export(&self, date: Date) -> (Date, Option<Ended>) {
        let turn = self.turn.lock().await;
        // A day waits here while this run exports another day with the same lock. Otherwise it would wait in Postgres, for
        // at most the time limit of the lock.
        let mut client = self.clients[Days::of(date) as usize % self.clients.len()].lock().await;
        if !self.may_begin() {
            return (date, None);
        }
        let started = Instant::now();
        self.newest.set(Some(started));
        let result = day::export(&mut client, self.run, date, turn).await;
        let elapsed = started.elapsed();
        self.longest.set(self.longest.get().max(elapsed));
        if result.as_ref().is_err_and(|error| !error.is_of_day()) {
            self.is_over.set(true);
        }
        (date, Some(Ended { result, elapsed }))
    }

    /// Whether there is time for another day. It may take longer than those before, of which the newest may not have ended.
    fn may_begin(&self) -> bool {
        let newest = self.newest.get().map_or(Duration::ZERO, |started| started.elapsed());
        let longest = self.longest.get().max(newest);
        if self.run.deadline.left() < longest * 2 {
            self.is_over.set(true);
        }
        !self.is_over.get()
    }
}

impl Report {
    /// Adds a day, and logs it.
    fn add(&mut self, date: Date, ended: Option<Ended>) {
        let Some(Ended { result, elapsed }) = ended else {
            self.summary.days_left += 1;
            return;
        };
        match result {
            Ok(Outcome::Exported(record)) => {
                self.summary.days += 1;
                self.summary.rows += record.rows.unsigned_abs();
                tracing::info!(
                    day = %date,
                    rows = record.rows,
                    objects = record.objects,
                    bytes = record.bytes,
                    key = record.key,
                    is_final = record.is_closed,
                    elapsed_ms = elapsed.as_millis(),
                    "day exported"
                );
            }
            Ok(Outcome::NotDue) => {}
            Ok(Outcome::Changed) => {
                self.summary.days_left += 1;
                tracing::info!(day = %date, "the day was changed while it was exported; the next run exports it again");
            }
            Err(DayError::Busy) => {
                self.summary.days_left += 1;
                self.error.get_or_insert(RunError::Busy);
            }
            Err(error) => {
                self.summary.days_left += 1;
                self.failures += 1;
                tracing::error!(day = %date, error = %error, "the day was not exported");
                self.error.get_or_insert(RunError::Days { failures: 1, date, error });
            }
        }
        if let Some(RunError::Days { failures, .. }) = &mut self.error {
            *failures = self.failures;
        }
    }
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
    // Both locks, although the plan needs none: a second run ends here, and does not take turns with the first.
    let isolation_level = IsolationLevel::ReadCommitted;
    let transaction = schemas.begin(client, isolation_level, Days::All, deadline.left()).await?;
    let plan = async {
        let limits = books::read_limits(&transaction, now).await?;
        let plan = books::plan(&transaction, limits).await?;
        transaction.commit().await?;
        Ok(plan)
    };
    plan.await.map_err(|error: tokio_postgres::Error| RunError::Database(StoreError::from(&error)))
}
