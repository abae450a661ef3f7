//! Why a batch could not be written.

use std::error::Error;

use tokio_postgres::error::SqlState;

use crate::aws::secrets::SecretError;
use crate::config::DATABASE_SCHEMA;

/// The code that the SQL function `decide_salt` raises.
const SALT_CHANGED: &str = "LE001";

/// `transaction_timeout` of Postgres 17, which `SqlState` does not name yet.
const TRANSACTION_TIMEOUT: &str = "25P04";

/// Classes of SQLSTATEs, the first two characters of [a code][codes].
///
/// [codes]: https://www.postgresql.org/docs/current/errcodes-appendix.html
mod class {
    pub(super) const CONNECTION_EXCEPTION: &str = "08";
    pub(super) const INVALID_AUTHORIZATION: &str = "28";
}

/// Why a batch could not be written. Nothing of it was committed, or repeating it is safe.
#[derive(Clone, Debug, PartialEq, Eq, strum::IntoStaticStr, strum::VariantNames, thiserror::Error)]
pub enum StoreError {
    /// Postgres is out of reach, or the connection broke.
    #[error("Postgres cannot be reached: {cause}")]
    #[strum(serialize = "DatabaseUnreachable")]
    Unreachable {
        /// What happened to the connection. The text holds nothing that was sent.
        cause: String,
    },
    /// Postgres refused the function's login.
    #[error("Postgres refused {}, SQLSTATE {}", credential_name(*.by_token), .sqlstate.code())]
    #[strum(serialize = "DatabaseLoginRefused")]
    LoginRefused {
        /// Postgres's code.
        sqlstate: SqlState,
        /// Whether the login was an IAM token.
        by_token: bool,
    },
    /// Postgres has no free connection. A lower concurrency of the function needs fewer.
    #[error("Postgres is out of connections, SQLSTATE {}", .sqlstate.code())]
    #[strum(serialize = "DatabaseOutOfConnections")]
    OutOfConnections {
        /// Postgres's code.
        sqlstate: SqlState,
    },
    /// A deadlock, a failed serialization, or a wait for a lock that took too long. The other transaction has
    /// probably ended by the next delivery.
    #[error("the transaction conflicted with another transaction, SQLSTATE {}", .sqlstate.code())]
    #[strum(serialize = "DatabaseDeadlock")]
    Deadlock {
        /// Postgres's code.
        sqlstate: SqlState,
    },
    /// Postgres took too long.
    #[error("Postgres did not answer in time")]
    #[strum(serialize = "DatabaseTimedOut")]
    TimedOut,
    /// Postgres refused the statement itself: a table, function or privilege is missing, or the disk is
    /// full.
    #[error("Postgres refused the statement, SQLSTATE {}", .sqlstate.code())]
    #[strum(serialize = "DatabaseRefused")]
    StatementRefused {
        /// Postgres's code.
        sqlstate: SqlState,
    },
    /// The schema of the setting does not have the function that writes rows.
    #[error("the schema {schema} has no function write_logins: {}", schema_remedy(.ledger_schema.as_deref()))]
    #[strum(serialize = "DatabaseRefused")]
    FunctionMissing {
        /// The schema of the setting.
        schema: String,
        /// The schema that has the function.
        ledger_schema: Option<String>,
        /// Postgres's code.
        sqlstate: SqlState,
    },
    /// The rows are masked with another salt than the rows of the table, so they could not be joined with
    /// these. An operator must restore the old salt, or accept the new one.
    #[error("the salt is not the one that user_logins is masked with")]
    SaltChanged,
    /// Postgres refused the login, and the credentials could not be fetched again.
    #[error(transparent)]
    #[strum(serialize = "SecretsUnavailable")]
    Secret(#[from] SecretError),
}

impl StoreError {
    /// Returns the error's stable name: the `errorType` of the invocation.
    #[must_use]
    pub fn error_type(&self) -> &'static str {
        self.into()
    }

    /// Returns the SQLSTATE of Postgres, where Postgres sent one.
    #[must_use]
    pub fn sqlstate(&self) -> Option<&str> {
        match self {
            Self::LoginRefused { sqlstate, .. }
            | Self::OutOfConnections { sqlstate }
            | Self::Deadlock { sqlstate }
            | Self::FunctionMissing { sqlstate, .. }
            | Self::StatementRefused { sqlstate } => Some(sqlstate.code()),
            Self::Unreachable { .. } | Self::TimedOut | Self::SaltChanged | Self::Secret(_) => None,
        }
    }

    /// Whether a new connection may succeed: this connection broke, or leads to a server that a failover
    /// turned into a standby.
    pub(super) fn is_connection_error(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::StatementRefused { sqlstate } => *sqlstate == SqlState::READ_ONLY_SQL_TRANSACTION,
            _ => false,
        }
    }

    fn unreachable(sqlstate: &SqlState) -> Self {
        Self::Unreachable { cause: format!("SQLSTATE {}", sqlstate.code()) }
    }
}

/// Returns what broke a connection or prevented it: the kind of the I/O error, or the text of the TLS
/// library. Neither holds anything that was sent.
pub(crate) fn connection_failure(error: &tokio_postgres::Error) -> String {
    let mut next: Option<&(dyn Error + 'static)> = error.source();
    while let Some(cause) = next {
        if let Some(io) = cause.downcast_ref::<std::io::Error>() {
            let tls = io.get_ref().and_then(|inside| inside.downcast_ref::<rustls::Error>());
            return tls.map_or_else(|| io.kind().to_string(), ToString::to_string);
        }
        next = cause.source();
    }
    if error.is_closed() { "the connection is closed".to_owned() } else { "the connection failed".to_owned() }
}

/// Classifies by SQLSTATE. The text of Postgres is dropped, because it quotes values.
impl From<&tokio_postgres::Error> for StoreError {
    fn from(error: &tokio_postgres::Error) -> Self {
        let Some(sqlstate) = error.code().cloned() else {
            return Self::Unreachable { cause: connection_failure(error) };
        };
        match sqlstate {
            SqlState::ADMIN_SHUTDOWN
            | SqlState::CRASH_SHUTDOWN
            | SqlState::CANNOT_CONNECT_NOW
            | SqlState::IDLE_SESSION_TIMEOUT => Self::unreachable(&sqlstate),
            SqlState::TOO_MANY_CONNECTIONS => Self::OutOfConnections { sqlstate },
            SqlState::T_R_SERIALIZATION_FAILURE
            | SqlState::T_R_DEADLOCK_DETECTED
            | SqlState::LOCK_NOT_AVAILABLE => Self::Deadlock { sqlstate },
            SqlState::QUERY_CANCELED => Self::TimedOut,
            _ if sqlstate.code() == TRANSACTION_TIMEOUT => Self::TimedOut,
            _ if sqlstate.code() == SALT_CHANGED => Self::SaltChanged,
            _ if is_in(class::CONNECTION_EXCEPTION, &sqlstate) => Self::unreachable(&sqlstate),
            _ if is_in(class::INVALID_AUTHORIZATION, &sqlstate) => {
                Self::LoginRefused { sqlstate, by_token: false }
            }
            _ => Self::StatementRefused { sqlstate },
        }
    }
}

/// Whether the error may concern some rows only, so that the other rows of the batch can be written.
pub(super) fn may_concern_rows(error: &tokio_postgres::Error) -> bool {
    matches!(StoreError::from(error), StoreError::StatementRefused { .. })
}

fn is_in(class: &str, sqlstate: &SqlState) -> bool {
    sqlstate.code().starts_with(class)
}

fn schema_remedy(ledger_schema: Option<&str>) -> String {
    match ledger_schema {
        Some(schema) => format!("set {DATABASE_SCHEMA} to {schema}"),
        None => "run migrate".to_owned(),
    }
}

/// Names the credential in an error text. Postgres does not say why it refuses a token, so the text lists
/// what a token needs.
fn credential_name(by_token: bool) -> &'static str {
    if by_token {
        "the IAM token (required: rds-db:connect for this user in the policy, IAM authentication on the \
         database, the user in rds_iam, and the host name that RDS gave)"
    } else {
        "the login"
    }
}
