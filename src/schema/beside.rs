//! Schemas beside the schema of the logins: a setting makes `migrate` create them.

use postgres_protocol::escape::escape_identifier;
use tokio_postgres::Transaction;
use tokio_postgres::types::Type;

use super::error::{Finding, SchemaError};
use super::trust::{self, Ours};

const PREFLIGHT: &str = include_str!("beside/preflight.sql");

/// A schema beside the schema of the logins.
pub(crate) struct Beside<'s> {
    /// The name.
    pub(crate) name: &'s str,
    /// The comment, by which the programs recognise the schema.
    pub(crate) marker: &'static str,
    /// Returns what else prevents the schema `$1` beside the schema `$2` of the logins, each with its remedy.
    pub(crate) preflight: &'static str,
}

impl Beside<'_> {
    /// Creates the schema, without objects. Returns whether it is new.
    ///
    /// # Errors
    ///
    /// [`SchemaError::NotReady`] if a schema of this name exists that this program has not made, or for a finding of the
    /// preflight; and [`SchemaError::Postgres`].
    pub(crate) async fn create(
        &self,
        transaction: &mut Transaction<'_>,
        logins_schema: &str,
    ) -> Result<bool, SchemaError> {
        let Self { name, marker, preflight } = self;
        trust::check(transaction, logins_schema, Ours::Named).await?;
        let names = [(name as _, Type::TEXT), (&logins_schema as _, Type::TEXT)];
        let of_all = [(name as _, Type::TEXT), (marker as _, Type::TEXT)];
        let mut findings = trust::query_catalog(transaction, PREFLIGHT, &of_all).await?;
        findings.extend(trust::query_catalog(transaction, preflight, &names).await?);
        if !findings.is_empty() {
            let findings =
                findings.iter().map(|row| Ok(Finding { problem: row.try_get(0)?, remedy: row.try_get(1)? }));
            return Err(SchemaError::NotReady(findings.collect::<Result<_, tokio_postgres::Error>>()?));
        }
        trust::check(transaction, name, Ours::All).await?;
        let exists = "SELECT pg_catalog.to_regnamespace(pg_catalog.quote_ident($1)) IS NOT NULL";
        if transaction.query_typed(exists, &[(name, Type::TEXT)]).await?[0].try_get(0)? {
            return Ok(false);
        }
        let quoted = escape_identifier(name);
        let create = format!("CREATE SCHEMA {quoted}; COMMENT ON SCHEMA {quoted} IS '{marker}'");
        transaction.batch_execute(&create).await?;
        Ok(true)
    }
}

/// Whether a schema of this name exists that this program has made.
pub(crate) async fn exists(transaction: &Transaction<'_>, name: &str) -> Result<bool, tokio_postgres::Error> {
    let select = "SELECT FROM pg_namespace
                  WHERE nspname = $1 AND starts_with(obj_description(oid, 'pg_namespace'), 'login-etl ')";
    Ok(!transaction.query_typed(select, &[(&name, Type::TEXT)]).await?.is_empty())
}
