//! The transactions of `migrate`.

use tokio_postgres::types::Type;
use tokio_postgres::{Client, IsolationLevel, Transaction};

const BEGIN: &str = include_str!("begin.sql");

/// Begins a transaction in which unqualified names refer to the schema. The settings end with the transaction, so
/// that it also works behind a pooler.
pub(crate) async fn begin<'c>(
    client: &'c mut Client,
    schema: &str,
) -> Result<Transaction<'c>, tokio_postgres::Error> {
    let transaction = client
        .build_transaction()
        // A role or database may have other defaults. The history of a run that just ended must be visible.
        .isolation_level(IsolationLevel::ReadCommitted)
        .read_only(false)
        .start()
        .await?;
    transaction.execute_typed(BEGIN, &[(&schema, Type::TEXT)]).await?;
    Ok(transaction)
}
