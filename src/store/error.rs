//! Why a batch could not be written.

use std::error::Error;
use std::io::ErrorKind;

use tokio_postgres::error::SqlState;

use super::auth_guard::MethodRefused;
use super::pooler::PoolerError;
use crate::aws::secrets::SecretError;
use crate::config::DATABASE_SCHEMA;

/// The code that the SQL function `decide_salt` raises.
const SALT_CHANGED: &str = "LE001";

/// The code that the SQL function `check_vault_key` raises.
const VAULT_KEY_CHANGED: &str = "LE003";

/// The text for a connection that ended without an error.
const CLOSED: &str = "the server closed the connection and sent no reason";

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
        /// The code of Postgres or of a pooler, if it sent one.
        sqlstate: Option<SqlState>,
    },
    /// Postgres, or a pooler in front of it, refused the function's login.
    #[error("Postgres refused {}, SQLSTATE {}", credential_name(*.by_token), .sqlstate.code())]
    #[strum(serialize = "DatabaseLoginRefused")]
    LoginRefused {
        /// Postgres's code.
        sqlstate: SqlState,
        /// Whether the login was an IAM token.
        by_token: bool,
    },
    /// Postgres, or a pooler in front of it, has no free connection. A function with a lower concurrency needs
    /// fewer connections.
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
    /// The schema that `DATABASE_SCHEMA` names does not have the function that writes rows.
    #[error("the schema {schema} has no function write_logins: {}", schema_remedy(.ledger_schema.as_deref()))]
    #[strum(serialize = "DatabaseRefused")]
    FunctionMissing {
        /// The schema of the setting.
        schema: String,
        /// The schema that has the function, if there is one.
        ledger_schema: Option<String>,
        /// Postgres's code.
        sqlstate: SqlState,
    },
    /// The rows are masked with another salt than the rows of the table, so they could not be joined with
    /// these. An operator must restore the old salt, or accept the new one.
    #[error("the salt is not the one that user_logins is masked with")]
    SaltChanged,
    /// The values are sealed to another key than the current key of the vault. An operator must restore the setting, or
    /// accept its key.
    #[error(
        "VAULT_PUBLIC_KEY is not the current key of the vault; set it to the current key, or accept it by migrate \
         accept-vault-key"
    )]
    VaultKeyChanged,
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
            Self::Unreachable { sqlstate, .. } => sqlstate.as_ref().map(SqlState::code),
            Self::TimedOut | Self::SaltChanged | Self::VaultKeyChanged | Self::Secret(_) => None,
        }
    }

    /// Whether a new connection may succeed: this connection broke, or it leads to a server that a failover turned
    /// into a standby, or to a pooler that still logs in to Postgres with a rotated password.
    #[must_use]
    pub fn is_connection_error(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::LoginRefused { .. } => true,
            Self::StatementRefused { sqlstate } => *sqlstate == SqlState::READ_ONLY_SQL_TRANSACTION,
            _ => false,
        }
    }

    /// Whether the login may have been refused, although the error does not say so: a pooler sends the same
    /// SQLSTATE for most errors.
    pub(super) fn may_be_refused_login(&self) -> bool {
        match self {
            Self::Unreachable { sqlstate: Some(sqlstate), .. } => {
                is_in(class::CONNECTION_EXCEPTION, sqlstate)
            }
            Self::LoginRefused { .. } | Self::StatementRefused { .. } => true,
            _ => false,
        }
    }

    /// Returns why a connection ended between two statements. A new connection may succeed, whatever SQLSTATE
    /// Postgres sent.
    pub(super) fn end_of_connection(error: &tokio_postgres::Error) -> Self {
        match (Self::from(error), error.code()) {
            (Self::Unreachable { cause, sqlstate }, _) => Self::Unreachable { cause, sqlstate },
            (_, Some(sqlstate)) => Self::unreachable(sqlstate.clone()),
            (other, None) => other,
        }
    }

    fn unreachable(sqlstate: SqlState) -> Self {
        Self::Unreachable { cause: sqlstate_in_words(&sqlstate), sqlstate: Some(sqlstate) }
    }

    fn of_pooler(error: PoolerError, sqlstate: SqlState) -> Self {
        match error {
            PoolerError::LoginRefused => Self::LoginRefused { sqlstate, by_token: false },
            PoolerError::OutOfConnections => Self::OutOfConnections { sqlstate },
            PoolerError::TimedOut => Self::TimedOut,
            other => {
                let cause = format!("{}, {}", other.cause(), sqlstate_in_words(&sqlstate));
                Self::Unreachable { cause, sqlstate: Some(sqlstate) }
            }
        }
    }
}

/// Returns why a connection failed or broke: the kind of the I/O error, the text of OpenSSL, or a text of ours for
/// an error of the client. An error of the handshake is returned whole, because only the host's name was sent
/// before. Of a later error only the reasons are returned, which are constants of OpenSSL.
pub(crate) fn connection_failure(error: &tokio_postgres::Error) -> String {
    let mut next: Option<&(dyn Error + 'static)> = error.source();
    while let Some(cause) = next {
        if let Some(handshake) = cause.downcast_ref::<native_tls::Error>() {
            return handshake.to_string();
        }
        if let Some(io) = cause.downcast_ref::<std::io::Error>() {
            let inside = io.get_ref();
            if let Some(refused) = inside.and_then(|inside| inside.downcast_ref::<MethodRefused>()) {
                return refused.to_string();
            }
            let tls = inside.and_then(|inside| inside.downcast_ref::<openssl::ssl::Error>());
            return tls.and_then(tls_failure).unwrap_or_else(|| io_failure(io));
        }
        if let Some(words) = words_for(&cause.to_string()) {
            return words.to_owned();
        }
        next = cause.source();
    }
    if error.is_closed() { CLOSED.to_owned() } else { "the connection failed".to_owned() }
}

/// Returns why a connection with TLS ended, such as `decryption failed or bad record mac`.
fn tls_failure(error: &openssl::ssl::Error) -> Option<String> {
    let failures: Vec<_> = error
        .ssl_error()?
        .errors()
        .iter()
        .filter_map(|error| error.reason().map(str::to_owned).or_else(|| system_failure(error)))
        .collect();
    (!failures.is_empty()).then(|| failures.join(", "))
}

/// Returns the kind of an error of the operating system that OpenSSL passes on, such as `connection reset`. OpenSSL
/// has no text for it, and gives `ERR_SYSTEM_FLAG`, the highest bit of 32, with the system's number.
fn system_failure(error: &openssl::error::Error) -> Option<String> {
    const ERR_SYSTEM_FLAG: u64 = 1 << 31;
    let code = error.code() ^ ERR_SYSTEM_FLAG;
    let number = i32::try_from(code).ok()?;
    Some(io_failure(&std::io::Error::from_raw_os_error(number)))
}

/// Returns the kind of an I/O error, or a text of ours if Rust has no kind for it.
fn io_failure(error: &std::io::Error) -> String {
    if let Some(words) = words_for(&error.to_string()) {
        return words.to_owned();
    }
    match (error.kind().to_string(), error.raw_os_error()) {
        (kind, Some(code)) if kind == "uncategorized error" => {
            format!("error {code} of the operating system")
        }
        (kind, _) => kind,
    }
}

/// Returns a text of ours for a constant text of the Postgres client or of the standard library.
fn words_for(text: &str) -> Option<&'static str> {
    // This text contains the reason that DNS gave, but not the name.
    if text.starts_with("failed to lookup address information") || text == "could not resolve any addresses" {
        return Some("the name of the host cannot be resolved (DNS)");
    }
    Some(match text {
        "server does not support TLS" => "the server does not offer TLS, which is required",
        "password missing" => "the server requires a password, and DATABASE_URL has none",
        "unsupported authentication method" | "unsupported SASL mechanism" => {
            "the server requires an unsupported method of authentication"
        }
        "server did not use channel binding" => {
            "the server does not offer channel binding, which is required"
        }
        "database does not allow writes" => "the server is read-only, and target_session_attrs is read-write",
        _ => return None,
    })
}

fn sqlstate_in_words(sqlstate: &SqlState) -> String {
    format!("SQLSTATE {}", sqlstate.code())
}

/// Classifies by SQLSTATE, and by the pooler's text. No text is passed on, because it may quote values.
impl From<&tokio_postgres::Error> for StoreError {
    fn from(error: &tokio_postgres::Error) -> Self {
        let Some(refusal) = error.as_db_error() else {
            return Self::Unreachable { cause: connection_failure(error), sqlstate: None };
        };
        let sqlstate = refusal.code().clone();
        if let Some(error) = PoolerError::read(refusal) {
            return Self::of_pooler(error, sqlstate);
        }
        match sqlstate {
            SqlState::ADMIN_SHUTDOWN
            | SqlState::CRASH_SHUTDOWN
            | SqlState::CANNOT_CONNECT_NOW
            | SqlState::IDLE_SESSION_TIMEOUT => Self::unreachable(sqlstate),
            SqlState::TOO_MANY_CONNECTIONS => Self::OutOfConnections { sqlstate },
            SqlState::T_R_SERIALIZATION_FAILURE
            | SqlState::T_R_DEADLOCK_DETECTED
            | SqlState::LOCK_NOT_AVAILABLE => Self::Deadlock { sqlstate },
            SqlState::QUERY_CANCELED => Self::TimedOut,
            _ if sqlstate.code() == TRANSACTION_TIMEOUT => Self::TimedOut,
            _ if sqlstate.code() == SALT_CHANGED => Self::SaltChanged,
            _ if sqlstate.code() == VAULT_KEY_CHANGED => Self::VaultKeyChanged,
            _ if is_in(class::CONNECTION_EXCEPTION, &sqlstate) => Self::unreachable(sqlstate),
            _ if is_in(class::INVALID_AUTHORIZATION, &sqlstate) => {
                Self::LoginRefused { sqlstate, by_token: false }
            }
            _ => Self::StatementRefused { sqlstate },
        }
    }
}

/// Whether a server that could not be reached may be about to start: nothing listens yet, or it says that it is
/// starting. A name that cannot be resolved, a wrong certificate and a wrong password stay wrong.
pub(super) fn server_may_start(error: &tokio_postgres::Error) -> bool {
    if let Some(sqlstate) = error.code() {
        return matches!(
            *sqlstate,
            SqlState::CANNOT_CONNECT_NOW | SqlState::ADMIN_SHUTDOWN | SqlState::CRASH_SHUTDOWN
        );
    }
    let io = error.source().and_then(|cause| cause.downcast_ref::<std::io::Error>());
    io.is_some_and(|io| {
        matches!(
            io.kind(),
            ErrorKind::ConnectionRefused
                | ErrorKind::ConnectionReset
                | ErrorKind::HostUnreachable
                | ErrorKind::TimedOut
                | ErrorKind::UnexpectedEof
        )
    })
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

#[cfg(test)]
mod tests {
    use openssl::ssl::{SslContext, SslMethod};
    use openssl::x509::X509;

    use super::*;

    #[test]
    fn tls_failure_is_only_the_reason() {
        let failure = X509::from_pem(b"not a certificate").unwrap_err();
        assert!(failure.to_string().ends_with("Expecting: CERTIFICATE"));

        assert_eq!(tls_failure(&failure.into()).unwrap(), "no start line");
    }

    /// The tests make the client's other errors with a real server; these two need a server that our tests lack.
    #[test]
    fn unsupported_authentication_is_explained() {
        for text in ["unsupported authentication method", "unsupported SASL mechanism"] {
            let words = words_for(text);

            assert_eq!(words, Some("the server requires an unsupported method of authentication"));
        }
    }

    #[test]
    fn system_error_is_named_by_its_kind() {
        let mut context = SslContext::builder(SslMethod::tls()).unwrap();
        let failure = context.set_ca_file("/nowhere").unwrap_err();

        assert_eq!(system_failure(&failure.errors()[0]).as_deref(), Some("entity not found"));
        assert!(tls_failure(&failure.into()).unwrap().starts_with("entity not found, "));
    }

    #[test]
    fn unknown_system_error_is_named_by_its_number() {
        let error = std::io::Error::from_raw_os_error(999);

        assert_eq!(io_failure(&error), "error 999 of the operating system");
    }
}
