//! Writes the batch on one connection. The writer makes a second attempt if the connection was stale.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use deadpool::managed::Object;
use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;

use super::connect::Connector;
use super::encoding;
use super::error::{StoreError, may_concern_rows};
use super::insert::write_all;
use super::ledger_schema;
use super::row::{Chunk, Fingerprints, Written};
use crate::deadline::{Deadline, DeadlinePassed};

/// Begins a transaction that Postgres ends if the function stops responding. A sandbox that Lambda destroys,
/// and a network that breaks, close no connection: without the timeout Postgres would keep the
/// transaction's locks until TCP gives up after hours, and every redelivery would wait for these locks.
const BEGIN: &str = "BEGIN; SET LOCAL idle_in_transaction_session_timeout = '60s'";

/// Commits. After a failed statement Postgres rolls back instead.
const COMMIT: &str = "COMMIT";

/// One attempt to write the batch, on one connection.
pub(super) struct Attempt<'b> {
    connection: Arc<Object<Connector>>,
    /// Whether an earlier batch was written on this connection.
    is_reused: bool,
    fingerprints: &'b Fingerprints,
    deadline: Deadline,
    /// Before the deadline if there must be time for a second attempt.
    answer_deadline: Deadline,
    /// Whether all chunks are one statement.
    in_one_statement: bool,
    chunks_sent: usize,
    results: StatementResults<'b>,
}

/// A failed attempt.
pub(super) struct FailedAttempt {
    pub(super) error: StoreError,
    /// Whether an attempt on a new connection may succeed.
    pub(super) connection_may_be_stale: bool,
}

impl<'b> Attempt<'b> {
    pub(super) fn new(
        connection: Object<Connector>,
        is_reused: bool,
        fingerprints: &'b Fingerprints,
        deadline: Deadline,
    ) -> Self {
        Self {
            connection: Arc::new(connection),
            is_reused,
            fingerprints,
            deadline,
            // A connection that died while the function was frozen may never answer.
            answer_deadline: if is_reused { deadline.halved() } else { deadline },
            in_one_statement: false,
            chunks_sent: 0,
            results: StatementResults::default(),
        }
    }

    /// Sends all chunks in one statement. This needs no transaction block, which a pooler with
    /// `pool_mode = statement` would refuse.
    pub(super) fn in_one_statement(self) -> Self {
        Self { in_one_statement: true, ..self }
    }

    /// Sends a chunk, within a transaction that the first chunk begins.
    pub(super) async fn send(&mut self, chunk: Chunk<'b>) {
        if self.chunks_sent == 0 {
            self.execute(BEGIN).await;
        }
        self.chunks_sent += 1;
        let connection = Arc::clone(&self.connection);
        let fingerprints = self.fingerprints;
        let write = async move { write_all(&connection, &[chunk], fingerprints).await };
        self.results.push(Box::pin(write)).await;
    }

    /// Writes the chunks that are not sent yet, commits, and waits for the results. If Postgres refuses a row
    /// or the ledger already holds a message, this writes all rows again, row by row.
    pub(super) async fn complete(mut self, chunks: &[Chunk<'b>]) -> Result<Written, FailedAttempt> {
        let (error, was_silent) = match self.answer_deadline.timeout(self.write_together(chunks)).await {
            Ok(Ok(written)) => return Ok(written),
            // The unique key of the ledger is a constraint too: a redelivery ends here, like a refused row.
            // No transaction is open here: after a failed statement, COMMIT rolls back.
            Ok(Err(error)) if may_concern_rows(&error) => match self.write_row_by_row(chunks).await {
                Ok(written) => return Ok(written),
                Err(error) => (error, false),
            },
            Ok(Err(error)) => (self.connection.store_error(&error), false),
            Err(DeadlinePassed) => (self.cancel().await, true),
        };
        let connection_may_be_stale = error.is_connection_error() || (self.is_reused && was_silent);
        self.close();
        Err(FailedAttempt { error, connection_may_be_stale })
    }

    /// One chunk is one statement. More chunks are one transaction.
    async fn write_together(&mut self, chunks: &[Chunk<'b>]) -> Result<Written, tokio_postgres::Error> {
        let is_one_statement = self.chunks_sent == 0 && (chunks.len() == 1 || self.in_one_statement);
        let inserted = if is_one_statement {
            write_all(&self.connection, chunks, self.fingerprints).await
        } else {
            self.write_in_transaction(chunks).await
        }?;
        let rows: usize = chunks.iter().map(|chunk| chunk.rows.len()).sum();
        Ok(Written { inserted, suppressed: (rows as u64).saturating_sub(inserted), failed_rows: Vec::new() })
    }

    /// The connection has answered, so it is not stale, and this may use all of the time left.
    async fn write_row_by_row(&mut self, chunks: &[Chunk<'b>]) -> Result<Written, StoreError> {
        let write = encoding::write_row_by_row(&self.connection, chunks, self.fingerprints, self.deadline);
        match self.deadline.timeout(write).await {
            Ok(Ok(written)) => Ok(written),
            Ok(Err(error)) => {
                let error = self.connection.store_error(&error);
                let explained = self.deadline.timeout(ledger_schema::explain(&self.connection, &error)).await;
                Err(explained.ok().flatten().unwrap_or(error))
            }
            Err(DeadlinePassed) => Err(self.cancel().await),
        }
    }

    /// Cancels the statement that runs.
    async fn cancel(&mut self) -> StoreError {
        self.connection.cancel(self.deadline.grace()).await;
        StoreError::TimedOut
    }

    async fn write_in_transaction(&mut self, chunks: &[Chunk<'b>]) -> Result<u64, tokio_postgres::Error> {
        for chunk in &chunks[self.chunks_sent..] {
            self.send(Arc::clone(chunk)).await;
        }
        self.execute(COMMIT).await;
        self.results.sum().await
    }

    async fn execute(&mut self, statement: &'static str) {
        let connection = Arc::clone(&self.connection);
        let execute = async move { connection.client().batch_execute(statement).await.map(|()| 0) };
        self.results.push(Box::pin(execute)).await;
    }

    /// Closes the connection, which after an error may be in any state.
    fn close(self) {
        // Unfinished statements hold clones of the connection. With a clone left, `into_inner` returns `None`
        // and the connection goes back to the pool.
        drop(self.results);
        drop(Arc::into_inner(self.connection).map(Object::take));
    }
}

/// A statement. Its result is the number of rows inserted.
type PendingStatement<'b> = Pin<Box<dyn Future<Output = Result<u64, tokio_postgres::Error>> + Send + 'b>>;

/// The results of the statements that were sent, in their order.
struct StatementResults<'b> {
    pending: FuturesOrdered<PendingStatement<'b>>,
    /// The sum of the results so far, or the first error.
    sum: Result<u64, tokio_postgres::Error>,
}

impl<'b> StatementResults<'b> {
    /// Sends a statement without waiting for its result.
    async fn push(&mut self, statement: PendingStatement<'b>) {
        self.pending.push_back(statement);
        // The first poll hands the statement to the connection's task.
        let polled = poll_fn(|context| Poll::Ready(self.pending.poll_next_unpin(context))).await;
        if let Poll::Ready(Some(result)) = polled {
            self.add(result);
        }
        // Yields, so that this task can send the statement.
        tokio::task::yield_now().await;
    }

    /// Waits for all results, and returns their sum or the first error.
    async fn sum(&mut self) -> Result<u64, tokio_postgres::Error> {
        while let Some(result) = self.pending.next().await {
            self.add(result);
        }
        std::mem::replace(&mut self.sum, Ok(0))
    }

    fn add(&mut self, result: Result<u64, tokio_postgres::Error>) {
        self.sum = match (&self.sum, result) {
            (Ok(sum), Ok(rows)) => Ok(sum + rows),
            (Ok(_), Err(error)) => Err(error),
            (Err(_), _) => return,
        };
    }
}

impl Default for StatementResults<'_> {
    fn default() -> Self {
        Self { pending: FuturesOrdered::new(), sum: Ok(0) }
    }
}
