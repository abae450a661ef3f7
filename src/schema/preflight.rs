//! Checks the database before anything is changed.

use tokio_postgres::Transaction;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{ToSql, Type};

use super::error::{Finding, SchemaError, concerns_server, is_one_of};
use super::trust::Ours;
use super::{history, trust};

const PREFLIGHT: &str = include_str!("preflight.sql");
const COLUMN_TYPES: &str = include_str!("column_types.sql");

/// Returns the warnings: problems that do not prevent a later step.
///
/// # Errors
///
/// [`SchemaError::NotReady`] with every problem that prevents a later step. If another role may have planted objects
/// in the schema, the types of the columns are not checked yet.
pub(super) async fn check(
    transaction: &mut Transaction<'_>,
    schema: &str,
    login_changes: bool,
) -> Result<Vec<Finding>, SchemaError> {
    let mut obstacles = trust::findings(transaction, schema, Ours::Named).await?;
    let is_trusted = obstacles.is_empty();
    // Reading a planted history could run code of its owner.
    let migrations_are_missing = !is_trusted || !history::is_complete(transaction).await?;
    let parameters: [(&(dyn ToSql + Sync), Type); 4] = [
        (&schema, Type::TEXT),
        (&migrations_are_missing, Type::BOOL),
        (&login_changes, Type::BOOL),
        (&is_trusted, Type::BOOL),
    ];
    let mut warnings = Vec::new();
    for row in trust::query_catalog(transaction, PREFLIGHT, &parameters).await? {
        let finding = Finding { problem: row.try_get(1)?, remedy: row.try_get(2)? };
        if row.try_get(0)? { warnings.push(finding) } else { obstacles.push(finding) }
    }
    if is_trusted {
        obstacles.extend(wrong_types(transaction, schema).await?);
    }
    if obstacles.is_empty() { Ok(warnings) } else { Err(SchemaError::NotReady(obstacles)) }
}

/// Finds the columns of an existing table whose type does not accept the values that the writer inserts. Postgres
/// itself decides: an enum, for example, accepts no text, but a domain may.
async fn wrong_types(
    transaction: &mut Transaction<'_>,
    schema: &str,
) -> Result<Vec<Finding>, tokio_postgres::Error> {
    let mut findings = Vec::new();
    for row in transaction.query_typed(COLUMN_TYPES, &[(&schema, Type::TEXT)]).await? {
        let savepoint = transaction.savepoint("column_type").await?;
        match savepoint.batch_execute(row.try_get(0)?).await {
            Err(error) if is_one_of(&error, &[SqlState::DATATYPE_MISMATCH]) => {
                findings.push(Finding { problem: row.try_get(1)?, remedy: row.try_get(2)? });
            }
            Err(error) if error.as_db_error().is_none_or(concerns_server) => return Err(error),
            // The other checks or the proof report any other problem of the table.
            Err(_) | Ok(()) => {}
        }
        savepoint.rollback().await?;
    }
    Ok(findings)
}
