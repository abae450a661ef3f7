//! Writes a batch that failed as a whole: the ledger already holds some of its messages, or Postgres
//! refuses some of its rows.

use std::collections::HashMap;

use login::failures::FailureReason;
use tokio_postgres::types::Type;

use super::connect::Connection;
use super::insert::{Columns, SealedColumns};
use super::row::{FailedRow, Fingerprints, KeyedRow, Written};
use crate::deadline::{Deadline, reserve};

/// Writes the rows whose messages the ledger does not hold, except the rows that Postgres refuses, in one
/// round trip and one transaction. Shortly before the deadline, Postgres stops and commits the rows so far. Of the sealed
/// values, Postgres keeps those of the rows that did not fail.
///
/// On a FIFO queue this holds back the later rows of a refused row's group. The handler applies the same
/// rule to messages that do not decode, with `Failures::is_held_back`.
pub(super) async fn write(
    connection: &Connection,
    mut rows: Vec<&KeyedRow<'_>>,
    sealed: Option<&SealedColumns<'_>>,
    fingerprints: &Fingerprints,
    deadline: Deadline,
) -> Result<Written, tokio_postgres::Error> {
    let groups = fifo_groups(&mut rows);
    let columns = Columns::new(rows.iter().copied(), fingerprints);
    let left = deadline.left();
    let time_limit_s = left.saturating_sub(reserve(left)).as_secs_f64();
    let mut parameters = columns.parameters().to_vec();
    parameters.extend([(&groups as _, Type::INT4_ARRAY), (&time_limit_s as _, Type::FLOAT8)]);

    let (prefix, last) = if let Some(sealed) = sealed {
        parameters.extend(sealed.parameters());
        ("vault_", ", $12, $13, $14, $15")
    } else {
        ("", "")
    };
    let call = format!(
        "SELECT inserted, suppressed, failed_rows, failed_sqlstates, unreached_rows
         FROM {}.{prefix}write_logins_row_by_row($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11{last})",
        connection.quoted_schema()
    );
    let outcome = connection.client().query_typed_one(&call, &parameters).await?;

    let position = |number: i32| {
        let row = usize::try_from(number - 1).ok().and_then(|index| rows.get(index));
        // A failed row that is left out would count as written, and SQS would delete its message.
        row.unwrap_or_else(|| unreachable!("the function numbers the rows from 1")).key.position
    };
    let failed_rows: Vec<i32> = outcome.try_get(2)?;
    let sqlstates: Vec<Option<String>> = outcome.try_get(3)?;
    let unreached_rows: Vec<i32> = outcome.try_get(4)?;
    let failed_rows = failed_rows.into_iter().zip(sqlstates).map(|(number, sqlstate)| {
        let reason =
            sqlstate.map_or(FailureReason::HeldBack, |sqlstate| FailureReason::RowRefused { sqlstate });
        FailedRow { position: position(number), reason }
    });
    let unreached_rows = unreached_rows
        .into_iter()
        .map(|number| FailedRow { position: position(number), reason: FailureReason::OutOfTime });
    Ok(Written {
        // A count is never negative.
        inserted: outcome.try_get(0).map(i64::unsigned_abs)?,
        suppressed: outcome.try_get(1).map(i64::unsigned_abs)?,
        failed_rows: failed_rows.chain(unreached_rows).collect(),
    })
}

/// Sorts the rows of a FIFO queue in the order of the batch, and returns the group of each row as the number
/// of the group's first row. Returns nothing for a standard queue.
fn fifo_groups(rows: &mut [&KeyedRow<'_>]) -> Vec<Option<i32>> {
    if rows.iter().all(|row| row.key.group.is_none()) {
        return Vec::new();
    }
    rows.sort_by_key(|row| row.key.position);
    let mut first_rows = HashMap::new();
    let numbered = (1..).zip(rows.iter());
    numbered
        .map(|(number, row)| row.key.group.map(|group| *first_rows.entry(group).or_insert(number)))
        .collect()
}
