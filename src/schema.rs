//! The database's schema: applies the migrations of the folder `migrations`, grants the roles the privileges that
//! they need, sets how the writer's role logs in, prunes the ledger, accepts a salt and keeps up the vault.

use std::time::Duration;

use login::pii::SaltFingerprint;
use postgres_protocol::escape::escape_identifier;
use secrecy::SecretString;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

use self::error::is_one_of;
pub use self::error::{Finding, SchemaError};
use self::role_login::set_password;
pub use self::role_login::{RoleLogin, WRITER_ROLE, grant_iam_login, set_login, set_password_login};
pub(crate) use self::session::begin;
pub(crate) use self::status::accepted_salt;
pub use self::status::{AcceptedSalt, SchemaStatus};
use self::trust::Ours;

pub(crate) mod beside;
pub(crate) mod error;
mod history;
mod preflight;
mod proof;
mod role_login;
mod session;
mod status;
pub(crate) mod trust;
pub mod vault;
mod writer_settings;

/// A member of `login_reader` that logs in with a password.
pub const READER_LOGIN: &str = "login_analyst";

/// Revokes everything in the current schema from others.
pub(crate) const REVOKE_ALL: &str = include_str!("schema/revoke_all.sql");

const CREATE_LOGINS: &str = include_str!("schema/create_logins.sql");
pub(crate) const REVOKE_PARTITION_RIGHTS: &str = include_str!("schema/revoke_partition_rights.sql");
const GRANTS: &str = include_str!("schema/grants.sql");
const REVOKE_TRIGGERS: &str = include_str!("schema/revoke_triggers.sql");
const CREATE_READER_LOGIN: &str = include_str!("schema/create_reader_login.sql");
const PRUNE: &str = include_str!("schema/prune.sql");
const COUNT_USERS_WITH_MANY_TOKENS: &str = include_str!("schema/users_with_many_tokens.sql");
const ACCEPT_SALT: &str = include_str!("schema/accept_salt.sql");

/// Waits for the batches that are written with the old salt. Later batches wait for the lock, and then
/// compare their salt with the new fingerprint. Batches lock the table itself before its partitions, so ONLY suffices.
///
/// The time limit ends this wait if a transaction stays open: otherwise all later batches would wait for it too. It is
/// longer than the second after which Postgres cancels an automatic vacuum that holds the table.
const LOCK_OUT_BATCHES: &str = "SET LOCAL lock_timeout = '3s'; LOCK TABLE ONLY user_logins IN SHARE MODE";
/// How often [`accept_salt`] tries to lock the table.
const LOCK_ATTEMPTS: usize = 10;
/// The time for waiting batches between two attempts.
const LOCK_PAUSE: Duration = Duration::from_secs(3);

/// How [`WRITER_ROLE`] logs in after [`migrate`].
#[derive(Debug)]
pub enum WriterLogin {
    /// As before.
    Unchanged,
    /// With this password.
    Password(SecretString),
    /// By IAM.
    Iam,
}

/// The result of [`migrate`].
#[derive(Debug)]
pub struct Migrated {
    /// The names of the migrations that it applied.
    pub migrations: Vec<String>,
    /// Problems that did not prevent a step.
    pub warnings: Vec<Finding>,
}

/// Brings a schema of the database up to date: applies the migrations that are missing, grants the two roles the
/// privileges that they lack, sets how the writer logs in, and proves that the writer can write.
///
/// It also removes the settings of the writer's role, which the writer itself could have set to harm later batches.
///
/// All of this is one transaction. It first checks the database, and changes nothing if a problem would make a
/// later step fail. Concurrent calls wait for each other: they take a lock that ends with the transaction. A table
/// `user_logins` that exists is not altered; a new one is partitioned by day ([`partitions`](crate::partitions)). A schema that is newer
/// than this program is not altered either: a deployment that is rolled back runs the older program on it, and
/// migrations only add.
///
/// # Errors
///
/// [`SchemaError`]: nothing was changed.
pub async fn migrate(
    client: &mut Client,
    schema: &str,
    writer_login: &WriterLogin,
) -> Result<Migrated, SchemaError> {
    let mut transaction = begin(client, schema).await?;
    let login_changes = !matches!(writer_login, WriterLogin::Unchanged);
    let mut warnings = preflight::check(&mut transaction, schema, login_changes).await?;
    history::lock(&mut transaction).await?;
    if history::newest_applied(&transaction).await?.is_none() {
        transaction.batch_execute(CREATE_LOGINS).await?;
        transaction.batch_execute(REVOKE_PARTITION_RIGHTS).await?;
    }
    let migrations = history::apply_missing(&transaction).await?;
    transaction.batch_execute(GRANTS).await?;
    if !migrations.is_empty() {
        transaction.batch_execute(REVOKE_TRIGGERS).await?;
    }
    warnings.extend(writer_settings::remove(&transaction).await?);
    match writer_login {
        WriterLogin::Unchanged => {}
        WriterLogin::Password(password) => set_password_login(&transaction, WRITER_ROLE, password).await?,
        WriterLogin::Iam => grant_iam_login(&transaction, WRITER_ROLE).await?,
    }
    warnings.extend(proof::prove(&mut transaction, &escape_identifier(schema)).await?);
    transaction.commit().await?;
    Ok(Migrated { migrations, warnings })
}

/// Creates [`READER_LOGIN`] if it does not exist, makes it a member of `login_reader`, and sets its password.
///
/// # Errors
///
/// [`SchemaError::Postgres`]: nothing was changed.
pub async fn set_reader_login(
    client: &mut Client,
    schema: &str,
    password: &SecretString,
) -> Result<(), SchemaError> {
    let transaction = begin(client, schema).await?;
    transaction.batch_execute(CREATE_READER_LOGIN).await?;
    set_password(&transaction, READER_LOGIN, password).await?;
    Ok(transaction.commit().await?)
}

/// Drops the ledger's entries whose messages SQS can no longer redeliver. Safe to skip and to repeat.
///
/// # Errors
///
/// [`SchemaError::NotReady`] if another role could act as this role, and [`SchemaError::Postgres`].
pub async fn prune(client: &mut Client, schema: &str) -> Result<(), SchemaError> {
    let mut transaction = begin(client, schema).await?;
    trust::check(&mut transaction, schema, Ours::Named).await?;
    transaction.batch_execute(PRUNE).await?;
    Ok(transaction.commit().await?)
}

/// Counts the users that have unusually many different addresses or device ids in one day, today or yesterday.
/// Somebody who may both send logins and read the table guesses masked values in this way.
///
/// Of a partitioned table, Postgres reads these two days. A table without an index on the date is read whole, for at most
/// 30 s.
///
/// # Errors
///
/// [`SchemaError::Postgres`]; also if the time ran out.
pub async fn users_with_many_tokens(client: &mut Client, schema: &str) -> Result<u64, SchemaError> {
    let transaction = begin(client, schema).await?;
    transaction.batch_execute("SET LOCAL statement_timeout = '30s'").await?;
    let row = transaction.query_one(COUNT_USERS_WITH_MANY_TOKENS, &[]).await?;
    Ok(row.get::<_, i64>(0).unsigned_abs())
}

/// Reads which migrations are applied and which salt is accepted. No batch waits for it.
///
/// # Errors
///
/// [`SchemaError::NotReady`] if another role could act as this role, and [`SchemaError::Postgres`].
pub async fn status(client: &mut Client, schema: &str) -> Result<SchemaStatus, SchemaError> {
    let mut transaction = begin(client, schema).await?;
    status::read(&mut transaction, schema).await
}

/// Accepts the salt with this fingerprint, and returns whether it differs from the salt before. From then on
/// the database refuses a function with another salt, and new rows cannot be joined with older rows.
///
/// Batches wait for at most 3 s at a time, even if a transaction that inserted rows stays open.
///
/// # Errors
///
/// [`SchemaError::TableInUse`] if such a transaction stays open for a minute, [`SchemaError::NotReady`] if another role
/// could act as this role, and [`SchemaError::Postgres`].
pub async fn accept_salt(
    client: &mut Client,
    schema: &str,
    salt_fingerprint: &SaltFingerprint,
) -> Result<bool, SchemaError> {
    for _ in 0..LOCK_ATTEMPTS {
        let mut transaction = begin(client, schema).await?;
        trust::check(&mut transaction, schema, Ours::Named).await?;
        match transaction.batch_execute(LOCK_OUT_BATCHES).await {
            Err(error) if is_one_of(&error, &[SqlState::LOCK_NOT_AVAILABLE]) => {
                transaction.rollback().await?;
                tokio::time::sleep(LOCK_PAUSE).await;
                continue;
            }
            outcome => outcome?,
        }
        let fingerprint = salt_fingerprint.as_str();
        let changed = transaction.execute_typed(ACCEPT_SALT, &[(&fingerprint, Type::TEXT)]).await?;
        transaction.commit().await?;
        return Ok(changed > 0);
    }
    Err(SchemaError::TableInUse)
}
