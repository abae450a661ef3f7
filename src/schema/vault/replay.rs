//! Repeats the erasures of the erasure list that the database does not have: those after the backup that was restored,
//! and those that the vault wrote to the list and could not commit.

use futures_util::stream::{self, StreamExt};
use serde_json::{Value, json};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

use super::super::error::{SchemaError, is_one_of};
use super::super::session::begin;
use super::super::trust::{self, Ours};
use crate::aws::bucket::BucketError;
use crate::deadline::Deadline;
use crate::erasures::{Erasure, ErasureList, Unreadable};

const FIND_UNKNOWN: &str = include_str!("find_unlisted.sql");
const REPLAY: &str =
    "SELECT erasures, tokens, rows, of_other_salts FROM vault_replay($1::pg_catalog.text::pg_catalog.jsonb)";

/// Number of objects that are read at the same time.
const CONCURRENT_READS: usize = 16;
/// How many keys a problem names.
const NAMED_KEYS: usize = 10;

/// What was replayed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Number of objects of the list.
    pub listed: u64,
    /// Number of erasures that the database did not have.
    pub erasures: u64,
    /// Number of tokens whose values were erased.
    pub tokens: u64,
    /// Number of rows that lost a token.
    pub rows: u64,
    /// The objects that were left out.
    pub left: Vec<LeftOut>,
}

/// An object that was not replayed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {reason}")]
pub struct LeftOut {
    /// Its key.
    pub key: String,
    /// Why.
    pub reason: NotReplayed,
}

/// Why an object was not replayed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotReplayed {
    /// The tokens are of another salt than the database accepts, so they say nothing here.
    #[error("its tokens are of another salt than the database accepts: run resalt first")]
    OtherSalt,
    /// Its content is no erasure.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    /// S3 did not return it.
    #[error(transparent)]
    NotReturned(#[from] BucketError),
}

/// Why the list was not replayed, or not all of it.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// S3 does not return the keys.
    #[error("VAULT_ERASURE_BUCKET: {0}")]
    List(#[from] BucketError),
    /// The database did not do its part.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// The time is over. What was replayed stays.
    #[error("the time is over, and more of the erasure list is to be replayed: run it again")]
    TimeOver,
    /// Objects were left out. The others were replayed.
    #[error("{} erasures were not replayed: {}", .0.len(), named(.0))]
    LeftOut(Vec<LeftOut>),
}

impl Replayed {
    /// # Errors
    ///
    /// [`ReplayError::LeftOut`] if an object was left out.
    pub fn complete(self) -> Result<Self, ReplayError> {
        if self.left.is_empty() { Ok(self) } else { Err(ReplayError::LeftOut(self.left)) }
    }
}

/// Repeats the erasures that the database does not have, at most 1,000 in a transaction. Run it before a fold: a folded
/// value no longer says when it was written, and a value from after its erasure must stay.
///
/// # Errors
///
/// [`ReplayError`], but never [`ReplayError::LeftOut`]: the result names what was left out. The transactions that were
/// committed before are kept.
pub async fn replay(
    client: &mut Client,
    logins_schema: &str,
    list: &ErasureList,
    deadline: Deadline,
) -> Result<Replayed, ReplayError> {
    let mut replayed = Replayed::default();
    let mut after = String::new();
    loop {
        let page = list.keys(&after).await?;
        replayed.listed += u64::try_from(page.keys.len()).unwrap_or(u64::MAX);
        if let Some(last) = page.keys.last() {
            after.clone_from(last);
        }
        let unknown = unknown(client, logins_schema, &page.keys).await?;
        let erasures = read(list, unknown, &mut replayed).await;
        if !erasures.is_empty() {
            step(client, logins_schema, &erasures, &mut replayed).await?;
        }
        if !page.has_more {
            return Ok(replayed);
        }
        if deadline.left().is_zero() {
            return Err(ReplayError::TimeOver);
        }
    }
}

/// Returns the keys whose erasures the database does not have.
async fn unknown(
    client: &mut Client,
    logins_schema: &str,
    keys: &[String],
) -> Result<Vec<String>, SchemaError> {
    let mut transaction = begin(client, logins_schema).await?;
    trust::check(&mut transaction, logins_schema, Ours::Named).await?;
    let rows = transaction.query_typed(FIND_UNKNOWN, &[(&keys, Type::TEXT_ARRAY)]).await?;
    Ok(rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?)
}

/// Reads objects. Returns the erasures as `vault_replay` expects them.
async fn read(list: &ErasureList, keys: Vec<String>, replayed: &mut Replayed) -> Vec<Value> {
    let read_one = async |key: String| {
        let erasure = match list.get(&key).await {
            Ok(content) => Erasure::read(&content).map_err(NotReplayed::from),
            Err(error) => Err(error.into()),
        };
        (key, erasure)
    };
    let objects: Vec<_> = stream::iter(keys).map(read_one).buffered(CONCURRENT_READS).collect().await;
    let mut erasures = Vec::with_capacity(objects.len());
    for (key, erasure) in objects {
        match erasure {
            Ok(Erasure { erased_at, tokens, never_again, rows, salt_fingerprint, .. }) => {
                erasures.push(json!({
                    "object_key": key, "erased_at": erased_at, "tokens": tokens, "never_again": never_again,
                    "rows": rows, "salt_fingerprint": salt_fingerprint,
                }));
            }
            Err(reason) => replayed.left.push(LeftOut { key, reason }),
        }
    }
    erasures
}

/// Replays erasures in one transaction.
async fn step(
    client: &mut Client,
    logins_schema: &str,
    erasures: &[Value],
    replayed: &mut Replayed,
) -> Result<(), SchemaError> {
    let erasures = Value::from(erasures).to_string();
    let mut transaction = begin(client, logins_schema).await?;
    trust::check(&mut transaction, logins_schema, Ours::Named).await?;
    let row = match transaction.query_typed_one(REPLAY, &[(&erasures, Type::TEXT)]).await {
        Err(error) if is_one_of(&error, &[SqlState::LOCK_NOT_AVAILABLE]) => return Err(SchemaError::Busy),
        row => row?,
    };
    transaction.commit().await?;
    replayed.erasures += row.try_get::<_, i64>(0)?.unsigned_abs();
    replayed.tokens += row.try_get::<_, i64>(1)?.unsigned_abs();
    replayed.rows += row.try_get::<_, i64>(2)?.unsigned_abs();
    let of_other_salts: Vec<String> = row.try_get(3)?;
    let left = of_other_salts.into_iter().map(|key| LeftOut { key, reason: NotReplayed::OtherSalt });
    replayed.left.extend(left);
    Ok(())
}

fn named(left: &[LeftOut]) -> String {
    let mut texts: Vec<_> = left.iter().take(NAMED_KEYS).map(ToString::to_string).collect();
    if left.len() > NAMED_KEYS {
        texts.push("…".to_owned());
    }
    texts.join("; ")
}
