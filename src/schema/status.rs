//! Reads the state of the schema, for the person on call.

use serde::Serialize;
use tokio_postgres::Transaction;

use super::error::SchemaError;
use super::trust::Ours;
use super::{history, trust};

const FIND_ACCEPTED_SALT: &str = "SELECT pg_catalog.to_regclass('salt_fingerprint') IS NOT NULL";
const ACCEPTED_SALT: &str = include_str!("accepted_salt.sql");

/// The state of the schema.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SchemaStatus {
    /// The number of the newest migration that was applied; `None` before the first.
    pub version: Option<i32>,
    /// The number of the newest migration of this program.
    pub newest_version: Option<i32>,
    /// The salt that the rows are masked with; `None` before the first row.
    pub accepted_salt: Option<AcceptedSalt>,
}

/// The salt that the database accepts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AcceptedSalt {
    /// The fingerprint of the salt.
    pub fingerprint: String,
    /// When the salt was accepted, in UTC, as RFC 3339 says.
    pub accepted_at: String,
}

/// Reads the state, but nothing that another role may have planted.
pub(super) async fn read(
    transaction: &mut Transaction<'_>,
    schema: &str,
) -> Result<SchemaStatus, SchemaError> {
    trust::check(transaction, schema, Ours::Named).await?;
    let version = history::newest_applied(transaction).await?;
    let accepted_salt = accepted_salt(transaction).await?;
    Ok(SchemaStatus { version, newest_version: history::newest_known(), accepted_salt })
}

/// Returns the accepted salt; `None` before the first row. The caller has made sure that nobody planted the table.
pub(crate) async fn accepted_salt(
    transaction: &Transaction<'_>,
) -> Result<Option<AcceptedSalt>, tokio_postgres::Error> {
    if !transaction.query_typed(FIND_ACCEPTED_SALT, &[]).await?[0].try_get::<_, bool>(0)? {
        return Ok(None);
    }
    let rows = transaction.query_typed(ACCEPTED_SALT, &[]).await?;
    let accepted_salt = rows
        .first()
        .map(|row| Ok(AcceptedSalt { fingerprint: row.try_get(0)?, accepted_at: row.try_get(1)? }));
    accepted_salt.transpose()
}
