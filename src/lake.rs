//! The schema of the export: the books of the days that are in the lake, and the rights of the role that exports them.
//!
//! The program `export`, a package of its own, reads the logins and keeps the books.

use postgres_protocol::escape::escape_identifier;
use secrecy::SecretString;
use tokio_postgres::Client;
use tokio_postgres::types::Type;

use crate::schema::trust::{self, Ours};
use crate::schema::{self, Finding, SchemaError};

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
    let schema = schema_name(logins_schema);
    let mut transaction = schema::begin(client, logins_schema).await?;
    trust::check(&mut transaction, logins_schema, Ours::Named).await?;
    let parameters =
        [(&schema as _, Type::TEXT), (&logins_schema as _, Type::TEXT), (&MARKER as _, Type::TEXT)];
    let findings = trust::query_catalog(&mut transaction, PREFLIGHT, &parameters).await?;
    if !findings.is_empty() {
        let findings =
            findings.iter().map(|row| Ok(Finding { problem: row.try_get(0)?, remedy: row.try_get(1)? }));
        return Err(SchemaError::NotReady(findings.collect::<Result<_, tokio_postgres::Error>>()?));
    }
    trust::check(&mut transaction, &schema, Ours::All).await?;
    let exists = "SELECT pg_catalog.to_regnamespace(pg_catalog.quote_ident($1)) IS NOT NULL";
    let exists: bool = transaction.query_typed(exists, &[(&schema, Type::TEXT)]).await?[0].try_get(0)?;
    if !exists {
        let quoted = escape_identifier(&schema);
        let create = format!("CREATE SCHEMA {quoted}; COMMENT ON SCHEMA {quoted} IS '{MARKER}'");
        transaction.batch_execute(&create).await?;
    }
    let schemas = [(&schema as _, Type::TEXT), (&logins_schema as _, Type::TEXT)];
    transaction.execute_typed(SET_SCHEMAS, &schemas).await?;
    if !exists {
        transaction.batch_execute(SCHEMA).await?;
        transaction.batch_execute(schema::REVOKE_ALL).await?;
    }
    transaction.batch_execute(CREATE_ROLE).await?;
    transaction.batch_execute(GRANTS).await?;
    Ok(transaction.commit().await?)
}

/// Lets [`EXPORT_LOGIN`] log in with the password; without a password, by IAM.
///
/// # Errors
///
/// [`SchemaError::NoIam`], [`SchemaError::MayNotGrantIam`], [`SchemaError::MayNotRevokeIam`] and
/// [`SchemaError::Postgres`]: nothing was changed.
pub async fn set_export_login(
    client: &mut Client,
    logins_schema: &str,
    password: Option<&SecretString>,
) -> Result<(), SchemaError> {
    let transaction = schema::begin(client, logins_schema).await?;
    transaction.batch_execute(&format!("ALTER ROLE {EXPORT_LOGIN} LOGIN")).await?;
    match password {
        Some(password) => schema::set_password_login(&transaction, EXPORT_LOGIN, password).await?,
        None => schema::grant_iam_login(&transaction, EXPORT_LOGIN).await?,
    }
    Ok(transaction.commit().await?)
}
