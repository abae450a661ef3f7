//! Writes the rows of one batch in one transaction, while the handler decodes the next rows.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use deadpool::managed::{Object, Pool};
use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use login::pii::SaltFingerprint;

use super::connect::{Connector, checkout};
use super::error::{StoreError, row_refusal};
use super::insert::{WRITE_ALL, insert};
use super::row::{KeyedRow, Written};
use super::row_by_row;
use super::transaction::{BEGIN, COMMIT};
use crate::deadline::{Deadline, DeadlinePassed};

/// Writes the rows of one batch: `send` the rows while there are more, then `finish` with the last rows.
///
/// Nothing is committed before `finish`. A batch that `finish` receives whole is one statement and one
/// round trip. The rows that `send` receives are sent to Postgres at once, and no answer is waited for.
#[expect(missing_debug_implementations, reason = "a user id is personal data")]
pub struct Writer<'b> {
    pool: &'b Pool<Connector>,
    salt_fingerprint: &'b SaltFingerprint,
    deadline: Deadline,
    /// Where to add the time spent on connecting, also on failure.
    connecting: &'b mut Duration,
    /// All rows so far, because a second attempt sends them again.
    chunks: Vec<Chunk<'b>>,
    /// `None` before the first rows are sent.
    first_attempt: Option<Result<Attempt<'b>, StoreError>>,
}

type Chunk<'b> = Arc<Vec<KeyedRow<'b>>>;

impl<'b> Writer<'b> {
    pub(super) fn new(
        pool: &'b Pool<Connector>,
        salt_fingerprint: &'b SaltFingerprint,
        deadline: Deadline,
        connecting: &'b mut Duration,
    ) -> Self {
        Self { pool, salt_fingerprint, deadline, connecting, chunks: Vec::new(), first_attempt: None }
    }

    /// Sends rows that more rows follow. An error is kept for [`finish`](Self::finish).
    ///
    /// Rows must come in the order of their keys, so that overlapping batches cannot deadlock.
    pub async fn send(&mut self, rows: Vec<KeyedRow<'b>>) {
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
    pub async fn finish(mut self, rows: Vec<KeyedRow<'b>>) -> Result<Written, StoreError> {
        if !rows.is_empty() {
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
                let second = self.connect().await?;
                second.complete(&self.chunks).await.map_err(|failed| failed.error)
            }
            outcome => outcome.map_err(|failed| failed.error),
        }
    }

    async fn connect(&mut self) -> Result<Attempt<'b>, StoreError> {
        let started = Instant::now();
        let connection = checkout(self.pool, self.deadline).await;
        let is_reused = connection.as_ref().is_ok_and(|one| Object::metrics(one).recycle_count > 0);
        if !is_reused {
            *self.connecting += started.elapsed();
        }
        Ok(Attempt {
            connection: Arc::new(connection?),
            is_reused,
            salt_fingerprint: self.salt_fingerprint,
            deadline: self.deadline,
            // A connection that died while the function was frozen may never answer.
            limit: if is_reused { self.deadline.halved() } else { self.deadline },
            sent: 0,
            answers: Answers::default(),
        })
    }
}

/// One attempt to write the batch, on one connection.
struct Attempt<'b> {
    connection: Arc<Object<Connector>>,
    /// Whether an earlier batch was written on this connection.
    is_reused: bool,
    salt_fingerprint: &'b SaltFingerprint,
    deadline: Deadline,
    /// Until when to wait for the answers: before the deadline if there must be time for a second attempt.
    limit: Deadline,
    /// Number of chunks sent.
    sent: usize,
    answers: Answers<'b>,
}

/// A failed attempt.
struct FailedAttempt {
    error: StoreError,
    /// Whether an attempt on a new connection may succeed.
    connection_may_be_stale: bool,
}

impl<'b> Attempt<'b> {
    /// Sends a chunk, within a transaction that the first chunk begins.
    async fn send(&mut self, chunk: Chunk<'b>) {
        if self.sent == 0 {
            self.execute(BEGIN).await;
        }
        self.sent += 1;
        let connection = Arc::clone(&self.connection);
        let salt_fingerprint = self.salt_fingerprint;
        let insert =
            async move { insert(connection.client(), WRITE_ALL, chunk.iter(), salt_fingerprint).await };
        self.answers.send(Box::pin(insert)).await;
    }

    async fn execute(&mut self, statement: &'static str) {
        let connection = Arc::clone(&self.connection);
        let execute = async move { connection.client().batch_execute(statement).await.map(|()| 0) };
        self.answers.send(Box::pin(execute)).await;
    }

    /// Writes the chunks that are not sent yet, commits, and waits for the answers.
    async fn complete(mut self, chunks: &[Chunk<'b>]) -> Result<Written, FailedAttempt> {
        let error = match self.limit.timeout(self.write(chunks)).await {
            Ok(Ok(written)) => return Ok(written),
            Ok(Err(error)) => StoreError::from(&error),
            Err(DeadlinePassed) => {
                self.connection.cancel(self.deadline.grace()).await;
                StoreError::TimedOut
            }
        };
        let connection_may_be_stale =
            error.is_connection_error() || (self.is_reused && error == StoreError::TimedOut);
        self.close();
        Err(FailedAttempt { error, connection_may_be_stale })
    }

    async fn write(&mut self, chunks: &[Chunk<'b>]) -> Result<Written, tokio_postgres::Error> {
        let outcome = match chunks {
            [all] if self.sent == 0 => {
                insert(self.connection.client(), WRITE_ALL, all.iter(), self.salt_fingerprint).await
            }
            _ => self.write_in_transaction(chunks).await,
        };
        match outcome {
            Ok(inserted) => Ok(Written { inserted, failed_rows: Vec::new() }),
            Err(error) if row_refusal(&error).is_some() => {
                let rows = chunks.iter().flat_map(|chunk| chunk.iter()).collect();
                row_by_row::write(self.connection.client(), rows, self.salt_fingerprint).await
            }
            Err(error) => Err(error),
        }
    }

    async fn write_in_transaction(&mut self, chunks: &[Chunk<'b>]) -> Result<u64, tokio_postgres::Error> {
        for chunk in &chunks[self.sent..] {
            self.send(Arc::clone(chunk)).await;
        }
        self.execute(COMMIT).await;
        self.answers.sum().await
    }

    /// Closes the connection, which after an error may be in any state.
    fn close(self) {
        // Unanswered statements share the connection.
        drop(self.answers);
        drop(Arc::into_inner(self.connection).map(Object::take));
    }
}

/// A statement that was sent. Its answer is the number of rows inserted.
type Sent<'b> = Pin<Box<dyn Future<Output = Result<u64, tokio_postgres::Error>> + Send + 'b>>;

/// The answers to the statements that were sent, in their order.
struct Answers<'b> {
    pending: FuturesOrdered<Sent<'b>>,
    /// The sum of the answers so far, or the first error.
    sum: Result<u64, tokio_postgres::Error>,
}

impl<'b> Answers<'b> {
    /// Sends a statement without waiting for its answer.
    async fn send(&mut self, statement: Sent<'b>) {
        self.pending.push_back(statement);
        // The first poll hands the statement to the task of the connection, …
        let answered = poll_fn(|context| Poll::Ready(self.pending.poll_next_unpin(context))).await;
        if let Poll::Ready(Some(answer)) = answered {
            self.add(answer);
        }
        // … which sends it when it is its turn.
        tokio::task::yield_now().await;
    }

    /// Waits for all answers, and returns their sum or the first error.
    async fn sum(&mut self) -> Result<u64, tokio_postgres::Error> {
        while let Some(answer) = self.pending.next().await {
            self.add(answer);
        }
        std::mem::replace(&mut self.sum, Ok(0))
    }

    fn add(&mut self, answer: Result<u64, tokio_postgres::Error>) {
        self.sum = match (&self.sum, answer) {
            (Ok(sum), Ok(rows)) => Ok(sum + rows),
            (Ok(_), Err(error)) => Err(error),
            (Err(_), _) => return,
        };
    }
}

impl Default for Answers<'_> {
    fn default() -> Self {
        Self { pending: FuturesOrdered::new(), sum: Ok(0) }
    }
}
