//! The vault in the database: its current key, the login of the broker, and the fold.
//!
//! Migration V11 has the tables and the functions. They stay empty unless `migrate` has the setting `VAULT_PUBLIC_KEY`.

use std::time::{Duration, Instant};

use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Transaction};

use super::error::{Finding, SchemaError, is_one_of};
use super::role_login::{RoleLogin, set_login};
use super::session::begin;
use super::trust::{self, Ours};
use crate::config::VaultPublicKey;
use crate::deadline::Deadline;

pub mod replay;

const PREFLIGHT: &str = include_str!("vault/preflight.sql");
const CREATE_ROLE: &str = include_str!("vault/create_role.sql");
const GRANTS: &str = include_str!("vault/grants.sql");
const ACCEPT_KEY: &str = include_str!("vault/accept_key.sql");

/// Two runs take turns. Batches and the broker only read the table, and do not wait.
const LOCK_OUT_RUNS: &str = "LOCK TABLE vault_keys IN SHARE ROW EXCLUSIVE MODE";
const CURRENT_KEY: &str = "SELECT public_key FROM vault_keys WHERE is_current";
const END_OTHER_KEYS: &str =
    "UPDATE vault_keys SET is_current = false WHERE is_current AND public_key OPERATOR(pg_catalog.<>) $1";
const SET_KMS_KEY: &str =
    "UPDATE vault_keys SET kms_key = $1 WHERE is_current AND kms_key OPERATOR(pg_catalog.<>) $1";
const FOLD: &str = "SELECT vault_fold($1)";
const INBOX: &str = "
    SELECT pg_catalog.count(*),
        coalesce(extract(epoch FROM pg_catalog.now() - pg_catalog.min(written_at)), 0)::float8
    FROM vault_inbox";

/// The role of the broker.
pub const VAULT_LOGIN: &str = "login_vault";

/// Number of rows that a step of the fold moves. With 80 values in each, Postgres still sorts them in memory.
pub const ROWS_PER_STEP: i32 = 2_500;

/// The result of [`fold`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Folded {
    /// Number of rows that were moved out of the inbox. A body of more than 8,000 bytes counts as several.
    pub rows: u64,
    /// Number of rows that are left for the next fold.
    pub rows_left: u64,
    /// The age of the oldest row that is left.
    pub oldest: Duration,
}

/// Creates the role [`VAULT_LOGIN`], if it does not exist, and grants it the rights that it lacks. Pins the key, if no
/// key is pinned yet, and returns whether it did.
///
/// # Errors
///
/// [`SchemaError::VaultKeyChanged`] if another key is pinned, [`SchemaError::NotReady`] if the vault could not work, and
/// [`SchemaError::Postgres`]. Nothing was changed.
pub async fn create(
    client: &mut Client,
    logins_schema: &str,
    key: &VaultPublicKey,
    kms_key: &str,
) -> Result<bool, SchemaError> {
    let mut transaction = begin(client, logins_schema).await?;
    trust::check(&mut transaction, logins_schema, Ours::Named).await?;
    let rows = trust::query_catalog(&mut transaction, PREFLIGHT, &[(&logins_schema, Type::TEXT)]).await?;
    if !rows.is_empty() {
        let findings =
            rows.iter().map(|row| Ok(Finding { problem: row.try_get(0)?, remedy: row.try_get(1)? }));
        return Err(SchemaError::NotReady(findings.collect::<Result<_, tokio_postgres::Error>>()?));
    }
    transaction.batch_execute(CREATE_ROLE).await?;
    transaction.batch_execute(GRANTS).await?;
    transaction.batch_execute(LOCK_OUT_RUNS).await?;
    let current = transaction.query_typed(CURRENT_KEY, &[]).await?;
    let is_new = match current.first() {
        None => set_current(&transaction, key, kms_key).await?,
        Some(row) if row.try_get::<_, &[u8]>(0)? == key.spki() => {
            transaction.execute_typed(SET_KMS_KEY, &[(&kms_key, Type::TEXT)]).await?;
            false
        }
        Some(_) => return Err(SchemaError::VaultKeyChanged),
    };
    transaction.commit().await?;
    Ok(is_new)
}

/// Makes a key the current key, and returns whether it was not. From then on the database refuses batches that are
/// sealed to another key. Values of an older key stay readable as long as its KMS key exists.
///
/// # Errors
///
/// [`SchemaError::NotReady`] if another role could act as this role, and [`SchemaError::Postgres`].
pub async fn accept_key(
    client: &mut Client,
    logins_schema: &str,
    key: &VaultPublicKey,
    kms_key: &str,
) -> Result<bool, SchemaError> {
    let mut transaction = begin(client, logins_schema).await?;
    trust::check(&mut transaction, logins_schema, Ours::Named).await?;
    transaction.batch_execute(LOCK_OUT_RUNS).await?;
    let changed = set_current(&transaction, key, kms_key).await?;
    transaction.execute_typed(SET_KMS_KEY, &[(&kms_key, Type::TEXT)]).await?;
    transaction.commit().await?;
    Ok(changed)
}

/// Moves the rows of the inbox into the table of sealed values, the oldest first, until the inbox is empty or the
/// deadline is near. Each step is one transaction. Batches and the broker do not wait for it; another fold or an
/// erasure does.
///
/// # Errors
///
/// [`SchemaError::Busy`] if another fold or an erasure does not end in time, [`SchemaError::NotReady`] if another role
/// could act as this role, and [`SchemaError::Postgres`]. The steps that were committed before are kept.
pub async fn fold(
    client: &mut Client,
    logins_schema: &str,
    rows_per_step: i32,
    deadline: Deadline,
) -> Result<Folded, SchemaError> {
    let mut folded = Folded::default();
    loop {
        let started = Instant::now();
        let rows;
        (rows, folded.rows_left, folded.oldest) = step(client, logins_schema, rows_per_step).await?;
        folded.rows += rows;
        let elapsed = started.elapsed();
        tracing::info!(
            rows,
            rows_left = folded.rows_left,
            elapsed_ms = elapsed.as_millis(),
            "rows of the vault folded"
        );
        // The next step may take longer than this step. The few rows that batches wrote meanwhile can wait.
        if rows < rows_per_step.unsigned_abs().into() || deadline.left() < elapsed * 2 {
            return Ok(folded);
        }
    }
}

/// Lets [`VAULT_LOGIN`] log in.
///
/// # Errors
///
/// [`SchemaError::NoIam`], [`SchemaError::MayNotGrantIam`], [`SchemaError::MayNotRevokeIam`] and
/// [`SchemaError::Postgres`]: nothing was changed.
pub async fn set_vault_login(
    client: &mut Client,
    logins_schema: &str,
    login: &RoleLogin,
) -> Result<(), SchemaError> {
    let transaction = begin(client, logins_schema).await?;
    transaction.batch_execute(&format!("ALTER ROLE {VAULT_LOGIN} LOGIN")).await?;
    set_login(&transaction, VAULT_LOGIN, login).await?;
    Ok(transaction.commit().await?)
}

async fn set_current(
    transaction: &Transaction<'_>,
    key: &VaultPublicKey,
    kms_key: &str,
) -> Result<bool, tokio_postgres::Error> {
    let spki = key.spki();
    transaction.execute_typed(END_OTHER_KEYS, &[(&spki, Type::BYTEA)]).await?;
    let parameters = [(&spki as _, Type::BYTEA), (&kms_key as _, Type::TEXT)];
    Ok(transaction.execute_typed(ACCEPT_KEY, &parameters).await? > 0)
}

/// Moves some rows. Returns their number, the number of the rows that are left, and the age of the oldest.
async fn step(
    client: &mut Client,
    logins_schema: &str,
    rows_per_step: i32,
) -> Result<(u64, u64, Duration), SchemaError> {
    let mut transaction = begin(client, logins_schema).await?;
    trust::check(&mut transaction, logins_schema, Ours::Named).await?;
    let rows = match transaction.query_typed_one(FOLD, &[(&rows_per_step, Type::INT4)]).await {
        Err(error) if is_one_of(&error, &[SqlState::LOCK_NOT_AVAILABLE]) => return Err(SchemaError::Busy),
        row => row?.try_get::<_, i64>(0)?.unsigned_abs(),
    };
    let inbox = transaction.query_typed_one(INBOX, &[]).await?;
    let rows_left = inbox.try_get::<_, i64>(0)?.unsigned_abs();
    let oldest = Duration::try_from_secs_f64(inbox.try_get(1)?).unwrap_or_default();
    transaction.commit().await?;
    Ok((rows, rows_left, oldest))
}
