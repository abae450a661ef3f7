//! Writes a batch that failed as a whole: the ledger already holds some of its messages, or Postgres
//! refuses some of its rows. One transaction writes the other rows.

use std::collections::HashSet;

use login::failures::FailureReason;
use login::pii::SaltFingerprint;
use tokio_postgres::Client;

use super::error::row_refusal;
use super::insert::{WRITE_UNSEEN, insert};
use super::row::{FailedRow, KeyedRow, Written};
use super::transaction::{BEGIN, COMMIT};

/// Checks constraints at each statement. A deferred constraint would otherwise fail the commit, whose error
/// does not say which row Postgres refuses.
const CHECK_CONSTRAINTS_NOW: &str = "SET CONSTRAINTS ALL IMMEDIATE";
const SAVEPOINT: &str = "SAVEPOINT part";
const RELEASE_SAVEPOINT: &str = "RELEASE SAVEPOINT part";
const ROLL_BACK_TO_SAVEPOINT: &str = "ROLLBACK TO SAVEPOINT part; RELEASE SAVEPOINT part";

/// Writes the rows whose messages the ledger does not hold, except the rows that Postgres refuses. Halves a
/// part that fails until the refused row is alone.
///
/// On a FIFO queue this holds back the later rows of a refused row's group. Parts are tried in the order of
/// the batch, so that a refused row is found before the later rows of its group. The handler applies the
/// same rule to messages that do not decode, with `Failures::is_held_back`.
///
/// After an error the transaction is still open: the caller must close the connection.
pub(super) async fn write(
    client: &Client,
    mut rows: Vec<&KeyedRow<'_>>,
    salt_fingerprint: &SaltFingerprint,
) -> Result<Written, tokio_postgres::Error> {
    if rows.iter().any(|row| row.key.group.is_some()) {
        rows.sort_by_key(|row| row.key.position);
    }

    client.batch_execute(BEGIN).await?;
    client.batch_execute(CHECK_CONSTRAINTS_NOW).await?;
    let mut written = Written::default();
    let mut failed_groups = HashSet::new();
    let mut parts = vec![rows];
    while let Some(part) = parts.pop() {
        let is_held_back =
            |row: &&KeyedRow<'_>| row.key.group.is_some_and(|group| failed_groups.contains(group));
        let (held_back, part): (Vec<_>, Vec<_>) = part.into_iter().partition(is_held_back);
        written.failed_rows.extend(held_back.into_iter().map(|row| failed_row(row, FailureReason::HeldBack)));
        if part.is_empty() {
            continue;
        }
        client.batch_execute(SAVEPOINT).await?;
        let error = match insert(client, WRITE_UNSEEN, part.iter().copied(), salt_fingerprint).await {
            Ok(inserted) => {
                client.batch_execute(RELEASE_SAVEPOINT).await?;
                written.inserted += inserted;
                continue;
            }
            Err(error) => error,
        };
        let Some(reason) = row_refusal(&error) else {
            return Err(error);
        };
        client.batch_execute(ROLL_BACK_TO_SAVEPOINT).await?;
        if let [row] = part[..] {
            failed_groups.extend(row.key.group);
            written.failed_rows.push(failed_row(row, reason));
        } else {
            let (earlier, later) = part.split_at(part.len() / 2);
            // The earlier half last, because the last part is tried next.
            parts.extend([later.to_vec(), earlier.to_vec()]);
        }
    }
    client.batch_execute(COMMIT).await?;
    Ok(written)
}

fn failed_row(row: &KeyedRow<'_>, reason: FailureReason) -> FailedRow {
    FailedRow { position: row.key.position, reason }
}
