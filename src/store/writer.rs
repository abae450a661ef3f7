//! Writes the rows of one batch in one transaction, while the handler decodes the next rows.

use std::sync::Arc;
use std::time::{Duration, Instant};

use deadpool::managed::{Object, Pool};

use super::attempt::Attempt;
use super::connect::{Connector, checkout};
use super::error::StoreError;
use super::row::{Chunk, Fingerprints, Rows, Written};
use crate::deadline::Deadline;

/// Writes the rows of one batch: `send` the rows while there are more, then `finish` with the last rows.
///
/// Nothing is committed before `finish`. A batch that `finish` receives whole is one statement and one
/// round trip. `send` sends its rows to Postgres at once and does not wait for the result.
#[expect(missing_debug_implementations, reason = "a user id is personal data")]
pub struct Writer<'b> {
    pool: &'b Pool<Connector>,
    fingerprints: &'b Fingerprints,
    deadline: Deadline,
    /// The writer adds the time spent on connecting, also on failure.
    connect_time: &'b mut Duration,
    /// All rows so far, because a second attempt sends them again.
    chunks: Vec<Chunk<'b>>,
    /// `None` before the first rows are sent.
    first_attempt: Option<Result<Attempt<'b>, StoreError>>,
}

impl<'b> Writer<'b> {
    pub(super) fn new(
        pool: &'b Pool<Connector>,
        fingerprints: &'b Fingerprints,
        deadline: Deadline,
        connect_time: &'b mut Duration,
    ) -> Self {
        Self { pool, fingerprints, deadline, connect_time, chunks: Vec::new(), first_attempt: None }
    }

    /// Sends rows that are not the last. [`finish`](Self::finish) returns the error, if there is one.
    ///
    /// Rows must come in the order of their keys, so that overlapping batches cannot deadlock.
    pub async fn send(&mut self, rows: Rows<'b>) {
        let chunk = Arc::new(rows);
        self.chunks.push(Arc::clone(&chunk));
        let mut attempt = match self.first_attempt.take() {
            Some(attempt) => attempt,
            None => self.connect().await,
        };
        if let Ok(attempt) = &mut attempt {
            attempt.send(chunk).await;
        }
        self.first_attempt = Some(attempt);
    }

    /// Sends the last rows and commits. Every row is written once, however often its message is delivered.
    ///
    /// A row that Postgres refuses fails on its own; the other rows are still written. A connection that
    /// died since the last batch is replaced, and the batch is tried once more: the ledger makes a repeat
    /// safe, even where only the answer to the commit was lost.
    ///
    /// # Errors
    ///
    /// [`StoreError`]: the whole batch may be written again.
    pub async fn finish(mut self, rows: Rows<'b>) -> Result<Written, StoreError> {
        if !rows.rows.is_empty() {
            self.chunks.push(Arc::new(rows));
        }
        if self.chunks.is_empty() {
            return Ok(Written::default());
        }
        let attempt = match self.first_attempt.take() {
            Some(attempt) => attempt?,
            None => self.connect().await?,
        };
        match attempt.complete(&self.chunks).await {
            Err(failed) if failed.connection_may_be_stale => {
                let second = self.connect().await?.in_one_statement();
                second.complete(&self.chunks).await.map_err(|failed| failed.error)
            }
            outcome => outcome.map_err(|failed| failed.error),
        }
    }

    async fn connect(&mut self) -> Result<Attempt<'b>, StoreError> {
        let started = Instant::now();
        let connection = checkout(self.pool, self.deadline).await;
        // Above 0, the pool had this connection before.
        let is_reused =
            connection.as_ref().is_ok_and(|connection| Object::metrics(connection).recycle_count > 0);
        if !is_reused {
            *self.connect_time += started.elapsed();
        }
        Ok(Attempt::new(connection?, is_reused, self.fingerprints, self.deadline))
    }
}
