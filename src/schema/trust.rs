//! Finds what lets another role act as the role that runs `migrate`: it runs with many rights, and a planted function,
//! table or trigger would run with them.

use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Row, Transaction};

use super::error::{Finding, SchemaError};

const TRUST: &str = include_str!("trust.sql");

/// Which tables and functions of a schema belong to this program.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ours {
    /// Those with our names: users have other tables in the schema of the logins.
    Named,
    /// All, as in the analysts' schema.
    All,
}

/// Returns what gives other roles the rights of this role. Nothing of the schema was read or called.
pub(super) async fn findings(
    transaction: &mut Transaction<'_>,
    schema: &str,
    ours: Ours,
) -> Result<Vec<Finding>, tokio_postgres::Error> {
    let all_are_ours = ours == Ours::All;
    let rows =
        query_catalog(transaction, TRUST, &[(&schema, Type::TEXT), (&all_are_ours, Type::BOOL)]).await?;
    rows.iter().map(|row| Ok(Finding { problem: row.try_get(0)?, remedy: row.try_get(1)? })).collect()
}

/// Checks that there are no findings.
///
/// # Errors
///
/// [`SchemaError::NotReady`] with all findings.
pub(crate) async fn check(
    transaction: &mut Transaction<'_>,
    schema: &str,
    ours: Ours,
) -> Result<(), SchemaError> {
    let findings = findings(transaction, schema, ours).await?;
    if findings.is_empty() { Ok(()) } else { Err(SchemaError::NotReady(findings)) }
}

/// Runs a query in which each bare name is a name of Postgres itself, whatever the schema holds.
pub(crate) async fn query_catalog(
    transaction: &mut Transaction<'_>,
    sql: &str,
    parameters: &[(&(dyn ToSql + Sync), Type)],
) -> Result<Vec<Row>, tokio_postgres::Error> {
    // The rollback restores the search_path.
    let savepoint = transaction.savepoint("catalog").await?;
    savepoint.batch_execute("SET LOCAL search_path TO pg_catalog, pg_temp").await?;
    let rows = savepoint.query_typed(sql, parameters).await?;
    savepoint.rollback().await?;
    Ok(rows)
}
