//! The database's schema: the migrations under `migrations`, and the upkeep of the ledger.

use postgres_protocol::password::scram_sha_256;
use refinery::error::Kind;
use refinery::{Migration, Target};
use secrecy::{ExposeSecret, SecretString};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

use login::pii::Fingerprint;

mod embedded {
    refinery::embed_migrations!("migrations");
}

/// The role that the function logs in as.
pub const WRITER: &str = "login_writer";

/// Has the writer log in by IAM, and without a password.
const LET_WRITER_IN_BY_IAM: &str = include_str!("schema/grant_iam_login.sql");

/// Has the writer log in by IAM no more.
const END_IAM_OF_WRITER: &str = include_str!("schema/revoke_iam_login.sql");

/// Empties the days of the ledger that are too old to matter.
const PRUNE: &str = include_str!("schema/prune.sql");

/// Accepts a salt by its fingerprint.
const ACCEPT_SALT: &str = include_str!("schema/accept_salt.sql");

/// Any number, so long as nobody else's migrations take the same one.
const ADVISORY_LOCK: i64 = 0x6c6f_6769_6e65_746c;

/// Why the schema could not be brought up to date.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// A migration failed; those before it stay.
    #[error("a migration failed: {}", reason(.0))]
    Migration(#[source] Box<refinery::Error>),
    /// A statement around the migrations failed.
    #[error("Postgres refused: {}", postgres_reason(.0))]
    Postgres(#[from] tokio_postgres::Error),
    /// Postgres is not Amazon's.
    #[error(
        "there is no role rds_iam, so this is no Postgres of RDS or Aurora, and knows no IAM authentication"
    )]
    NoIam,
}

/// Brings the schema up to date, and returns the names of the migrations that it took.
///
/// Those who call at the same time wait for each other. `user_logins` is created where it is absent
/// and left as it is where it exists. A schema that is newer than this program is left alone: a
/// deployment that was rolled back brings the older program to it, and migrations only add.
///
/// # Errors
///
/// [`SchemaError`]; what was done before stays done, and the next call goes on from there.
pub async fn migrate(client: &mut Client) -> Result<Vec<String>, SchemaError> {
    client.execute("SELECT pg_advisory_lock($1)", &[&ADVISORY_LOCK]).await?;
    let outcome = run(client).await;
    client.execute("SELECT pg_advisory_unlock($1)", &[&ADVISORY_LOCK]).await?;
    outcome.map_err(|error| SchemaError::Migration(Box::new(error)))
}

/// Has [`WRITER`] log in with this password, and not by IAM.
///
/// Postgres gets the SCRAM verifier, as from libpq's `PQencryptPasswordConn`, so the password itself
/// is in no statement that it might log.
///
/// # Errors
///
/// [`SchemaError::Postgres`]; also where the writer stays a member of `rds_iam`, since another role made
/// it one.
pub async fn let_writer_in_by_password(client: &Client, password: &SecretString) -> Result<(), SchemaError> {
    let verifier = scram_sha_256(password.expose_secret().as_bytes());
    // ALTER ROLE takes no parameters. A verifier has no character that needs escaping. Sent together,
    // the two are one transaction.
    let statements = format!("{END_IAM_OF_WRITER}; ALTER ROLE {WRITER} PASSWORD '{verifier}'");
    Ok(client.batch_execute(&statements).await?)
}

/// Has [`WRITER`] log in [by IAM], with tokens and without a password: RDS asks each member of the role
/// `rds_iam` for a token, and for nothing else.
///
/// [by IAM]: https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/UsingWithRDS.IAMDBAuth.DBAccounts.html
///
/// # Errors
///
/// [`SchemaError::NoIam`] where there is no such role, and [`SchemaError::Postgres`].
pub async fn let_writer_in_by_iam(client: &Client) -> Result<(), SchemaError> {
    match client.batch_execute(LET_WRITER_IN_BY_IAM).await {
        Err(error) if error.code() == Some(&SqlState::UNDEFINED_OBJECT) => Err(SchemaError::NoIam),
        outcome => Ok(outcome?),
    }
}

/// Drops the ledger's entries that SQS cannot redeliver any more. Harmless to miss, and to repeat.
///
/// # Errors
///
/// [`SchemaError::Postgres`].
pub async fn prune(client: &Client) -> Result<(), SchemaError> {
    Ok(client.batch_execute(PRUNE).await?)
}

/// Accepts the salt with this fingerprint, and returns whether it is another one than before: from
/// here on a function with another salt is refused, and tokens match no older row.
///
/// # Errors
///
/// [`SchemaError::Postgres`].
pub async fn accept_salt(client: &mut Client, salt: &Fingerprint) -> Result<bool, SchemaError> {
    let transaction = client.transaction().await?;
    // Waits for the batches that are being written with the old salt; those that come later wait
    // for us, and then see the new one.
    transaction.batch_execute("LOCK TABLE user_logins IN SHARE MODE").await?;
    let changed = transaction.execute_typed(ACCEPT_SALT, &[(&salt.as_str(), Type::TEXT)]).await?;
    transaction.commit().await?;
    Ok(changed > 0)
}

async fn run(client: &mut Client) -> Result<Vec<String>, refinery::Error> {
    let runner = embedded::migrations::runner().set_target(Target::Latest);
    let newest = runner.get_migrations().iter().map(Migration::version).max();
    match runner.run_async(client).await {
        Ok(report) => Ok(report.applied_migrations().iter().map(ToString::to_string).collect()),
        Err(error) if matches!(error.kind(), Kind::MissingVersion(one) if Some(one.version()) > newest) => {
            Ok(Vec::new())
        }
        Err(error) => Err(error),
    }
}

fn reason(error: &refinery::Error) -> String {
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

/// Postgres's message and code. The message of a refused DDL statement names objects and roles;
/// it is in `DETAIL` that Postgres quotes rows, and that stays behind.
fn postgres_reason(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(refusal) => format!("{}, SQLSTATE {}", refusal.message(), refusal.code().code()),
        None => crate::store::connect::cause(error),
    }
}
