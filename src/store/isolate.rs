//! Writes a batch that cannot be written as it is: some of its messages are in the ledger already,
//! or Postgres refuses some of its rows. All in one transaction.

use std::collections::HashSet;

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::{GIVE_UP, Refused, WRITE_MISSING, Written, insert};
use login::mask::LoginRow;
use login::pii::Fingerprint;

/// Whether an error is about the data of some rows, so that the others may do without them: a data
/// exception (class 22), a violated constraint (class 23), or what a trigger raises in PL/pgSQL
/// without a code of its own (`P0001`).
pub(super) fn is_of_row(error: &tokio_postgres::Error) -> bool {
    error.code().is_some_and(|sqlstate| {
        let code = sqlstate.code();
        code.starts_with("22") || code.starts_with("23") || *sqlstate == SqlState::RAISE_EXCEPTION
    })
}

/// Writes the rows that are missing but for those that Postgres refuses, which it finds by halving.
///
/// In a FIFO queue the later messages of a refused one's group are held back: rows are tried in
/// the order of arrival, so what comes later is known to be later.
pub(super) async fn write(
    client: &mut Client,
    mut rows: Vec<&LoginRow<'_>>,
    salt: &Fingerprint,
) -> Result<Written, tokio_postgres::Error> {
    if rows.iter().any(|row| row.arrival.group.is_some()) {
        rows.sort_by_key(|row| row.arrival.position);
    }

    let mut transaction = client.transaction().await?;
    transaction.batch_execute(GIVE_UP).await?;
    // A deferred constraint would speak up only at the commit, where it cannot be told whose it is.
    transaction.batch_execute("SET CONSTRAINTS ALL IMMEDIATE").await?;
    let mut written = Written::default();
    let mut held = HashSet::new();
    let mut parts = vec![rows];
    while let Some(part) = parts.pop() {
        let (behind, part): (Vec<_>, Vec<_>) = part.into_iter().partition(|row| is_held(&held, row));
        written
            .refused
            .extend(behind.iter().map(|row| Refused { position: row.arrival.position, sqlstate: None }));
        if part.is_empty() {
            continue;
        }
        let savepoint = transaction.savepoint("part").await?;
        match insert(savepoint.client(), WRITE_MISSING, &part, salt).await {
            Ok(inserted) => {
                savepoint.commit().await?;
                written.inserted += inserted;
            }
            Err(error) if is_of_row(&error) => {
                savepoint.rollback().await?;
                if let [row] = part[..] {
                    held.extend(row.arrival.group.as_deref());
                    written
                        .refused
                        .push(Refused { position: row.arrival.position, sqlstate: error.code().cloned() });
                } else {
                    parts.extend(halves(&part));
                }
            }
            Err(error) => return Err(error),
        }
    }
    transaction.commit().await?;
    Ok(written)
}

fn is_held(held: &HashSet<&str>, row: &LoginRow<'_>) -> bool {
    row.arrival.group.as_deref().is_some_and(|group| held.contains(group))
}

/// The two halves of some rows, the earlier one last, where it is popped first.
fn halves<'r, 'm>(rows: &[&'r LoginRow<'m>]) -> Vec<Vec<&'r LoginRow<'m>>> {
    let (earlier, later) = rows.split_at(rows.len() / 2);
    vec![later.to_vec(), earlier.to_vec()]
}
