//! The schema of the export: the books of the days that are in the lake, and the rights of the role that exports them.
//!
//! The program `export`, a package of its own, reads the logins and keeps the books.

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use crate::schema::beside::Beside;
use crate::schema::{self, RoleLogin, SchemaError};

const PREFLIGHT: &str = include_str!("lake/preflight.sql");
const SCHEMA: &str = include_str!("lake/schema.sql");
const CREATE_ROLE: &str = include_str!("lake/create_role.sql");
const GRANTS: &str = include_str!("lake/grants.sql");

/// The role of the export.
pub const EXPORT_LOGIN: &str = "login_export";

/// The comment of the schema, by which the programs recognise it.
pub const MARKER: &str = "login-etl lake, version 1";

/// Makes bare names refer to the export's schema $1, then to the schema of the logins $2, whose name the grants read from
/// a setting.
const SET_SCHEMAS: &str = "
    SELECT pg_catalog.set_config('search_path', pg_catalog.format('%I, %I, pg_temp', $1, $2), true),
        pg_catalog.set_config('login_etl.logins_schema', $2, true)";

/// Returns the name of the export's schema that belongs to the schema of the logins.
#[must_use]
pub fn schema_name(logins_schema: &str) -> String {
    if logins_schema == "public" { "lake".to_owned() } else { format!("{logins_schema}_lake") }
}

/// Creates the export's schema beside the schema of the logins and the role [`EXPORT_LOGIN`], if they do not exist, and
/// grants the role the rights that it lacks.
///
/// # Errors
///
/// [`SchemaError::NotReady`] if a schema of this name exists that this program has not made, if a right is missing, or
/// if the lake would show rows that are hidden in the table; and [`SchemaError::Postgres`]. Nothing was changed.
pub async fn create(client: &mut Client, logins_schema: &str) -> Result<(), SchemaError> {
    let schema = Beside { name: &schema_name(logins_schema), marker: MARKER, preflight: PREFLIGHT };
    let mut transaction = schema::begin(client, logins_schema).await?;
    let is_new = schema.create(&mut transaction, logins_schema).await?;
    let schemas = [(&schema.name as _, Type::TEXT), (&logins_schema as _, Type::TEXT)];
    transaction.execute_typed(SET_SCHEMAS, &schemas).await?;
    if is_new {
        transaction.batch_execute(SCHEMA).await?;
        transaction.batch_execute(schema::REVOKE_ALL).await?;
    }
    transaction.batch_execute(CREATE_ROLE).await?;
    transaction.batch_execute(GRANTS).await?;
    Ok(transaction.commit().await?)
}

/// Lets [`EXPORT_LOGIN`] log in.
///
/// # Errors
///
/// [`SchemaError::NoIam`], [`SchemaError::MayNotGrantIam`], [`SchemaError::MayNotRevokeIam`] and
/// [`SchemaError::Postgres`]: nothing was changed.
pub async fn set_export_login(
    client: &mut Client,
    logins_schema: &str,
    login: &RoleLogin,
) -> Result<(), SchemaError> {
    let transaction = schema::begin(client, logins_schema).await?;
    transaction.batch_execute(&format!("ALTER ROLE {EXPORT_LOGIN} LOGIN")).await?;
    schema::set_login(&transaction, EXPORT_LOGIN, login).await?;
    Ok(transaction.commit().await?)
}
