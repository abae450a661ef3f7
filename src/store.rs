//! Writes rows to Postgres: a batch in one transaction, exactly once.
//!
//! A login that is not masked cannot be written:
//!
//! ```compile_fail,E0271
//! # use login::{decode::Login, pii::Fingerprint};
//! # use login_etl::{deadline::Deadline, store::{Spent, Store}};
//! async fn leak(store: &Store, logins: Vec<Login<'_, '_>>, salt: &Fingerprint, deadline: Deadline) {
//!     let _ = store.write(logins.into_iter(), salt, deadline, &mut Spent::default()).await;
//! }
//! ```

use std::borrow::Borrow;
use std::time::{Duration, Instant, SystemTime};

use deadpool::managed::{Object, Pool, PoolError};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;
use uuid::Uuid;

use crate::aws::secrets::{SecretError, Secrets};
use crate::config::{DatabaseSettings, StartError};
use crate::deadline::{Deadline, Passed};
use login::mask::LoginRow;
use login::pii::{Fingerprint, Masked};

pub mod connect;
mod isolate;
mod pipeline;
mod tls;

use connect::{Connection, Connector};
use pipeline::Batch;

/// Writes rows whose messages are all new, or fails.
const WRITE_NEW: &str = "SELECT write_logins($1, $2, $3, $4, $5, $6, $7, $8, $9)";
/// Writes the rows whose messages the ledger does not hold yet.
const WRITE_MISSING: &str = include_str!("store/write_missing.sql");

/// Ends a transaction whose function is not heard of any more. A sandbox that Lambda destroys and a
/// network that breaks close no connection: Postgres would keep the transaction's locks, and every
/// redelivery would wait for them, until TCP gives up after hours.
const GIVE_UP: &str = "SET LOCAL idle_in_transaction_session_timeout = '60s'";

/// What the function `check_salt` raises.
const SALT_CHANGED: &str = "LE001";

/// The connection to Postgres, and what is written through it.
#[derive(Debug)]
pub struct Store {
    pool: Pool<Connector>,
}

/// What time was spent on, besides waiting for Postgres to write.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spent {
    /// On fetching the credentials ahead of the first batch.
    pub fetching: Duration,
    /// On making the rows, while Postgres may already have been writing the first of them.
    pub making: Duration,
    /// On connecting, credentials included where they had to be fetched again; nothing where there was a
    /// connection already.
    pub connecting: Duration,
}

/// What became of the rows of a batch.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// How many rows the table has more.
    pub inserted: u64,
    /// The messages that were not written; all others are in the table now.
    pub refused: Vec<Refused>,
}

/// A message that was not written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The message's place in the batch.
    pub position: usize,
    /// What Postgres said of its row; `None` if it was held back because an earlier message of its
    /// FIFO group was refused.
    pub sqlstate: Option<SqlState>,
}

/// Why a batch could not be written. Nothing of it was committed, or it is safe to repeat.
#[derive(Clone, Debug, PartialEq, Eq, strum::IntoStaticStr, strum::VariantNames, thiserror::Error)]
pub enum StoreError {
    /// There is no way to Postgres, or the connection broke.
    #[error("Postgres cannot be reached: {cause}")]
    #[strum(serialize = "DatabaseUnreachable")]
    Unreachable {
        /// What happened to the connection, in words that hold nothing of what was sent.
        cause: String,
    },
    /// Postgres does not let the function in.
    #[error("Postgres refused {}, SQLSTATE {}", credentials(*.by_token), .sqlstate.code())]
    #[strum(serialize = "DatabaseLoginRefused")]
    LoginRefused {
        /// Why.
        sqlstate: SqlState,
        /// Whether it was a token of IAM that was refused.
        by_token: bool,
    },
    /// Postgres has no connection to spare: fewer concurrent functions would.
    #[error("Postgres is out of connections, SQLSTATE {}", .sqlstate.code())]
    #[strum(serialize = "DatabaseOutOfConnections")]
    OutOfConnections {
        /// Which limit it was.
        sqlstate: SqlState,
    },
    /// Other transactions were in the way, and are likely gone at the next delivery.
    #[error("the transaction lost against another one, SQLSTATE {}", .sqlstate.code())]
    #[strum(serialize = "DatabaseDeadlock")]
    Deadlock {
        /// How it lost.
        sqlstate: SqlState,
    },
    /// Postgres took too long.
    #[error("Postgres did not answer in time")]
    #[strum(serialize = "DatabaseTimedOut")]
    TimedOut,
    /// Postgres refuses the statement itself: a missing table, function or privilege, a full disk.
    #[error("Postgres refused the statement, SQLSTATE {}", .sqlstate.code())]
    #[strum(serialize = "DatabaseRefused")]
    Refused {
        /// Why.
        sqlstate: SqlState,
    },
    /// The rows are masked with another salt than those in the table: written, they would match
    /// none of them. An operator has to bring the old salt back, or accept the new one.
    #[error("the salt is not the one that user_logins is masked with")]
    SaltChanged,
    /// The credentials were to be fetched again, and could not be.
    #[error(transparent)]
    #[strum(serialize = "SecretsUnavailable")]
    Secret(#[from] SecretError),
}

impl Store {
    /// Prepares to connect; nothing is sent yet.
    ///
    /// # Errors
    ///
    /// [`StartError::Setting`] if the certificates to trust cannot be read.
    pub fn new(settings: DatabaseSettings, secrets: Secrets) -> Result<Self, StartError> {
        let connector = Connector::new(settings, secrets)?;
        // A function handles one batch at a time.
        let pool = Pool::builder(connector).max_size(1).build();
        Ok(Self { pool: pool.unwrap_or_else(|_| unreachable!("a pool without timeouts needs no runtime")) })
    }

    /// Fetches the credentials and connects ahead of the first batch.
    ///
    /// A Postgres that is out of reach is no reason not to start: a batch may find it back.
    ///
    /// # Errors
    ///
    /// [`StartError::Secret`] if the credentials cannot be had.
    pub async fn warm_up(&self, deadline: Deadline) -> Result<Spent, StartError> {
        let started = Instant::now();
        self.pool.manager().config(false).await?;
        let fetching = started.elapsed();
        if let Err(error) = self.connection(deadline).await {
            tracing::warn!(error_type = error.error_type(), error = %error, "started without a connection to Postgres");
        }
        Ok(Spent { fetching, connecting: started.elapsed().saturating_sub(fetching), ..Spent::default() })
    }

    /// Writes the rows, which are masked with the salt of this fingerprint, each once however often
    /// its message was delivered.
    ///
    /// The rows should come in the order of [`Arrival`](login::decode::Arrival), so that batches that
    /// overlap wait for each other and never in a circle. They are taken as they are made: Postgres
    /// writes the first of a large batch while the last are not decoded yet.
    ///
    /// A row that Postgres refuses does not keep the others from being written. If the connection
    /// turns out to have died since the last batch, it is replaced and the batch tried once more:
    /// the ledger makes that safe, even where it was the answer to the commit that got lost.
    ///
    /// What it took is added to `spent`, be it that it failed.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; the whole batch may be written again.
    pub async fn write<'m>(
        &self,
        rows: impl Iterator<Item = LoginRow<'m>>,
        salt: &Fingerprint,
        deadline: Deadline,
        spent: &mut Spent,
    ) -> Result<Written, StoreError> {
        let mut batch = Batch::new(rows, salt);
        if batch.chunk(0).is_none() {
            spent.making += batch.making;
            return Ok(Written::default());
        }
        let outcome = match self.attempt(&mut batch, deadline, spent).await {
            Err(Failed { may_be_stale: true, .. }) => self.attempt(&mut batch, deadline, spent).await,
            outcome => outcome,
        };
        spent.making += batch.making;
        outcome.map_err(|failed| failed.error)
    }

    async fn attempt<'m>(
        &self,
        batch: &mut Batch<'m, '_, impl Iterator<Item = LoginRow<'m>>>,
        deadline: Deadline,
        spent: &mut Spent,
    ) -> Result<Written, Failed> {
        let started = Instant::now();
        let connected = self.connection(deadline).await;
        let reused = connected.as_ref().is_ok_and(|one| Object::metrics(one).recycle_count > 0);
        if !reused {
            spent.connecting += started.elapsed();
        }
        let mut connection = connected?;
        // A socket that died while the function was frozen may never answer.
        let limit = if reused { deadline.halved() } else { deadline };
        let error = match limit.bound(write_once(&mut connection, batch)).await {
            Ok(Ok(written)) => return Ok(written),
            Ok(Err(error)) => StoreError::from(&error),
            Err(Passed) => {
                connection.cancel(deadline.grace()).await;
                StoreError::TimedOut
            }
        };
        // After an error a connection is not trusted with another batch.
        drop(Object::take(connection));
        Err(Failed {
            may_be_stale: error.is_of_connection() || (reused && error == StoreError::TimedOut),
            error,
        })
    }

    async fn connection(&self, deadline: Deadline) -> Result<Object<Connector>, StoreError> {
        match deadline.bound(self.pool.get()).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(PoolError::Backend(error))) => Err(error),
            // The pool itself sets no time and is never closed.
            Ok(Err(_)) | Err(Passed) => Err(StoreError::TimedOut),
        }
    }
}

impl StoreError {
    /// The error's stable name, which is the `errorType` of the invocation that it ends.
    #[must_use]
    pub fn error_type(&self) -> &'static str {
        self.into()
    }

    /// What Postgres said, where it did.
    #[must_use]
    pub fn sqlstate(&self) -> Option<&str> {
        match self {
            Self::LoginRefused { sqlstate, .. }
            | Self::OutOfConnections { sqlstate }
            | Self::Deadlock { sqlstate }
            | Self::Refused { sqlstate } => Some(sqlstate.code()),
            Self::Unreachable { .. } | Self::TimedOut | Self::SaltChanged | Self::Secret(_) => None,
        }
    }

    /// Whether another connection might do better: this one broke, or leads to a server that a
    /// failover has made a standby.
    fn is_of_connection(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Refused { sqlstate } => *sqlstate == SqlState::READ_ONLY_SQL_TRANSACTION,
            _ => false,
        }
    }
}

/// Sorts by SQLSTATE, after [the manual's list][codes]; Postgres's text stays behind, since it
/// quotes values.
///
/// [codes]: https://www.postgresql.org/docs/current/errcodes-appendix.html
impl From<&tokio_postgres::Error> for StoreError {
    fn from(error: &tokio_postgres::Error) -> Self {
        let Some(sqlstate) = error.code().cloned() else {
            return Self::Unreachable { cause: connect::cause(error) };
        };
        match sqlstate.code() {
            // Connection exceptions, and an operator or a crash that ends the session.
            "57P01" | "57P02" | "57P03" | "57P05" => {
                Self::Unreachable { cause: format!("SQLSTATE {}", sqlstate.code()) }
            }
            code if code.starts_with("08") => Self::Unreachable { cause: format!("SQLSTATE {code}") },
            code if code.starts_with("28") => Self::LoginRefused { sqlstate, by_token: false },
            "53300" => Self::OutOfConnections { sqlstate },
            "40001" | "40P01" | "55P03" => Self::Deadlock { sqlstate },
            "57014" => Self::TimedOut,
            SALT_CHANGED => Self::SaltChanged,
            _ => Self::Refused { sqlstate },
        }
    }
}

/// What was refused; of a token with what it takes, since Postgres does not say what was missing.
fn credentials(by_token: bool) -> &'static str {
    if by_token {
        "the IAM token (it takes rds-db:connect as this user in the policy, IAM authentication on the \
         database, the user in rds_iam, and the host's name as RDS gave it)"
    } else {
        "the login"
    }
}

/// A failed attempt.
struct Failed {
    error: StoreError,
    /// Whether a new connection might not fail.
    may_be_stale: bool,
}

impl From<StoreError> for Failed {
    fn from(error: StoreError) -> Self {
        Self { error, may_be_stale: false }
    }
}

async fn write_once<'m>(
    connection: &mut Connection,
    batch: &mut Batch<'m, '_, impl Iterator<Item = LoginRow<'m>>>,
) -> Result<Written, tokio_postgres::Error> {
    match pipeline::write(connection.client(), batch).await {
        Ok(inserted) => Ok(Written { inserted, refused: Vec::new() }),
        Err(error) if isolate::is_of_row(&error) => {
            let salt = batch.salt;
            isolate::write(connection.client_mut(), batch.all(), salt).await
        }
        Err(error) => Err(error),
    }
}

/// Writes rows with one of the two statements: one round trip, and outside a transaction block a
/// transaction of its own. Returns how many rows the table has more.
async fn insert<'m, R: Borrow<LoginRow<'m>>>(
    client: &Client,
    statement: &str,
    rows: &[R],
    salt: &Fingerprint,
) -> Result<u64, tokio_postgres::Error> {
    let rows = || rows.iter().map(Borrow::borrow);
    let sent_at: Vec<SystemTime> = rows().map(|row| row.arrival.sent_at).collect();
    let ledger_ids: Vec<Uuid> = rows().map(|row| row.arrival.ledger_id).collect();
    let user_ids: Vec<&str> = rows().map(|row| &*row.user_id).collect();
    let device_types: Vec<Option<&str>> = rows().map(|row| row.device_type.as_deref()).collect();
    let ips: Vec<Option<&str>> = rows().map(|row| row.masked_ip.as_ref().map(Masked::as_str)).collect();
    let device_ids: Vec<Option<&str>> =
        rows().map(|row| row.masked_device_id.as_ref().map(Masked::as_str)).collect();
    let locales: Vec<Option<&str>> = rows().map(|row| row.locale.as_deref()).collect();
    let app_versions: Vec<Option<i32>> = rows().map(|row| row.app_version).collect();
    let inserted = client
        .query_typed_one(
            statement,
            &[
                (&sent_at, Type::TIMESTAMPTZ_ARRAY),
                (&ledger_ids, Type::UUID_ARRAY),
                (&user_ids, Type::TEXT_ARRAY),
                (&device_types, Type::TEXT_ARRAY),
                (&ips, Type::TEXT_ARRAY),
                (&device_ids, Type::TEXT_ARRAY),
                (&locales, Type::TEXT_ARRAY),
                (&app_versions, Type::INT4_ARRAY),
                (&salt.as_str(), Type::TEXT),
            ],
        )
        .await?;
    inserted.try_get(0).map(i64::unsigned_abs)
}
