//! Copies rows from one connection to another, with new tokens.

use std::pin::pin;

use bytes::Bytes;
use futures_util::{SinkExt, TryStreamExt};
use login::pii::Resalter;
use tokio_postgres::{Client, IsolationLevel, Transaction};

use super::rewriter::{Rewriter, Tokens};
use crate::schema::SchemaError;

/// Rows are sent in messages of about this size. Postgres sends each row in a message of its own.
const MESSAGE_BYTES: usize = 64 * 1024;

const SETTINGS: &str = "
    SET LOCAL search_path TO pg_catalog, pg_temp;
    SET LOCAL row_security = off;
    SET LOCAL statement_timeout = 0;
    SET LOCAL idle_in_transaction_session_timeout = 0;
    SET LOCAL lock_timeout = '60s'";

/// Reads in one snapshot.
pub(super) struct Reader<'c> {
    transaction: Transaction<'c>,
    /// The number of this transaction.
    xid: i64,
    horizon: i64,
}

impl<'c> Reader<'c> {
    pub(super) async fn begin(client: &'c mut Client) -> Result<Self, SchemaError> {
        // Not read-only: it needs a number.
        let builder =
            client.build_transaction().isolation_level(IsolationLevel::RepeatableRead).read_only(false);
        let transaction = builder.start().await?;
        transaction.batch_execute(SETTINGS).await?;
        let select = "
            SELECT pg_current_xact_id()::text::bigint, pg_snapshot_xmin(pg_current_snapshot())::text::bigint";
        let row = transaction.query_typed_one(select, &[]).await?;
        Ok(Self { xid: row.try_get(0)?, horizon: row.try_get(1)?, transaction })
    }

    /// All transactions with a smaller number have ended before the snapshot. This also holds for the numbers of their
    /// savepoints, which a snapshot does not know.
    pub(super) fn horizon(&self) -> i64 {
        self.horizon
    }

    /// Returns the condition of rows that were written by transactions from the number `first`, and before the number
    /// `end`, after ` AND`.
    ///
    /// `xmin` has 32 bits. Its age is its distance from the number of this transaction, which has 64 bits.
    pub(super) fn written(&self, first: Option<i64>, end: Option<i64>) -> String {
        let first = first.map(|first| format!(" AND age(xmin) <= {}", self.xid - first));
        let end = end.map(|end| format!(" AND age(xmin) > {}", self.xid - end));
        [first, end].into_iter().flatten().collect()
    }

    pub(super) async fn end(self) -> Result<(), SchemaError> {
        Ok(self.transaction.commit().await?)
    }
}

/// Copies the rows of the statement `from`, which the reader runs, by the statement `to`. Returns the number of rows, and
/// of values that are no tokens.
pub(super) async fn copy(
    reader: &Reader<'_>,
    from: &str,
    writer: &Transaction<'_>,
    to: &str,
    resalter: &mut Resalter,
    tokens: &Tokens,
) -> Result<(u64, u64), SchemaError> {
    let mut rows = pin!(reader.transaction.copy_out(from).await.map_err(refused)?);
    let mut sink = pin!(writer.copy_in::<_, Bytes>(to).await.map_err(refused)?);
    let mut rewriter = Rewriter::new(resalter, tokens);
    while let Some(bytes) = rows.try_next().await.map_err(refused)? {
        rewriter.push(&bytes);
        if rewriter.pending() >= MESSAGE_BYTES {
            sink.feed(rewriter.take_rows()?).await.map_err(refused)?;
        }
    }
    sink.feed(rewriter.take_rows()?).await.map_err(refused)?;
    let counts = rewriter.finish()?;
    sink.finish().await.map_err(refused)?;
    Ok(counts)
}

/// Postgres's message may quote a row.
fn refused(error: tokio_postgres::Error) -> SchemaError {
    match error.code() {
        Some(code) => SchemaError::Copy { sqlstate: code.code().to_owned() },
        None => error.into(),
    }
}
