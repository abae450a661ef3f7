//! Proves that the writer can write: writes a generated login with the writer's rights, and rolls this write back.

use tokio_postgres::Transaction;
use tokio_postgres::error::{DbError, SqlState};

use super::error::{Finding, SchemaError, concerns_server, is_one_of, postgres_reason};

const PROOF_WITHOUT_ROWS: &str = include_str!("proof_without_rows.sql");
const PROOF: &str = include_str!("proof.sql");

/// The `search_path` is reset, so that names resolve as in the writer's own session.
const BECOME_WRITER: &str = "SET LOCAL ROLE login_writer; SET LOCAL search_path TO DEFAULT";
/// A role that may create roles can also make itself a member of the writer's role. The rollback of the proof ends
/// this membership.
const JOIN_AND_BECOME_WRITER: &str =
    "GRANT login_writer TO CURRENT_USER; SET LOCAL ROLE login_writer; SET LOCAL search_path TO DEFAULT";

const NAME_REMEDY: &str = "SELECT format('GRANT login_writer TO %I', current_user)";

/// Functions in the source of Postgres that raise the errors that users define: `RAISE` and `ASSERT` of a trigger,
/// and the policies of a table.
const RAISED_BY_USERS: [&str; 3] = ["exec_stmt_raise", "exec_stmt_assert", "ExecWithCheckOptions"];

/// The class of SQLSTATEs for a missing object, a wrong type or a missing privilege.
const SYNTAX_ERROR_OR_ACCESS_RULE_VIOLATION: &str = "42";

/// Writes a generated login as `login_writer`, and rolls it back: rows, ledger and salt stay as they are. Only
/// sequences advance.
///
/// Returns a warning if the proof is not possible, or if Postgres refuses the generated row but may accept other
/// rows.
///
/// # Errors
///
/// [`SchemaError::NotReady`] if no row can be written.
pub(super) async fn prove(
    transaction: &mut Transaction<'_>,
    quoted_schema: &str,
) -> Result<Option<Finding>, SchemaError> {
    let mut proof = transaction.savepoint("proof").await?;
    let outcome = match become_writer(&mut proof).await {
        Ok(true) => write(&proof, quoted_schema).await,
        Ok(false) => not_tried(&proof).await.map(Some).map_err(SchemaError::from),
        Err(error) => Err(error.into()),
    };
    let rolled_back = proof.rollback().await;
    let finding = outcome?;
    rolled_back?;
    Ok(finding)
}

/// Whether this role may act as the writer.
async fn become_writer(proof: &mut Transaction<'_>) -> Result<bool, tokio_postgres::Error> {
    for statements in [BECOME_WRITER, JOIN_AND_BECOME_WRITER] {
        let savepoint = proof.savepoint("role").await?;
        match savepoint.batch_execute(statements).await {
            Ok(()) => {
                savepoint.commit().await?;
                return Ok(true);
            }
            Err(error) if is_one_of(&error, &[SqlState::INSUFFICIENT_PRIVILEGE]) => {
                savepoint.rollback().await?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}

async fn not_tried(proof: &Transaction<'_>) -> Result<Finding, tokio_postgres::Error> {
    let row = proof.query_typed_one(NAME_REMEDY, &[]).await?;
    let problem = "whether login_writer can write was not tried, because migrate may not act as this role";
    Ok(Finding { problem: problem.to_owned(), remedy: row.try_get(0)? })
}

async fn write(proof: &Transaction<'_>, quoted_schema: &str) -> Result<Option<Finding>, SchemaError> {
    let execute = async |sql: &str| proof.batch_execute(&sql.replace(":schema", quoted_schema)).await;
    if let Err(error) = execute(PROOF_WITHOUT_ROWS).await {
        // A trigger of the whole statement may refuse even no rows.
        return refused_or_not_ready(&error, is_raised_by_user);
    }
    match execute(PROOF).await {
        Ok(()) => Ok(None),
        Err(error) => refused_or_not_ready(&error, concerns_row),
    }
}

fn refused_or_not_ready(
    error: &tokio_postgres::Error,
    concerns_row: fn(&DbError) -> bool,
) -> Result<Option<Finding>, SchemaError> {
    match error.as_db_error() {
        Some(refusal) if concerns_row(refusal) => Ok(Some(refused(refusal))),
        _ => Err(not_ready(error)),
    }
}

/// Whether Postgres may accept other rows although it refuses this row.
fn concerns_row(refusal: &DbError) -> bool {
    let is_of_statement = refusal.code().code().starts_with(SYNTAX_ERROR_OR_ACCESS_RULE_VIOLATION);
    is_raised_by_user(refusal) || !(is_of_statement || concerns_server(refusal))
}

fn is_raised_by_user(refusal: &DbError) -> bool {
    refusal.routine().is_some_and(|routine| RAISED_BY_USERS.contains(&routine))
}

fn not_ready(error: &tokio_postgres::Error) -> SchemaError {
    let remedy = match error.as_db_error() {
        Some(refusal) if concerns_server(refusal) => return SchemaError::Postgres(postgres_reason(error)),
        None => return SchemaError::Postgres(postgres_reason(error)),
        Some(refusal) if *refusal.code() == SqlState::INSUFFICIENT_PRIVILEGE => {
            "grant login_writer this privilege"
        }
        Some(_) => "repair the trigger, the default or the table that needs it",
    };
    let problem = format!("login_writer cannot write a row: {}", postgres_reason(error));
    SchemaError::NotReady(vec![Finding { problem, remedy: remedy.to_owned() }])
}

/// The text of an error that a user defined is dropped, because it may quote rows.
fn refused(refusal: &DbError) -> Finding {
    let constraint = refusal.constraint().map(|name| format!(", constraint {name}")).unwrap_or_default();
    Finding {
        problem: format!(
            "user_logins refuses a generated row, SQLSTATE {}{constraint}",
            refusal.code().code()
        ),
        remedy: "check that it accepts the rows of real logins".to_owned(),
    }
}
