//! Why `migrate` failed, in words that quote no row.

use std::fmt;

use tokio_postgres::error::{DbError, SqlState};

/// Classes of errors that concern the server: the connection, the state of the transaction, a conflict with another
/// transaction, missing resources, an operator, the system, a bug.
const NOT_OF_ROWS: [&str; 7] = ["08", "25", "40", "53", "57", "58", "XX"];

/// Why the schema could not be brought up to date. The errors of the libraries are not kept as a source,
/// because their texts quote rows.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// The database, as it is, prevents the migrations or the writer from working. Nothing was changed.
    #[error("the database is not ready: {}", join(.0))]
    NotReady(Vec<Finding>),
    /// Another run did not finish in time.
    #[error("another run of migrate did not finish in time; try again after it")]
    Busy,
    /// Transactions that inserted rows stayed open.
    #[error("other transactions keep user_logins locked; end their sessions, and try again")]
    TableInUse,
    /// A migration failed.
    #[error("a migration failed: {0}")]
    Migration(String),
    /// A statement around the migrations failed.
    #[error("Postgres refused: {0}")]
    Postgres(String),
    /// Postgres refused a statement of a roll-up. Its message may quote a value of a row.
    #[error("Postgres refused a statement of the roll-up, SQLSTATE {sqlstate}")]
    RollUp {
        /// The code of Postgres.
        sqlstate: String,
    },
    /// Postgres refused to copy rows. Its message may quote a value of a row.
    #[error("Postgres refused to copy rows, SQLSTATE {sqlstate}")]
    Copy {
        /// The code of Postgres.
        sqlstate: String,
    },
    /// Values are sealed to another public key than `VAULT_PUBLIC_KEY`.
    #[error(
        "VAULT_PUBLIC_KEY is not the current key of the vault: set it to the current key, or accept the new key with \
         the event {{\"action\": \"accept-vault-key\"}} or by migrate accept-vault-key"
    )]
    VaultKeyChanged,
    /// The server is not RDS or Aurora.
    #[error("there is no role rds_iam: this server is not RDS or Aurora, and has no IAM authentication")]
    NoIam,
    /// Since Postgres 16, the owner of a database may grant only roles on which it has ADMIN OPTION.
    #[error(
        "this role may not grant rds_iam: as a member of rds_superuser, run GRANT rds_iam TO {role} (or grant \
         rds_iam to this role WITH ADMIN OPTION), then run migrate again"
    )]
    MayNotGrantIam {
        /// The role that should log in by IAM.
        role: &'static str,
    },
    /// As [`MayNotGrantIam`](Self::MayNotGrantIam), when the role returns to a password.
    #[error(
        "this role may not revoke rds_iam: as the role that granted it, run REVOKE rds_iam FROM {role}, then \
         run migrate again"
    )]
    MayNotRevokeIam {
        /// The role that should log in with a password.
        role: &'static str,
    },
}

/// A problem of the database and its solution. Both texts name objects and roles, never values of rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What is wrong.
    pub problem: String,
    /// The solution, most often a statement.
    pub remedy: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.problem, self.remedy)
    }
}

impl From<tokio_postgres::Error> for SchemaError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Postgres(postgres_reason(&error))
    }
}

/// Returns Postgres's message and code. The message of a refused DDL statement names objects and roles.
/// Postgres quotes rows only in `DETAIL`, which is dropped.
pub(super) fn postgres_reason(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(refusal) => format!("{}, SQLSTATE {}", refusal.message(), refusal.code().code()),
        None => crate::store::error::connection_failure(error),
    }
}

/// Whether Postgres refused a statement with one of these codes.
pub(crate) fn is_one_of(error: &tokio_postgres::Error, codes: &[SqlState]) -> bool {
    error.code().is_some_and(|code| codes.contains(code))
}

/// Whether the error concerns neither a row nor the statement, but the server or another transaction.
pub(super) fn concerns_server(refusal: &DbError) -> bool {
    let code = refusal.code();
    NOT_OF_ROWS.contains(&&code.code()[..2]) || *code == SqlState::LOCK_NOT_AVAILABLE
}

fn join(findings: &[Finding]) -> String {
    findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}
