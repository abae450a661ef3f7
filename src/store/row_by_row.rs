//! Writes a batch that failed as a whole: the ledger already holds some of its messages, or Postgres
//! refuses some of its rows.

use login::failures::FailureReason;
use login::pii::SaltFingerprint;
use tokio_postgres::Client;
use tokio_postgres::types::Type;

use super::insert::Columns;
use super::row::{FailedRow, KeyedRow, Written};

const WRITE_ROW_BY_ROW: &str = "
    SELECT inserted, failed_rows, failed_sqlstates
    FROM write_logins_row_by_row($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";

/// Writes the rows whose messages the ledger does not hold, except the rows that Postgres refuses, in one
/// round trip and one transaction.
///
/// On a FIFO queue this holds back the later rows of a refused row's group. The handler applies the same
/// rule to messages that do not decode, with `Failures::is_held_back`.
pub(super) async fn write(
    client: &Client,
    mut rows: Vec<&KeyedRow<'_>>,
    salt_fingerprint: &SaltFingerprint,
) -> Result<Written, tokio_postgres::Error> {
    let groups: Vec<Option<&str>> = if rows.iter().any(|row| row.key.group.is_some()) {
        rows.sort_by_key(|row| row.key.position);
        rows.iter().map(|row| row.key.group).collect()
    } else {
        Vec::new()
    };
    let columns = Columns::new(rows.iter().copied(), salt_fingerprint);
    let mut parameters = columns.parameters().to_vec();
    parameters.push((&groups, Type::TEXT_ARRAY));

    let outcome = client.query_typed_one(WRITE_ROW_BY_ROW, &parameters).await?;

    let failed_rows: Vec<i32> = outcome.try_get(1)?;
    let sqlstates: Vec<Option<String>> = outcome.try_get(2)?;
    let failed_rows = failed_rows.into_iter().zip(sqlstates).map(|(number, sqlstate)| {
        let row = usize::try_from(number - 1).ok().and_then(|index| rows.get(index));
        // A failed row that is left out would count as written, and SQS would delete its message.
        let row = row.unwrap_or_else(|| unreachable!("the function numbers the rows from 1"));
        let reason =
            sqlstate.map_or(FailureReason::HeldBack, |sqlstate| FailureReason::RowRefused { sqlstate });
        FailedRow { position: row.key.position, reason }
    });
    // A count is never negative.
    let inserted = outcome.try_get(0).map(i64::unsigned_abs)?;
    Ok(Written { inserted, failed_rows: failed_rows.collect() })
}
