//! An erasure that is in the erasure list before it is committed.
//!
//! ```text
//! BEGIN ─▶ erase ─▶ note its key ─▶ put the object ─▶ erase in the rows; COMMIT
//! ```
//!
//! The list must never lack an erasure that the database has: a restored backup would bring the value back for ever. So
//! the object is written while the transaction is open, which alone knows the tokens of a user and the time. If S3 is
//! away, the transaction ends without effect. If it fails after the object was written, the list has an erasure too many,
//! which `migrate` completes at its next run: somebody allowed to has asked for it.
//!
//! The last step may read a large table for longer than the caller waits. Postgres then goes on by itself: it has the
//! commit already.

use std::time::Duration;

use login_etl::aws::bucket::BucketError;
use login_etl::deadline::Deadline;
use login_etl::erasures::{Erasure, ErasureList};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Error, Row, SimpleQueryMessage};

const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE";
/// The time that is left for S3, whose three attempts take 7 s, and for the rest.
const RESERVE: Duration = Duration::from_secs(8);

/// What is written to the list.
pub(super) struct Listing<'l> {
    pub(super) list: &'l ErasureList,
    /// Calls `vault_list`.
    pub(super) note: &'l str,
    /// The quoted name of the schema of the functions.
    pub(super) schema: &'l str,
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
    /// The list has the erasure. Postgres may have it, or has it soon, or at the next run of `migrate`.
    Unfinished,
}

impl From<Error> for NotListed {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

/// Erases with a statement that leaves the rows as they are, and then in the rows, if asked for. `read` returns the
/// result of the statement, and the tokens; without tokens, nothing was erased. Also returns the number of rows.
///
/// The caller must close the connection after an error: a transaction may be open.
pub(super) async fn erase<E>(
    client: &Client,
    statement: &str,
    parameters: &[(&(dyn ToSql + Sync), Type)],
    listing: &Listing<'_>,
    read: impl Fn(&Row) -> Option<(E, Vec<String>)>,
    deadline: Deadline,
) -> Result<(E, i64), NotListed> {
    let begin = async || -> Result<_, NotListed> {
        // Postgres itself ends a statement that takes too long: nothing else would.
        let time_ms = deadline.left().saturating_sub(RESERVE).as_millis().max(1);
        client.batch_execute(&format!("{BEGIN}; SET LOCAL statement_timeout = {time_ms}")).await?;
        let row = client.query_typed_one(statement, parameters).await?;
        let (erased, tokens) = read(&row).ok_or(NotListed::Unreadable)?;
        if !tokens.is_empty() {
            put(client, tokens.clone(), listing).await?;
        }
        Ok((erased, tokens))
    };
    let (erased, tokens) = deadline.timeout(Box::pin(begin())).await.map_err(|_| NotListed::Late)??;
    let rows = deadline.timeout(finish(client, &tokens, listing)).await;
    Ok((erased, rows.ok().flatten().ok_or(NotListed::Unfinished)?))
}

/// Writes the object.
async fn put(
    client: &Client,
    tokens: Vec<String>,
    Listing { list, note, entry, never_again, with_rows, .. }: &Listing<'_>,
) -> Result<(), NotListed> {
    let parameters: [(&(dyn ToSql + Sync), Type); 2] = [(entry, Type::INT8), (&tokens, Type::TEXT_ARRAY)];
    let row = client.query_typed_one(note, &parameters).await?;
    let read = || Some((row.try_get(0).ok()?, row.try_get(1).ok()?, row.try_get(2).ok()?));
    let (key, erased_at, salt_fingerprint): (String, String, Option<String>) =
        read().ok_or(NotListed::Unreadable)?;
    let erasure = Erasure::new(erased_at, tokens, *never_again, *with_rows, salt_fingerprint);
    list.put(&key, &erasure).await.map_err(NotListed::NotPut)
}

/// Erases in the rows, and commits, in one message. Returns the number of rows.
async fn finish(
    client: &Client,
    tokens: &[String],
    Listing { schema, entry, with_rows, .. }: &Listing<'_>,
) -> Option<i64> {
    if !with_rows || tokens.is_empty() {
        return client.batch_execute("COMMIT").await.ok().map(|()| 0);
    }
    // The tokens are hexadecimal digits that Postgres returned.
    let tokens = tokens.join(",");
    let statements = format!(
        "SET LOCAL statement_timeout = 0; SELECT {schema}.vault_erase_rows({entry}, '{{{tokens}}}'); COMMIT"
    );
    let messages = client.simple_query(&statements).await.ok()?;
    messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0)?.parse().ok(),
        _ => None,
    })
}
