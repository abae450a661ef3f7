//! Removes the settings with which new sessions of the writer start.

use tokio_postgres::Transaction;
use tokio_postgres::error::SqlState;

use super::error::{Finding, SchemaError, is_one_of};

const WRITER_SETTINGS: &str = include_str!("writer_settings.sql");

/// Removes the settings of the writer's role, and returns a warning for each: an administrator may have set them.
///
/// # Errors
///
/// [`SchemaError::NotReady`] with the statement, if this role may not alter the writer's role.
pub(super) async fn remove(transaction: &Transaction<'_>) -> Result<Vec<Finding>, SchemaError> {
    let mut warnings = Vec::new();
    for row in transaction.query_typed(WRITER_SETTINGS, &[]).await? {
        let (name, removal): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        match transaction.batch_execute(&removal).await {
            Err(error) if is_one_of(&error, &[SqlState::INSUFFICIENT_PRIVILEGE]) => {
                let problem = format!("login_writer has the setting {name}, which it could have set itself");
                return Err(SchemaError::NotReady(vec![Finding { problem, remedy: removal }]));
            }
            outcome => outcome?,
        }
        let problem = format!("login_writer had the setting {name}, which it could have set itself");
        let remedy = "migrate removed it; if you need it, set it for the database".to_owned();
        warnings.push(Finding { problem, remedy });
    }
    Ok(warnings)
}
