//! Classifies the errors of a connection pooler.
//!
//! [pgbouncer] and similar poolers send the same SQLSTATE, `08P01`, for most errors. Only the text says what
//! happened. The text may quote names and errors of Postgres, so it is compared with the pooler's constant texts
//! and is never passed on.
//!
//! [pgbouncer]: https://github.com/pgbouncer/pgbouncer

use tokio_postgres::error::{DbError, SqlState};

/// The meaning of a pooler's error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PoolerError {
    /// The pooler, or Postgres behind the pooler, refused the login.
    LoginRefused,
    /// The pooler or the server has no free connection.
    OutOfConnections,
    /// The pooler does not serve the database.
    UnknownDatabase,
    /// The pooler refused a parameter that the client sent when it connected.
    StartupParameter,
    /// A pooler with `pool_mode = statement` refused a transaction.
    Transaction,
    /// The pooler ended a statement or a transaction that took too long.
    TimedOut,
    /// The pooler cannot connect to Postgres.
    ServerAway,
    /// Anything else.
    Other,
}

/// The parts of texts by which each error is recognised. The first match wins: after its own text ("server login
/// has been failing"), the pooler quotes the reason of Postgres, which matters more.
const TEXTS: [(PoolerError, &[&str]); 7] = [
    (
        PoolerError::OutOfConnections,
        &[
            "no more connections allowed",
            "client connections exceeded",
            "query_wait_timeout",
            "too many clients",
            "too many connections",
            "remaining connection slots",
        ],
    ),
    (
        PoolerError::LoginRefused,
        &["authentication failed", "no such user", "login rejected", "not permitted to log in"],
    ),
    (
        PoolerError::UnknownDatabase,
        &["no such database", "database does not allow connections", "is disabled", "does not exist"],
    ),
    (
        PoolerError::StartupParameter,
        &["unsupported startup parameter", "unsupported options startup parameter"],
    ),
    (PoolerError::Transaction, &["transaction blocks not allowed in statement pooling mode"]),
    (PoolerError::TimedOut, &["query_timeout", "query timeout", "transaction timeout"]),
    (
        PoolerError::ServerAway,
        &[
            "server login",
            "server_login_retry",
            "server down",
            "cannot connect",
            "connect failed",
            "connect timeout",
            "server conn crashed",
            "DNS lookup failed",
        ],
    ),
];

impl PoolerError {
    /// Classifies the error; `None` if it has another SQLSTATE, so that no pooler sent it.
    pub(super) fn read(error: &DbError) -> Option<Self> {
        (*error.code() == SqlState::PROTOCOL_VIOLATION).then(|| Self::of_text(error.message()))
    }

    fn of_text(text: &str) -> Self {
        let known = TEXTS.iter().find(|(_, parts)| parts.iter().any(|part| text.contains(part)));
        known.map_or(Self::Other, |(meaning, _)| *meaning)
    }

    /// Returns our text for the error, which replaces the pooler's text.
    pub(super) fn cause(self) -> &'static str {
        match self {
            Self::UnknownDatabase => "the connection pooler does not serve the database",
            Self::StartupParameter => {
                "the connection pooler refuses a startup parameter, such as options in DATABASE_URL"
            }
            Self::Transaction => "the connection pooler allows no transaction (pool_mode = statement)",
            Self::ServerAway => "the connection pooler cannot connect to Postgres",
            Self::LoginRefused | Self::OutOfConnections | Self::TimedOut | Self::Other => {
                "the connection pooler refuses the connection; its log has the reason"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::PoolerError::{
        LoginRefused, Other, OutOfConnections, ServerAway, StartupParameter, TimedOut, Transaction,
        UnknownDatabase,
    };
    use super::*;

    /// Texts of pgbouncer 1.18 to 1.25. `tests/it/pooler.rs` receives some of them from pgbouncer itself.
    #[test]
    fn each_text_of_pgbouncer_has_a_meaning() {
        for (text, meaning) in [
            ("password authentication failed", LoginRefused),
            ("SASL authentication failed", LoginRefused),
            ("certificate authentication failed", LoginRefused),
            ("\"trust\" authentication failed", LoginRefused),
            ("no such user", LoginRefused),
            ("unix socket login rejected", LoginRefused),
            ("password authentication failed for user \"u\"", LoginRefused),
            (
                "server login has been failing, cached error: FATAL: password authentication failed for user \"u\" \
                 (server_login_retry)",
                LoginRefused,
            ),
            ("role \"u\" is not permitted to log in", LoginRefused),
            ("no more connections allowed (max_client_conn)", OutOfConnections),
            ("client connections exceeded (max_db_client_connections)", OutOfConnections),
            ("query_wait_timeout", OutOfConnections),
            (
                "server login has been failing, cached error: sorry, too many clients already",
                OutOfConnections,
            ),
            ("no such database: d", UnknownDatabase),
            ("database does not allow connections: d", UnknownDatabase),
            ("database \"d\" is disabled", UnknownDatabase),
            ("database \"d\" does not exist", UnknownDatabase),
            ("unsupported startup parameter: options", StartupParameter),
            ("unsupported startup parameter in options: search_path", StartupParameter),
            ("transaction blocks not allowed in statement pooling mode", Transaction),
            ("query_timeout", TimedOut),
            ("query timeout", TimedOut),
            ("idle transaction timeout", TimedOut),
            ("server login has been failing, try again later (server_login_retry)", ServerAway),
            ("pgbouncer cannot connect to server", ServerAway),
            ("client_login_timeout (server down)", ServerAway),
            ("server conn crashed?", ServerAway),
            ("server DNS lookup failed", ServerAway),
            ("connect failed", ServerAway),
            ("connect timeout", ServerAway),
            ("bouncer config error", Other),
            ("server shutting down", Other),
        ] {
            assert_eq!(PoolerError::of_text(text), meaning, "{text}");
        }
    }
}
