//! Isolates rows with a text that the encoding of the database lacks, such as Cyrillic in LATIN1.
//!
//! Postgres converts the parameters of a statement before the statement runs, so no SQL function can isolate these
//! rows.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use login::failures::FailureReason;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

use super::connect::Connection;
use super::insert::SealedColumns;
use super::row::{Chunk, FailedRow, Fingerprints, KeyedRow, Written};
use super::row_by_row;
use crate::deadline::Deadline;

/// Postgres converts its parameters; the result is ignored.
const CONVERT_TEXTS: &str = "SELECT num_nonnulls($1, $2, $3)";

/// Writes the rows [row by row](row_by_row::write). A row with a text that the encoding lacks fails on its own.
pub(super) async fn write_row_by_row(
    connection: &Connection,
    chunks: &[Chunk<'_>],
    fingerprints: &Fingerprints,
    deadline: Deadline,
) -> Result<Written, tokio_postgres::Error> {
    let mut rows: Vec<_> = chunks.iter().flat_map(|chunk| &chunk.rows).collect();
    let sealed = SealedColumns::new(chunks, fingerprints);
    let write = |rows| row_by_row::write(connection, rows, sealed.as_ref(), fingerprints, deadline);
    let error = match write(rows.clone()).await {
        Err(error) if error.code().is_some_and(is_unencodable) => error,
        outcome => return outcome,
    };
    let failures = failures(&rows, &find_unencodable(connection.client(), &rows).await?);
    if failures.is_empty() {
        return Err(error);
    }
    rows.retain(|row| !failures.contains_key(&row.key.position));
    let mut written = if rows.is_empty() { Written::default() } else { write(rows).await? };
    let failed_rows = failures.into_iter().map(|(position, reason)| FailedRow { position, reason });
    written.failed_rows.extend(failed_rows);
    Ok(written)
}

/// Sends the texts of each row, without waiting for the results in between, and returns the positions of the rows
/// that Postgres cannot convert. Rows that are plain ASCII are skipped, because every encoding contains ASCII.
async fn find_unencodable(
    client: &Client,
    rows: &[&KeyedRow<'_>],
) -> Result<BTreeMap<usize, SqlState>, tokio_postgres::Error> {
    let checks = rows.iter().filter_map(|keyed| {
        let texts =
            [Some(&*keyed.row.user_id), keyed.row.device_type.as_deref(), keyed.row.locale.as_deref()];
        if texts.iter().flatten().all(|text| text.is_ascii()) {
            return None;
        }
        Some(async move {
            let [user_id, device_type, locale] = &texts;
            let parameters: [super::insert::Parameter<'_>; 3] =
                [(user_id, Type::TEXT), (device_type, Type::TEXT), (locale, Type::TEXT)];
            match client.execute_typed(CONVERT_TEXTS, &parameters).await {
                Ok(_) => Ok(None),
                Err(error) => match error.code() {
                    Some(code) if is_unencodable(code) => Ok(Some((keyed.key.position, code.clone()))),
                    _ => Err(error),
                },
            }
        })
    });
    join_all(checks).await.into_iter().filter_map(Result::transpose).collect()
}

/// Returns why rows fail, by their positions. On a FIFO queue a row that cannot be encoded holds back the later rows
/// of its group.
fn failures(
    rows: &[&KeyedRow<'_>],
    unencodable: &BTreeMap<usize, SqlState>,
) -> BTreeMap<usize, FailureReason> {
    let mut first_failures = BTreeMap::new();
    for row in rows.iter().filter(|row| unencodable.contains_key(&row.key.position)) {
        if let Some(group) = row.key.group {
            let first = first_failures.entry(group).or_insert(row.key.position);
            *first = row.key.position.min(*first);
        }
    }
    let failures = rows.iter().filter_map(|row| {
        let position = row.key.position;
        if let Some(code) = unencodable.get(&position) {
            let reason = FailureReason::RowRefused { sqlstate: code.code().to_owned() };
            return Some((position, reason));
        }
        let first_failure = first_failures.get(row.key.group?)?;
        (*first_failure < position).then_some((position, FailureReason::HeldBack))
    });
    failures.collect()
}

fn is_unencodable(code: &SqlState) -> bool {
    [SqlState::UNTRANSLATABLE_CHARACTER, SqlState::CHARACTER_NOT_IN_REPERTOIRE].contains(code)
}
