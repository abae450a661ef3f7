//! An erasure that is in the erasure list before it is committed.
//!
//! ```text
//! BEGIN ─▶ erase ─▶ note its key ─▶ put the object ─▶ COMMIT
//! ```
//!
//! The list must never lack an erasure that the database has: a restored backup would bring the value back for ever. So
//! the object is written while the transaction is open, which alone knows the tokens of a user and the time. If S3 is
//! away, the transaction ends without effect. If the commit fails after the object was written, the list has an erasure
//! too many, which `migrate` completes at its next run: somebody allowed to has asked for it.

use std::time::Duration;

use login_etl::aws::bucket::BucketError;
use login_etl::deadline::Deadline;
use login_etl::erasures::{Erasure, ErasureList};
use login_etl::store::connect::Connection;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Error, IsolationLevel, Row, Transaction};

/// The time that is left for S3, whose three attempts take 7 s, and for the commit.
const RESERVE: Duration = Duration::from_secs(8);

/// What is written to the list.
pub(super) struct Listing<'l> {
    pub(super) list: &'l ErasureList,
    /// Calls `vault_list`.
    pub(super) note: &'l str,
    pub(super) entry: i64,
    pub(super) never_again: bool,
    pub(super) with_rows: bool,
}

/// Why nothing was erased, or may not have been.
pub(super) enum NotListed {
    /// Postgres refused a statement, or the connection ended.
    Refused(Error),
    /// Nothing came in time, before the object was written.
    Late,
    /// An answer has an unexpected type.
    Unreadable,
    /// S3 did not write the object.
    NotPut(BucketError),
    /// Postgres did not answer to the commit.
    MaybeCommitted,
}

impl From<Error> for NotListed {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

/// Erases with a statement. `read` returns the result, and the tokens for the list; without tokens, nothing was erased.
pub(super) async fn erase<E>(
    connection: &mut Connection,
    statement: &str,
    parameters: &[(&(dyn ToSql + Sync), Type)],
    listing: &Listing<'_>,
    read: impl Fn(&Row) -> Option<(E, Vec<String>)>,
    deadline: Deadline,
) -> Result<E, NotListed> {
    let begin = connection.client_mut().build_transaction();
    let begin = begin.isolation_level(IsolationLevel::ReadCommitted).read_only(false).start();
    let transaction = deadline.timeout(begin).await.map_err(|_| NotListed::Late)??;

    let work = async || -> Result<E, NotListed> {
        limit(&transaction, deadline.left().saturating_sub(RESERVE)).await?;
        let row = transaction.query_typed_one(statement, parameters).await?;
        let (erased, tokens) = read(&row).ok_or(NotListed::Unreadable)?;
        if !tokens.is_empty() {
            put(&transaction, tokens, listing).await?;
        }
        Ok(erased)
    };
    let erased = deadline.timeout(Box::pin(work())).await.map_err(|_| NotListed::Late)??;
    match deadline.timeout(transaction.commit()).await {
        Ok(Ok(())) => Ok(erased),
        _ => Err(NotListed::MaybeCommitted),
    }
}

/// Lets Postgres itself end a statement that takes too long: nothing would end it otherwise.
async fn limit(transaction: &Transaction<'_>, time: Duration) -> Result<(), Error> {
    let time_ms = time.as_millis().max(1);
    transaction.batch_execute(&format!("SET LOCAL statement_timeout = {time_ms}")).await
}

async fn put(
    transaction: &Transaction<'_>,
    tokens: Vec<String>,
    Listing { list, note, entry, never_again, with_rows }: &Listing<'_>,
) -> Result<(), NotListed> {
    let parameters: [(&(dyn ToSql + Sync), Type); 2] = [(entry, Type::INT8), (&tokens, Type::TEXT_ARRAY)];
    let row = transaction.query_typed_one(*note, &parameters).await?;
    let read = || Some((row.try_get(0).ok()?, row.try_get(1).ok()?, row.try_get(2).ok()?));
    let (key, erased_at, salt_fingerprint): (String, String, Option<String>) =
        read().ok_or(NotListed::Unreadable)?;
    let erasure = Erasure::new(erased_at, tokens, *never_again, *with_rows, salt_fingerprint);
    list.put(&key, &erasure).await.map_err(NotListed::NotPut)
}
