//! Exports one day: reads it in a snapshot, uploads it, compares the numbers, completes the upload and writes the books.

use std::time::SystemTime;

use bytes::{Bytes, BytesMut};
use futures_util::TryStreamExt;
use futures_util::future::try_join;
use jiff::civil::Date;
use login_etl::deadline::Deadline;
use login_etl::store::error::StoreError;
use tokio::sync::MutexGuard;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::task;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, CopyOutStream, IsolationLevel, Transaction};

use crate::books::{self, Record};
use crate::bucket::{Bucket, Upload};
use crate::encoder::{self, EncodeError, Encoded, Layout, Part};
use crate::error::DayError;
use crate::session::{BeginError, Days, Schemas};

/// Bytes of COPY that are decoded together.
const CHUNK: usize = 256 << 10;
/// How many chunks may wait for the decoder.
const CHUNKS: usize = 4;
/// How many parts may wait for S3, besides the one that is sent.
const PARTS: usize = 1;

/// What became of a day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The day is in the lake and in the books.
    Exported(Record),
    /// Another run has exported the day.
    NotDue,
    /// The day was marked as changed while it was exported. It is still due.
    Changed,
}

/// The right to read rows, which a day gives up after its last row. So Postgres reads one day of a run at a time.
pub type Turn<'t> = MutexGuard<'t, ()>;

/// What the days of a run have in common.
#[derive(Clone, Copy, Debug)]
pub struct Run<'r> {
    /// The bucket.
    pub bucket: &'r Bucket,
    /// The schemas.
    pub schemas: &'r Schemas,
    /// The time of the run.
    pub now: SystemTime,
    /// The end of the run.
    pub deadline: Deadline,
    /// The most entries that the ledger has of a day.
    pub most_entries: i64,
}

/// Exports a day, if it is due.
///
/// All of it is one transaction, which begins with the lock of the day: so no other run replaces the objects at the same
/// time, and the books are written only if nobody marked the day as changed since its rows were read.
///
/// # Errors
///
/// [`DayError`]: the objects are as before or, if an error comes while they are completed, some or all of them are new.
/// The day stays due.
pub async fn export(
    client: &mut Client,
    run: Run<'_>,
    date: Date,
    turn: Turn<'_>,
) -> Result<Outcome, DayError> {
    let isolation_level = IsolationLevel::RepeatableRead;
    let transaction = run.schemas.begin(client, isolation_level, Days::of(date), run.deadline.left()).await?;
    let limits = books::read_limits(&transaction, run.now).await.map_err(database)?;
    let day = books::read_day(&transaction, date).await.map_err(database)?;
    if !day.is_due(limits) {
        return Ok(Outcome::NotDue);
    }
    let layout = day.layout(limits, run.most_entries);
    let mut uploads: Vec<_> =
        (0..layout.objects).map(|object| run.bucket.upload(key(date, object))).collect();
    let uploaded = async {
        let upload = Box::pin(upload(&transaction, date, layout, &mut uploads, turn));
        let encoded = run.deadline.timeout(upload).await??;
        let rows = signed(encoded.rows);
        let ledger_entries = day.compare(rows, limits)?;
        if ledger_entries.is_none() {
            tracing::info!(day = %date, rows, entries = day.entries, "day without count: the ledger does not have all its rows");
        }
        // If the connection had ended, so would the lock, and another run could be ahead of this one.
        transaction.batch_execute("").await.map_err(database)?;
        let mut etags = Vec::with_capacity(uploads.len());
        for upload in &mut uploads {
            etags.push(run.deadline.timeout(upload.complete()).await??);
        }
        Ok::<_, DayError>(Record {
            date,
            objects: i16::try_from(layout.objects).unwrap_or(i16::MAX),
            key: key(date, 0),
            rows,
            ledger_entries,
            ledger_seen: day.entries,
            deleted_rows: if ledger_entries.is_some() { day.deleted_rows } else { 0 },
            bytes: signed(encoded.bytes),
            sha256: encoded.sha256,
            etag: etags.join(" "),
            is_closed: date <= limits.last_final,
        })
    };
    let record = match uploaded.await {
        Ok(record) => record,
        Err(error) => {
            for upload in &mut uploads {
                upload.abort().await;
            }
            return Err(error);
        }
    };
    match record.write(&transaction).await {
        Err(error) if error.code() == Some(&SqlState::T_R_SERIALIZATION_FAILURE) => {
            return Ok(Outcome::Changed);
        }
        outcome => outcome.map_err(database)?,
    }
    transaction.commit().await.map_err(database)?;
    Ok(Outcome::Exported(record))
}

/// Returns the key of an object.
#[must_use]
pub fn key(date: Date, object: usize) -> String {
    format!("user_logins/dt={date}/part-{object:05}.parquet")
}

/// Reads the day, encodes it in a thread of its own, and sends its parts, all at the same time.
async fn upload(
    transaction: &Transaction<'_>,
    date: Date,
    layout: Layout,
    uploads: &mut [Upload<'_>],
    turn: Turn<'_>,
) -> Result<Encoded, DayError> {
    let copy = format!(
        "COPY (
            SELECT user_id::text, device_type::text, masked_ip::text, masked_device_id::text, locale::text,
                app_version::integer, create_date::date
            FROM user_logins
            WHERE create_date::date = DATE '{date}'
        ) TO STDOUT (FORMAT binary)"
    );
    let stream = transaction.copy_out(&copy).await.map_err(database)?;
    let (chunk_sender, chunks) = mpsc::channel(CHUNKS);
    let (part_sender, parts) = mpsc::channel(PARTS);
    let encoding = task::spawn_blocking(move || encoder::encode(chunks, &part_sender, layout));
    // If one side fails, the encoder ends too, and its error only says that the other side has gone.
    try_join(read(stream, chunk_sender, turn), send(parts, uploads)).await?;
    Ok(encoding.await.map_err(|_| EncodeError::Parquet)??)
}

/// Sends what Postgres sends to the decoder. Postgres sends each row on its own. The turn ends with the last row.
async fn read(stream: CopyOutStream, chunks: Sender<Bytes>, turn: Turn<'_>) -> Result<(), DayError> {
    let mut stream = std::pin::pin!(stream);
    let mut chunk = BytesMut::with_capacity(CHUNK);
    while let Some(bytes) = stream.try_next().await.map_err(database)? {
        if chunk.len() + bytes.len() > CHUNK && !chunk.is_empty() {
            let full = std::mem::replace(&mut chunk, BytesMut::with_capacity(CHUNK));
            if chunks.send(full.freeze()).await.is_err() {
                // The encoder has failed, and returns its error.
                return Ok(());
            }
        }
        chunk.extend_from_slice(&bytes);
    }
    drop(turn);
    let _ = chunks.send(chunk.freeze()).await;
    Ok(())
}

async fn send(mut parts: Receiver<Part>, uploads: &mut [Upload<'_>]) -> Result<(), DayError> {
    while let Some(part) = parts.recv().await {
        uploads[part.object].add(part).await?;
    }
    Ok(())
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[expect(clippy::needless_pass_by_value, reason = "`Result::map_err` passes a value")]
fn database(error: tokio_postgres::Error) -> DayError {
    DayError::Database(StoreError::from(&error))
}

impl From<BeginError> for DayError {
    fn from(error: BeginError) -> Self {
        match error {
            BeginError::Busy => Self::Busy,
            BeginError::Database(error) => Self::Database(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;

    #[test]
    fn keys_sort_by_day() {
        assert_eq!(key(date(2026, 11, 26), 0), "user_logins/dt=2026-11-26/part-00000.parquet");
        assert_eq!(key(date(1, 1, 1), 15), "user_logins/dt=0001-01-01/part-00015.parquet");
    }
}
