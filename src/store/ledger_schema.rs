//! Finds the schema that has the functions, if `DATABASE_SCHEMA` names another schema.

use tokio_postgres::error::SqlState;

use super::connect::Connection;
use super::error::StoreError;

const FIND_SCHEMAS: &str = "
    SELECT DISTINCT nspname::text FROM pg_proc JOIN pg_namespace ON pg_namespace.oid = pronamespace
    WHERE proname = 'write_logins'
    ORDER BY 1";

/// Returns a clearer error if Postgres refused the statement because the schema in `DATABASE_SCHEMA` lacks the
/// function.
pub(super) async fn explain(connection: &Connection, error: &StoreError) -> Option<StoreError> {
    let StoreError::StatementRefused { sqlstate } = error else { return None };
    let is_not_found = [SqlState::UNDEFINED_FUNCTION, SqlState::INVALID_SCHEMA_NAME].contains(sqlstate);
    if !is_not_found && *sqlstate != SqlState::INSUFFICIENT_PRIVILEGE {
        return None;
    }
    let rows = connection.client().query_typed(FIND_SCHEMAS, &[]).await.ok()?;
    let schemas: Vec<&str> = rows.iter().filter_map(|row| row.try_get(0).ok()).collect();
    if schemas.contains(&connection.schema()) || (schemas.is_empty() && !is_not_found) {
        return None;
    }
    Some(StoreError::FunctionMissing {
        schema: connection.schema().to_owned(),
        ledger_schema: schemas.first().map(|&schema| schema.to_owned()),
        sqlstate: sqlstate.clone(),
    })
}
