//! The database: runs statements, remembers how fresh the rollups are, and says why a statement failed.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use deadpool::managed::{Object, Pool, PoolError};
use futures_util::future::try_join_all;
use login_etl::analytics;
use login_etl::aws::secrets::Secrets;
use login_etl::config::DatabaseSettings;
use login_etl::deadline::{Deadline, DeadlinePassed};
use login_etl::store::connect::Connector;
use login_etl::store::error::StoreError;
use login_etl::store::tls::PendingTls;
use postgres_protocol::escape::escape_identifier;
use tokio_postgres::Row;
use tokio_postgres::error::SqlState;

use crate::freshness::{self, Freshness, NotReady};
use crate::rows;
use crate::statement::Statement;

/// How long the answer to one request may take: longer than two attempts of `statement_timeout`, which is 2 s.
const TIME_LIMIT: Duration = Duration::from_secs(6);
/// How long the first connection may take. After it, the program starts without a connection.
const WARM_UP_TIMEOUT: Duration = Duration::from_secs(4);
/// How long a known run of the rollups counts as the latest run.
const FRESHNESS_AGE: Duration = Duration::from_mins(1);

/// Why the database gave no rows. No text of Postgres is in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DatabaseError {
    /// The statement was cancelled, because it took too long.
    #[error("the statement took too long")]
    TooSlow,
    /// The database is out of reach, or has no connection or no resources left.
    #[error(transparent)]
    Unavailable(StoreError),
    /// There are no rollups to read.
    #[error(transparent)]
    NotReady(#[from] NotReady),
    /// Postgres refused the statement: a bug of this program, or a missing privilege.
    #[error("Postgres refused the statement, SQLSTATE {}", .0.code())]
    Refused(SqlState),
}

/// Postgres, behind a pool of connections.
#[derive(Clone)]
pub struct Database {
    pool: Pool<Connector>,
    /// The quoted name of the schema of the rollups.
    analytics: Arc<str>,
    known: Arc<Mutex<Option<Known>>>,
}

/// The freshness that was read last.
struct Known {
    freshness: Freshness,
    /// By the wall clock: the monotonic clock may stand still while Lambda freezes the process.
    read_at: SystemTime,
}

impl Database {
    /// Prepares to connect, and sends nothing yet.
    #[must_use]
    pub fn new(settings: DatabaseSettings, tls: PendingTls, secrets: Secrets, connections: usize) -> Self {
        let analytics = escape_identifier(&analytics::schema_name(&settings.schema)).into();
        let pool = Pool::builder(Connector::new(settings, tls, secrets)).max_size(connections).build();
        let pool = pool.unwrap_or_else(|_| unreachable!("a pool without timeouts needs no runtime"));
        Self { pool, analytics, known: Arc::default() }
    }

    /// Connects before the first request. If this fails, the first request connects.
    pub async fn warm_up(&self) {
        let outcome = Deadline::within(WARM_UP_TIMEOUT).timeout(self.freshness()).await;
        if let Ok(Err(DatabaseError::Unavailable(error))) = outcome {
            tracing::warn!(error_type = error.error_type(), error = %error, "started without a connection to Postgres");
        }
    }

    /// Returns how fresh the rollups are, as read at most 60 s ago.
    ///
    /// # Errors
    ///
    /// [`DatabaseError`].
    pub async fn freshness(&self) -> Result<Freshness, DatabaseError> {
        if let Some(known) = self.known() {
            return Ok(known);
        }
        let [rows] = self.pipelined([&freshness::statement(&self.analytics)]).await?;
        let freshness = freshness::read(&rows)?;
        let known = Known { freshness: freshness.clone(), read_at: SystemTime::now() };
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some(known);
        Ok(freshness)
    }

    /// Runs the statement, and returns its rows.
    ///
    /// # Errors
    ///
    /// [`DatabaseError`].
    pub async fn rows<R: rows::Row>(&self, statement: &Statement) -> Result<Vec<R>, DatabaseError> {
        match self.pipelined([statement]).await {
            Ok([rows]) => Ok(rows::read(&rows)?),
            // A parameter has a character that the encoding of the database lacks, so no row has this text.
            Err(DatabaseError::Refused(SqlState::UNTRANSLATABLE_CHARACTER)) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Runs the statements on one connection, all sent at once, and returns the rows of each as Postgres sent them. A
    /// connection that died since the last request is replaced, and the statements are sent once more.
    ///
    /// # Errors
    ///
    /// [`DatabaseError`].
    pub(crate) async fn pipelined<const N: usize>(
        &self,
        statements: [&Statement; N],
    ) -> Result<[Vec<Row>; N], DatabaseError> {
        let deadline = Deadline::within(TIME_LIMIT);
        let connection = self.connection(deadline).await?;
        let is_reused = Object::metrics(&connection).recycle_count > 0;
        let first = if is_reused { deadline.halved() } else { deadline };
        let error = match self.rows_on(connection, statements, first).await {
            Err(error) if is_reused && error.may_be_stale() => {
                let connection = self.connection(deadline).await?;
                match self.rows_on(connection, statements, deadline).await {
                    Ok(rows) => return Ok(rows),
                    Err(error) => error,
                }
            }
            Ok(rows) => return Ok(rows),
            Err(error) => error,
        };
        Err(self.explain(error).await)
    }

    /// Returns the statement as text that psql runs.
    #[must_use]
    pub fn as_sql(&self, statement: &Statement) -> String {
        statement.as_sql(&self.analytics)
    }

    fn known(&self) -> Option<Freshness> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let known = known.as_ref()?;
        let age = known.read_at.elapsed().ok()?;
        (age < FRESHNESS_AGE).then(|| known.freshness.clone())
    }

    async fn connection(&self, deadline: Deadline) -> Result<Object<Connector>, DatabaseError> {
        // Boxed: the handshake would make every future that awaits it many kilobytes large.
        match Box::pin(deadline.timeout(self.pool.get())).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(PoolError::Backend(error))) => Err(DatabaseError::Unavailable(error)),
            // The pool itself has no timeout and is never closed.
            Ok(Err(_)) | Err(DeadlinePassed) => Err(DatabaseError::Unavailable(StoreError::TimedOut)),
        }
    }

    async fn rows_on<const N: usize>(
        &self,
        connection: Object<Connector>,
        statements: [&Statement; N],
        deadline: Deadline,
    ) -> Result<[Vec<Row>; N], Failure> {
        let client = connection.client();
        let answers = statements.map(async |statement| {
            client.query_typed(&statement.text(&self.analytics), &statement.parameters()).await
        });
        match deadline.timeout(try_join_all(answers)).await {
            Ok(Ok(rows)) => {
                Ok(rows.try_into().unwrap_or_else(|_| unreachable!("each statement has its rows")))
            }
            Ok(Err(error)) => Err(Failure::Answered(connection.store_error(&error))),
            Err(DeadlinePassed) => {
                // The answer may still come: no other request may use this connection.
                drop(Object::take(connection));
                Err(Failure::Silent)
            }
        }
    }

    /// Converts the failure. A missing table is a bug only if the schema is the one that this program reads.
    async fn explain(&self, failure: Failure) -> DatabaseError {
        let sqlstate = match failure {
            Failure::Silent => return DatabaseError::Unavailable(StoreError::TimedOut),
            Failure::Answered(StoreError::TimedOut) => return DatabaseError::TooSlow,
            Failure::Answered(StoreError::StatementRefused { sqlstate }) if is_of_statement(&sqlstate) => {
                sqlstate
            }
            Failure::Answered(error) => return DatabaseError::Unavailable(error),
        };
        let statement = freshness::marker(&self.analytics);
        let Ok(connection) = self.connection(Deadline::within(TIME_LIMIT)).await else {
            return DatabaseError::Refused(sqlstate);
        };
        match self.rows_on(connection, [&statement], Deadline::within(TIME_LIMIT)).await {
            Ok([rows]) => freshness::check_marker(&rows)
                .map_or_else(DatabaseError::NotReady, |()| DatabaseError::Refused(sqlstate)),
            Err(_) => DatabaseError::Refused(sqlstate),
        }
    }
}

/// Why an attempt failed.
enum Failure {
    /// Postgres answered, or the connection ended.
    Answered(StoreError),
    /// Nothing came in time.
    Silent,
}

impl Failure {
    /// Whether a new connection may succeed.
    fn may_be_stale(&self) -> bool {
        match self {
            Self::Answered(error) => error.is_connection_error(),
            Self::Silent => true,
        }
    }
}

/// Whether Postgres refused the statement itself, and not because it lacked resources or a right moment: the classes of
/// [a code][codes] for data, names, syntax and privileges.
///
/// [codes]: https://www.postgresql.org/docs/current/errcodes-appendix.html
fn is_of_statement(sqlstate: &SqlState) -> bool {
    ["0A", "21", "22", "3F", "42"].iter().any(|class| sqlstate.code().starts_with(class))
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database").field("analytics", &self.analytics).finish_non_exhaustive()
    }
}
