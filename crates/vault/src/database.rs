//! The database: the functions that `login_vault` may execute. Each call is a transaction of its own, which is
//! committed when the call returns. An erasure is committed after it is in the erasure list, if there is one.

use std::fmt;
use std::time::Duration;

use deadpool::managed::{Object, Pool, PoolError};
use login::pii::SaltFingerprint;
use login_etl::aws::bucket::BucketError;
use login_etl::aws::secrets::Secrets;
use login_etl::config::DatabaseSettings;
use login_etl::deadline::{Deadline, DeadlinePassed};
use login_etl::erasures::ErasureList;
use login_etl::store::connect::Connector;
use login_etl::store::error::StoreError;
use login_etl::store::tls::PendingTls;
use postgres_protocol::escape::escape_identifier;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio_postgres::Row;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{ToSql, Type};

use self::listed::{Listing, NotListed};
use crate::audit::{Ask, Entry, Outcome};
use crate::requests::AuditRequest;
use crate::token::{Field, Token};

mod listed;

const ASK: &str = include_str!("database/ask.sql");
const TAKE: &str = include_str!("database/take.sql");
const TELL: &str = include_str!("database/tell.sql");
const ERASE: &str = include_str!("database/erase.sql");
const ERASE_USER: &str = include_str!("database/erase_user.sql");
const SALT: &str = include_str!("database/salt.sql");
const ENTRIES: &str = include_str!("database/entries.sql");
const KEYS: &str = include_str!("database/keys.sql");
const SAMPLE: &str = include_str!("database/sample.sql");
const PLANT: &str = include_str!("database/plant.sql");
const IS_HONEY: &str = include_str!("database/is_honey.sql");
const LIST: &str = include_str!("database/list.sql");

/// Stands for the schema of the functions.
const SCHEMA: &str = "{schema}";

/// The code of an audit entry that does not exist, is too old, or was used already.
const NO_ENTRY: &str = "LE004";

/// How long a statement may take that touches one row, with the second attempt on a new connection.
const TIME_LIMIT: Duration = Duration::from_secs(4);
/// How long the search for a sealed value may take: it reads all batches that are not folded yet. To choose values and to
/// count them reads all values.
const SEARCH_TIME_LIMIT: Duration = Duration::from_secs(10);

/// Why the database did not do what was asked. No text of Postgres is in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DatabaseError {
    /// The database is out of reach, or has no connection or no resources left.
    #[error(transparent)]
    Unavailable(StoreError),
    /// Postgres did not answer in time. It may still do what the statement says.
    #[error("Postgres did not answer in time")]
    Silent,
    /// There is no such audit entry, or it was used already.
    #[error("the audit entry cannot be used")]
    NoEntry,
    /// Postgres refused the statement: a bug of this program, or a missing privilege.
    #[error("Postgres refused the statement, SQLSTATE {}", .0.code())]
    Refused(SqlState),
    /// The erasure was not written to the erasure list, so it was not done.
    #[error("nothing was erased: {0}")]
    NotListed(BucketError),
    /// The answer has an unexpected type or value: the functions are of another version.
    #[error("the answer of Postgres cannot be read")]
    Unreadable,
}

/// Postgres, with one connection.
#[derive(Clone)]
pub struct Database {
    pool: Pool<Connector>,
    /// The quoted name of the schema of the functions.
    schema: String,
}

/// What the vault has of a token.
#[derive(Debug)]
pub enum Taken {
    /// The sealed value.
    Sealed(SealedValue),
    /// Nothing.
    Unknown,
    /// Nothing, because it was erased.
    Erased,
}

/// A sealed value, with what opens it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedValue {
    /// The field of the value.
    pub field: Field,
    /// The token beside which it was sealed: after a resalt, not the token that was asked for.
    pub token: Token,
    /// The public key to which it was sealed, as `SubjectPublicKeyInfo`.
    pub public_key: Vec<u8>,
    /// The ARN or id of the KMS key with the private key.
    pub kms_key: String,
    /// The point that begins the stream.
    pub encapsulated: Vec<u8>,
    /// The position in the stream.
    pub sequence: u16,
    /// The ciphertext with its tag.
    pub ciphertext: Vec<u8>,
}

/// What an erasure did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Erased {
    /// The tokens whose values were erased.
    pub tokens: Vec<String>,
    /// The tokens that other users have too, and whose values stay.
    pub shared: Vec<String>,
    /// The number of rows that lost a token.
    pub rows: i64,
}

/// A value that the database chose, with its audit entry.
#[derive(Clone, Copy, Debug)]
pub struct Sampled {
    /// The number of the entry.
    pub entry: i64,
    /// The token of the value.
    pub token: Token,
    /// The number of the key to which the value was sealed.
    pub key: i16,
}

/// A key, as the database has it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct StoredKey {
    /// The number of the key.
    pub id: i16,
    /// The hash of the public key, in hexadecimal digits.
    pub sha256: String,
    /// The ARN or id of the KMS key.
    pub kms_key: String,
    /// When the key became the current key for the last time.
    pub accepted_at: String,
    /// Whether new values are sealed to it.
    pub is_current: bool,
    /// Number of sealed values, if they were counted.
    pub sealed: Option<i64>,
}

/// How to erase.
#[derive(Clone, Copy, Debug)]
pub struct ErasureOptions<'l> {
    /// Whether later values are kept out, too.
    pub never_again: bool,
    /// Whether to erase the tokens in the rows of `user_logins`, too.
    pub with_rows: bool,
    /// The list that has each erasure before the database commits it, if there is one.
    pub list: Option<&'l ErasureList>,
}

/// Whether to repeat a statement on a new connection if the connection of the last request turns out to be dead.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Repeat {
    /// Also if nothing came in time: the connection may be dead since the last request.
    Always,
    /// Not if nothing came in time: the statement may take long, or have been done.
    IfDisconnected,
}

/// Why an attempt failed.
enum Failure {
    /// Postgres answered, or the connection ended.
    Answered(StoreError),
    /// Nothing came in time.
    Silent,
}

impl ErasureOptions<'_> {
    /// Whether the erasure of the values also erases in the rows. With a list, that is a step of its own.
    fn with_rows_at_once(&self) -> bool {
        self.with_rows && self.list.is_none()
    }
}

impl DatabaseError {
    /// Returns the stable name of the error.
    #[must_use]
    pub fn error_type(&self) -> &'static str {
        match self {
            Self::Unavailable(error) => error.error_type(),
            Self::Silent => "DatabaseTimedOut",
            Self::NoEntry => "AuditEntryUnusable",
            Self::NotListed(_) => "ErasureListUnavailable",
            Self::Refused(_) | Self::Unreadable => "DatabaseRefused",
        }
    }
}

type Parameters<'p> = [(&'p (dyn ToSql + Sync), Type)];

impl Database {
    /// Prepares to connect, and sends nothing yet.
    #[must_use]
    pub fn new(settings: DatabaseSettings, tls: PendingTls, secrets: Secrets) -> Self {
        let schema = escape_identifier(&settings.schema);
        let pool = Pool::builder(Connector::new(settings, tls, secrets)).max_size(1).build();
        let pool = pool.unwrap_or_else(|_| unreachable!("a pool without timeouts needs no runtime"));
        Self { pool, schema }
    }

    /// Connects, so that the first request need not.
    ///
    /// # Errors
    ///
    /// [`DatabaseError`]. The first request connects then.
    pub async fn warm_up(&self, deadline: Deadline) -> Result<(), DatabaseError> {
        self.connection(deadline).await.map(drop)
    }

    /// Returns the fingerprint of the salt that the database accepts; `None` before the first batch.
    ///
    /// # Errors
    ///
    /// [`DatabaseError`].
    pub async fn salt(&self) -> Result<Option<SaltFingerprint>, DatabaseError> {
        let row = self.row(SALT, &[], Deadline::within(TIME_LIMIT), Repeat::Always).await?;
        let fingerprint: Option<&str> = row.try_get(0).map_err(|_| DatabaseError::Unreadable)?;
        fingerprint.map(str::parse).transpose().map_err(|_| DatabaseError::Unreadable)
    }

    /// Writes an audit entry, and returns its number.
    ///
    /// # Errors
    ///
    /// [`DatabaseError`].
    pub async fn ask(&self, ask: &Ask<'_>) -> Result<i64, DatabaseError> {
        let verb: &str = ask.verb.name();
        let field = ask.field.map(Field::name);
        let token = ask.token.as_ref().map(Token::as_bytes);
        let reason = ask.purpose.map(|purpose| purpose.reason.code());
        let ticket = ask.purpose.map(|purpose| purpose.ticket.as_str());
        let row = self
            .row(
                ASK,
                &[
                    (&ask.caller, Type::TEXT),
                    (&verb, Type::TEXT),
                    (&field, Type::TEXT),
                    (&token, Type::BYTEA),
                    (&ask.subject, Type::BYTEA),
                    (&reason, Type::TEXT),
                    (&ticket, Type::TEXT),
                ],
                Deadline::within(TIME_LIMIT),
                Repeat::Always,
            )
            .await?;
        row.try_get(0).map_err(|_| DatabaseError::Unreadable)
    }

    /// Takes the sealed value for which an entry asked, once.
    ///
    /// # Errors
    ///
    /// [`DatabaseError`].
    pub async fn take(&self, entry: i64) -> Result<Taken, DatabaseError> {
        let deadline = Deadline::within(SEARCH_TIME_LIMIT);
        let row = self.row(TAKE, &[(&entry, Type::INT8)], deadline, Repeat::IfDisconnected).await?;
        read_taken(&row).ok_or(DatabaseError::Unreadable)
    }

    /// Writes the outcome into an entry, once.
    ///
    /// # Errors
    ///
    /// [`DatabaseError`].
    pub async fn tell(
        &self,
        entry: i64,
        outcome: Outcome,
        kms_request_id: Option<&str>,
    ) -> Result<(), DatabaseError> {
        let outcome: &str = outcome.into();
        let parameters: &Parameters<'_> =
            &[(&entry, Type::INT8), (&outcome, Type::TEXT), (&kms_request_id, Type::TEXT)];
        self.row(TELL, parameters, Deadline::within(TIME_LIMIT), Repeat::IfDisconnected).await.map(drop)
    }

    /// Erases the value of the token of an entry, and writes the outcome into the entry.
    ///
    /// # Errors
    ///
    /// [`DatabaseError`].
    pub async fn erase(
        &self,
        entry: i64,
        token: &Token,
        options: ErasureOptions<'_>,
        deadline: Deadline,
    ) -> Result<Erased, DatabaseError> {
        let ErasureOptions { never_again, .. } = options;
        let with_rows = options.with_rows_at_once();
        let parameters: &Parameters<'_> =
            &[(&entry, Type::INT8), (&never_again, Type::BOOL), (&with_rows, Type::BOOL)];
        let read = |row: &Row| {
            let erased: bool = row.try_get(0).ok()?;
            let tokens = if erased { vec![token.to_text()] } else { Vec::new() };
            let erased = Erased { tokens, shared: Vec::new(), rows: row.try_get(1).ok()? };
            // Also a token without a value here: a backup may have one.
            Some((erased, vec![token.to_text()]))
        };
        self.erase_by(ERASE, parameters, entry, options, read, deadline).await
    }

    /// Erases the values that only this user has, and writes the outcome into the entry.
    ///
    /// # Errors
    ///
    /// [`DatabaseError`].
    pub async fn erase_user(
        &self,
        entry: i64,
        user_id: &str,
        options: ErasureOptions<'_>,
        deadline: Deadline,
    ) -> Result<Erased, DatabaseError> {
        let ErasureOptions { never_again, .. } = options;
        let with_rows = options.with_rows_at_once();
        let parameters: &Parameters<'_> = &[
            (&entry, Type::INT8),
            (&user_id, Type::TEXT),
            (&never_again, Type::BOOL),
            (&with_rows, Type::BOOL),
        ];
        let read = |row: &Row| {
            let tokens: Vec<String> = row.try_get(0).ok()?;
            let erased =
                Erased { tokens: tokens.clone(), shared: row.try_get(1).ok()?, rows: row.try_get(2).ok()? };
            Some((erased, tokens))
        };
        self.erase_by(ERASE_USER, parameters, entry, options, read, deadline).await
    }

    /// Erases with a statement. `read` also returns the tokens for the erasure list.
    async fn erase_by(
        &self,
        template: &str,
        parameters: &Parameters<'_>,
        entry: i64,
        options: ErasureOptions<'_>,
        read: impl Fn(&Row) -> Option<(Erased, Vec<String>)>,
        deadline: Deadline,
    ) -> Result<Erased, DatabaseError> {
        let ErasureOptions { never_again, with_rows, list } = options;
        let Some(list) = list else {
            let row = self.row(template, parameters, deadline, Repeat::IfDisconnected).await?;
            return read(&row).map(|(erased, _)| erased).ok_or(DatabaseError::Unreadable);
        };
        let erase = template.replace(SCHEMA, &self.schema);
        let note = LIST.replace(SCHEMA, &self.schema);
        let listing = Listing { list, note: &note, schema: &self.schema, entry, never_again, with_rows };
        // Out of the pool: no other request may find the open transaction of a request that was dropped.
        let connection = Object::take(self.connection(deadline).await?);
        let erased = listed::erase(connection.client(), &erase, parameters, &listing, read, deadline);
        // Boxed, as the handshake.
        match Box::pin(erased).await {
            Ok((erased, rows)) => Ok(Erased { rows, ..erased }),
            Err(NotListed::Refused(error)) => Err(Failure::Answered(connection.store_error(&error)).into()),
            Err(NotListed::Late) => Err(DatabaseError::Unavailable(StoreError::TimedOut)),
            Err(NotListed::Unreadable) => Err(DatabaseError::Unreadable),
            Err(NotListed::NotPut(error)) => Err(DatabaseError::NotListed(error)),
            Err(NotListed::Unfinished) => Err(DatabaseError::Silent),
        }
    }

    /// Reads at most `most` entries of a time, without their tokens, for an entry.
    ///
    /// # Errors
    ///
    /// [`DatabaseError`].
    pub async fn entries(
        &self,
        entry: i64,
        AuditRequest { from, to, after }: &AuditRequest,
        most: usize,
    ) -> Result<Vec<Entry>, DatabaseError> {
        let most = i32::try_from(most).unwrap_or(i32::MAX);
        let parameters: &Parameters<'_> = &[
            (&entry, Type::INT8),
            (from, Type::TIMESTAMPTZ),
            (to, Type::TIMESTAMPTZ),
            (after, Type::INT8),
            (&most, Type::INT4),
        ];
        let deadline = Deadline::within(SEARCH_TIME_LIMIT);
        read_json(&self.row(ENTRIES, parameters, deadline, Repeat::IfDisconnected).await?)
    }

    /// Returns the keys, the current key first, and counts their values if asked to.
    ///
    /// # Errors
    ///
    /// [`DatabaseError`].
    pub async fn keys(&self, counted: bool) -> Result<Vec<StoredKey>, DatabaseError> {
        let deadline = Deadline::within(SEARCH_TIME_LIMIT);
        read_json(&self.row(KEYS, &[(&counted, Type::BOOL)], deadline, Repeat::IfDisconnected).await?)
    }

    /// Chooses sealed values at random, and writes an audit entry for each.
    ///
    /// # Errors
    ///
    /// [`DatabaseError`].
    pub async fn sample(&self, caller: &str, size: u16) -> Result<Vec<Sampled>, DatabaseError> {
        let size = i32::from(size);
        let parameters: &Parameters<'_> = &[(&caller, Type::TEXT), (&size, Type::INT4)];
        let deadline = Deadline::within(SEARCH_TIME_LIMIT);
        let row = self.row(SAMPLE, parameters, deadline, Repeat::IfDisconnected).await?;
        let read = || {
            let entries: Vec<i64> = row.try_get(0).ok()?;
            let tokens: Vec<&[u8]> = row.try_get(1).ok()?;
            let keys: Vec<i16> = row.try_get(2).ok()?;
            let sampled = entries.into_iter().zip(tokens).zip(keys);
            let sampled = sampled
                .map(|((entry, token), key)| Some(Sampled { entry, token: token.try_into().ok()?, key }));
            sampled.collect::<Option<Vec<_>>>()
        };
        read().ok_or(DatabaseError::Unreadable)
    }

    /// Keeps honey tokens, and writes the outcome into the entry.
    ///
    /// # Errors
    ///
    /// [`DatabaseError`].
    pub async fn plant(&self, entry: i64, tokens: &[Token]) -> Result<(), DatabaseError> {
        let tokens: Vec<_> = tokens.iter().map(Token::as_bytes).collect();
        let parameters: &Parameters<'_> = &[(&entry, Type::INT8), (&tokens, Type::BYTEA_ARRAY)];
        self.row(PLANT, parameters, Deadline::within(TIME_LIMIT), Repeat::IfDisconnected).await.map(drop)
    }

    /// Whether the token of an entry that was used is a honey token.
    ///
    /// # Errors
    ///
    /// [`DatabaseError`].
    pub async fn is_honey(&self, entry: i64) -> Result<bool, DatabaseError> {
        let parameters: &Parameters<'_> = &[(&entry, Type::INT8)];
        let row = self.row(IS_HONEY, parameters, Deadline::within(TIME_LIMIT), Repeat::Always).await?;
        row.try_get(0).map_err(|_| DatabaseError::Unreadable)
    }

    /// Runs a statement that returns one row. A connection that died since the last request is replaced, and the
    /// statement is sent once more.
    async fn row(
        &self,
        template: &str,
        parameters: &Parameters<'_>,
        deadline: Deadline,
        repeat: Repeat,
    ) -> Result<Row, DatabaseError> {
        let statement = template.replace(SCHEMA, &self.schema);
        let connection = self.connection(deadline).await?;
        let is_reused = Object::metrics(&connection).recycle_count > 0;
        let first = if is_reused && repeat == Repeat::Always { deadline.halved() } else { deadline };
        match row_on(connection, &statement, parameters, first).await {
            Err(failure) if is_reused && failure.may_be_stale(repeat) => {
                let connection = self.connection(deadline).await?;
                let second = row_on(connection, &statement, parameters, deadline).await;
                second.map_err(|failure| match failure.into() {
                    // The first attempt was done, although its answer did not come.
                    DatabaseError::NoEntry => DatabaseError::Silent,
                    error => error,
                })
            }
            outcome => outcome.map_err(DatabaseError::from),
        }
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
}

impl Failure {
    /// Whether a new connection may succeed.
    fn may_be_stale(&self, repeat: Repeat) -> bool {
        match self {
            Self::Answered(error) => error.is_connection_error(),
            Self::Silent => repeat == Repeat::Always,
        }
    }
}

impl From<Failure> for DatabaseError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Silent => Self::Silent,
            Failure::Answered(StoreError::StatementRefused { sqlstate }) if sqlstate.code() == NO_ENTRY => {
                Self::NoEntry
            }
            Failure::Answered(StoreError::StatementRefused { sqlstate }) if is_of_statement(&sqlstate) => {
                Self::Refused(sqlstate)
            }
            Failure::Answered(error) => Self::Unavailable(error),
        }
    }
}

async fn row_on(
    connection: Object<Connector>,
    statement: &str,
    parameters: &Parameters<'_>,
    deadline: Deadline,
) -> Result<Row, Failure> {
    match deadline.timeout(connection.client().query_typed_one(statement, parameters)).await {
        Ok(Ok(row)) => Ok(row),
        Ok(Err(error)) => Err(Failure::Answered(connection.store_error(&error))),
        Err(DeadlinePassed) => {
            // The answer may still come: no other request may use this connection.
            drop(Object::take(connection));
            Err(Failure::Silent)
        }
    }
}

/// Reads the JSON document in the only column of a row.
fn read_json<T: DeserializeOwned>(row: &Row) -> Result<T, DatabaseError> {
    let document: &str = row.try_get(0).map_err(|_| DatabaseError::Unreadable)?;
    serde_json::from_str(document).map_err(|_| DatabaseError::Unreadable)
}

fn read_taken(row: &Row) -> Option<Taken> {
    match row.try_get(0).ok()? {
        "unknown" => Some(Taken::Unknown),
        "erased" => Some(Taken::Erased),
        "sealed" => {
            let field: &str = row.try_get(1).ok()?;
            let token: &[u8] = row.try_get(2).ok()?;
            let sequence: i32 = row.try_get(6).ok()?;
            Some(Taken::Sealed(SealedValue {
                field: field.parse().ok()?,
                token: token.try_into().ok()?,
                public_key: row.try_get(3).ok()?,
                kms_key: row.try_get(4).ok()?,
                encapsulated: row.try_get(5).ok()?,
                sequence: sequence.try_into().ok()?,
                ciphertext: row.try_get(7).ok()?,
            }))
        }
        _ => None,
    }
}

/// Whether Postgres refused the statement itself, and not because it lacked resources or a right moment: the classes of
/// [a code][codes] for data, constraints, names, syntax and privileges.
///
/// [codes]: https://www.postgresql.org/docs/current/errcodes-appendix.html
fn is_of_statement(sqlstate: &SqlState) -> bool {
    ["0A", "21", "22", "23", "3F", "42", "P0"].iter().any(|class| sqlstate.code().starts_with(class))
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database").field("schema", &self.schema).finish_non_exhaustive()
    }
}
