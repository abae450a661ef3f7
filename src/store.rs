//! Writes rows to Postgres: a batch in one transaction, every row exactly once.
//!
//! A login that is not masked cannot be written:
//!
//! ```compile_fail,E0308
//! # use login::{decode::Login, message_key::MessageKey};
//! # use login_etl::store::{KeyedRow, Rows, Writer};
//! async fn leak<'b>(writer: &mut Writer<'b>, key: MessageKey<'b>, login: Login<'b>) {
//!     writer.send(Rows { rows: vec![KeyedRow { key, row: login }], ..Rows::default() }).await;
//! }
//! ```

use std::time::{Duration, Instant};

use deadpool::managed::Pool;

use self::connect::{Connector, checkout};
pub use self::row::{FailedRow, Fingerprints, KeyedRow, Rows, Written};
use self::tls::PendingTls;
pub use self::writer::Writer;
use crate::aws::secrets::{SecretError, Secrets};
use crate::config::DatabaseSettings;
use crate::deadline::Deadline;

mod attempt;
mod auth_guard;
pub mod connect;
mod encoding;
pub mod error;
mod insert;
mod ledger_schema;
mod pooler;
mod row;
mod row_by_row;
pub mod tls;
mod writer;

/// The most rows of one statement. With a lower limit Postgres starts earlier; with a higher limit it runs
/// fewer statements.
pub const MAX_ROWS_PER_STATEMENT: usize = 256;

/// Postgres, behind one connection that is kept from batch to batch.
#[derive(Debug)]
pub struct Store {
    pool: Pool<Connector>,
}

/// Time spent before the first batch.
#[derive(Clone, Copy, Debug, Default)]
pub struct ColdStartTimings {
    /// Time to fetch the secrets.
    pub fetching_secrets: Duration,
    /// Time to connect.
    pub connecting: Duration,
}

impl Store {
    /// Prepares to connect, and sends nothing yet.
    #[must_use]
    pub fn new(settings: DatabaseSettings, tls: PendingTls, secrets: Secrets) -> Self {
        let connector = Connector::new(settings, tls, secrets);
        // A function handles one batch at a time.
        let pool = Pool::builder(connector).max_size(1).build();
        Self { pool: pool.unwrap_or_else(|_| unreachable!("a pool without timeouts needs no runtime")) }
    }

    /// Fetches the credentials and connects before the first batch.
    ///
    /// If Postgres cannot be reached, this logs a warning and succeeds; the first batch connects.
    ///
    /// # Errors
    ///
    /// [`SecretError`] if the credentials are unavailable.
    pub async fn warm_up(&self, deadline: Deadline) -> Result<ColdStartTimings, SecretError> {
        let started = Instant::now();
        self.pool.manager().config().await?;
        let fetching_secrets = started.elapsed();
        if let Err(error) = checkout(&self.pool, deadline).await {
            tracing::warn!(error_type = error.error_type(), error = %error, "started without a connection to Postgres");
        }
        let connecting = started.elapsed().saturating_sub(fetching_secrets);
        Ok(ColdStartTimings { fetching_secrets, connecting })
    }

    /// Returns a writer for the rows of one batch, which are masked with the salt, and sealed to the key, of these
    /// fingerprints. The writer adds the time spent on connecting to `connect_time`.
    pub fn writer<'b>(
        &'b self,
        fingerprints: &'b Fingerprints,
        deadline: Deadline,
        connect_time: &'b mut Duration,
    ) -> Writer<'b> {
        Writer::new(&self.pool, fingerprints, deadline, connect_time)
    }
}
