//! Writes a batch whose rows are all new and good, while its last rows are still being made.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use tokio_postgres::{Client, Error};

use super::{GIVE_UP, WRITE_NEW, insert};
use login::mask::LoginRow;
use login::pii::Fingerprint;

/// The most rows of one statement. With fewer Postgres begins earlier, with more it plans less.
const CHUNK: usize = 256;

/// The rows of a batch, made when they are first asked for, and kept for another try.
pub(super) struct Batch<'m, 's, I> {
    source: I,
    chunks: Vec<Arc<Vec<LoginRow<'m>>>>,
    /// How long the rows have taken to make so far.
    pub(super) making: Duration,
    /// Of the salt that the rows are masked with.
    pub(super) salt: &'s Fingerprint,
}

impl<'m, 's, I: Iterator<Item = LoginRow<'m>>> Batch<'m, 's, I> {
    pub(super) fn new(source: I, salt: &'s Fingerprint) -> Self {
        Self { source, chunks: Vec::new(), making: Duration::ZERO, salt }
    }

    /// The chunk of this number, which is at most the next one; `None` after the last.
    pub(super) fn chunk(&mut self, number: usize) -> Option<Arc<Vec<LoginRow<'m>>>> {
        if number == self.chunks.len() {
            let started = Instant::now();
            let rows = self.source.by_ref().take(CHUNK);
            let mut chunk = Vec::with_capacity(rows.size_hint().1.unwrap_or(CHUNK));
            chunk.extend(rows);
            self.making += started.elapsed();
            if chunk.is_empty() {
                return None;
            }
            self.chunks.push(Arc::new(chunk));
        }
        self.chunks.get(number).cloned()
    }

    /// All rows.
    pub(super) fn all(&mut self) -> Vec<&LoginRow<'m>> {
        while self.chunk(self.chunks.len()).is_some() {}
        self.chunks.iter().flat_map(|chunk| chunk.iter()).collect()
    }
}

/// Writes the batch in one transaction, or nothing of it, and returns how many rows there are more.
///
/// It is one round trip: a statement, or where there are more rows a transaction of several that are
/// sent without waiting for each other's answers.
pub(super) async fn write<'m>(
    client: &Client,
    batch: &mut Batch<'m, '_, impl Iterator<Item = LoginRow<'m>>>,
) -> Result<u64, Error> {
    match batch.chunk(0) {
        None => Ok(0),
        Some(only) if only.len() < CHUNK => insert(client, WRITE_NEW, &only, batch.salt).await,
        Some(_) => write_chunks(client, batch).await,
    }
}

async fn write_chunks<'m>(
    client: &Client,
    batch: &mut Batch<'m, '_, impl Iterator<Item = LoginRow<'m>>>,
) -> Result<u64, Error> {
    let mut answers = Answers { pending: FuturesOrdered::new(), sum: Ok(0) };
    answers.send(execute(client, "BEGIN")).await;
    answers.send(execute(client, GIVE_UP)).await;
    let salt = batch.salt;
    let mut number = 0;
    while let Some(chunk) = batch.chunk(number) {
        answers.send(Box::pin(async move { insert(client, WRITE_NEW, &chunk, salt).await })).await;
        number += 1;
    }
    // After an error Postgres makes a rollback of it.
    answers.send(execute(client, "COMMIT")).await;
    while let Some(answer) = answers.pending.next().await {
        answers.add(answer);
    }
    answers.sum
}

type Sent<'c> = Pin<Box<dyn Future<Output = Result<u64, Error>> + Send + 'c>>;

fn execute<'c>(client: &'c Client, statement: &'static str) -> Sent<'c> {
    Box::pin(async move { client.batch_execute(statement).await.map(|()| 0) })
}

/// The answers to what was sent, in its order.
struct Answers<'c> {
    pending: FuturesOrdered<Sent<'c>>,
    /// The sum of the answers so far, or the first error.
    sum: Result<u64, Error>,
}

impl<'c> Answers<'c> {
    /// Sends a statement, and does not wait for its answer.
    async fn send(&mut self, statement: Sent<'c>) {
        self.pending.push_back(statement);
        // Polled once, a statement is on its way to the connection's task, …
        let answered = poll_fn(|context| Poll::Ready(self.pending.poll_next_unpin(context))).await;
        if let Poll::Ready(Some(answer)) = answered {
            self.add(answer);
        }
        // … which has to have its turn to send it.
        tokio::task::yield_now().await;
    }

    fn add(&mut self, answer: Result<u64, Error>) {
        self.sum = match (&self.sum, answer) {
            (Ok(sum), Ok(rows)) => Ok(sum + rows),
            (Ok(_), Err(error)) => Err(error),
            (Err(_), _) => return,
        };
    }
}
