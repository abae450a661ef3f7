//! The database's schema: applies the migrations of the folder `migrations`, sets how the writer's role logs
//! in, prunes the ledger and accepts a salt.

use login::pii::SaltFingerprint;
use postgres_protocol::password::scram_sha_256;
use refinery::error::Kind;
use refinery::{Migration, Target};
use secrecy::{ExposeSecret, SecretString};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

mod embedded {
    refinery::embed_migrations!("migrations");
}

/// The role of the ingest function.
pub const WRITER_ROLE: &str = "login_writer";

const GRANT_IAM_LOGIN: &str = include_str!("schema/grant_iam_login.sql");
const REVOKE_IAM_LOGIN: &str = include_str!("schema/revoke_iam_login.sql");
const PRUNE: &str = include_str!("schema/prune.sql");
const ACCEPT_SALT: &str = include_str!("schema/accept_salt.sql");

/// Waits for the batches that are written with the old salt. Later batches wait for the lock, and then
/// compare their salt with the new fingerprint.
const LOCK_OUT_BATCHES: &str = "LOCK TABLE user_logins IN SHARE MODE";

/// An arbitrary number that no other program's migrations should use: the bytes of `loginetl`.
const ADVISORY_LOCK: i64 = 0x6c6f_6769_6e65_746c;

/// Why the schema could not be brought up to date. The errors of the libraries are not kept as a source,
/// because their texts quote rows.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// A migration failed. The migrations before it stay applied.
    #[error("a migration failed: {0}")]
    Migration(String),
    /// A statement around the migrations failed.
    #[error("Postgres refused: {0}")]
    Postgres(String),
    /// The server is not RDS or Aurora.
    #[error("there is no role rds_iam: this server is not RDS or Aurora, and has no IAM authentication")]
    NoIam,
}

/// Applies the migrations that are missing, and returns their names.
///
/// Concurrent calls wait for each other. A table `user_logins` that exists is not altered. A schema that
/// is newer than this program is not altered either: a deployment that is rolled back runs the older
/// program on it, and migrations only add.
///
/// # Errors
///
/// [`SchemaError`]: the next call continues after the last migration that was applied.
pub async fn migrate(client: &mut Client) -> Result<Vec<String>, SchemaError> {
    client.execute("SELECT pg_advisory_lock($1)", &[&ADVISORY_LOCK]).await?;
    let outcome = apply_migrations(client).await;
    client.execute("SELECT pg_advisory_unlock($1)", &[&ADVISORY_LOCK]).await?;
    outcome.map_err(|error| SchemaError::Migration(migration_reason(&error)))
}

/// Sets the password of [`WRITER_ROLE`], and revokes its login by IAM.
///
/// The statement holds the SCRAM verifier, as libpq's `PQencryptPasswordConn` makes it, and not the
/// password: Postgres may log statements.
///
/// # Errors
///
/// [`SchemaError::Postgres`]; also if another role granted `rds_iam` to the writer, because only that role
/// can revoke it.
pub async fn set_writer_password(client: &Client, password: &SecretString) -> Result<(), SchemaError> {
    let verifier = scram_sha_256(password.expose_secret().as_bytes());
    // ALTER ROLE has no parameters, and a verifier needs no escaping. Both statements are one transaction.
    let statements = format!("{REVOKE_IAM_LOGIN}; ALTER ROLE {WRITER_ROLE} PASSWORD '{verifier}'");
    Ok(client.batch_execute(&statements).await?)
}

/// Grants [`WRITER_ROLE`] the login [by IAM], and removes its password: RDS accepts only tokens from members
/// of the role `rds_iam`.
///
/// [by IAM]: https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/UsingWithRDS.IAMDBAuth.DBAccounts.html
///
/// # Errors
///
/// [`SchemaError::NoIam`] if the role `rds_iam` does not exist, and [`SchemaError::Postgres`].
pub async fn grant_writer_iam_login(client: &Client) -> Result<(), SchemaError> {
    match client.batch_execute(GRANT_IAM_LOGIN).await {
        Err(error) if error.code() == Some(&SqlState::UNDEFINED_OBJECT) => Err(SchemaError::NoIam),
        outcome => Ok(outcome?),
    }
}

/// Drops the ledger's entries whose messages SQS can no longer redeliver. Safe to skip and to repeat.
///
/// # Errors
///
/// [`SchemaError::Postgres`].
pub async fn prune(client: &Client) -> Result<(), SchemaError> {
    Ok(client.batch_execute(PRUNE).await?)
}

/// Accepts the salt with this fingerprint, and returns whether it differs from the salt before. From then on
/// the database refuses a function with another salt, and new rows cannot be joined with older rows.
///
/// # Errors
///
/// [`SchemaError::Postgres`].
pub async fn accept_salt(
    client: &mut Client,
    salt_fingerprint: &SaltFingerprint,
) -> Result<bool, SchemaError> {
    let transaction = client.transaction().await?;
    transaction.batch_execute(LOCK_OUT_BATCHES).await?;
    let changed = transaction.execute_typed(ACCEPT_SALT, &[(&salt_fingerprint.as_str(), Type::TEXT)]).await?;
    transaction.commit().await?;
    Ok(changed > 0)
}

impl From<tokio_postgres::Error> for SchemaError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Postgres(postgres_reason(&error))
    }
}

async fn apply_migrations(client: &mut Client) -> Result<Vec<String>, refinery::Error> {
    let runner = embedded::migrations::runner().set_target(Target::Latest);
    let newest = runner.get_migrations().iter().map(Migration::version).max();
    // `MissingVersion`: the database has a migration that this program does not have.
    let is_newer = |missing: &Migration| Some(missing.version()) > newest;
    match runner.run_async(client).await {
        Ok(report) => Ok(report.applied_migrations().iter().map(ToString::to_string).collect()),
        Err(error) if matches!(error.kind(), Kind::MissingVersion(missing) if is_newer(missing)) => {
            Ok(Vec::new())
        }
        Err(error) => Err(error),
    }
}

fn migration_reason(error: &refinery::Error) -> String {
    use std::error::Error;
    let mut next: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(cause) = next {
        if let Some(postgres) = cause.downcast_ref::<tokio_postgres::Error>() {
            return postgres_reason(postgres);
        }
        next = cause.source();
    }
    error.to_string()
}

/// Returns Postgres's message and code. The message of a refused DDL statement names objects and roles.
/// Postgres quotes rows only in `DETAIL`, which is dropped.
fn postgres_reason(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(refusal) => format!("{}, SQLSTATE {}", refusal.message(), refusal.code().code()),
        None => crate::store::error::connection_failure(error),
    }
}
