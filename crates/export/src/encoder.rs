//! Encodes the rows of a day as Parquet files, in parts that S3 takes.

use std::io::{self, Write};
use std::mem;
use std::sync::Arc;

use arrow_array::builder::{Date32Builder, Int32Builder, StringBuilder};
use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterVersion};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc::{Receiver, Sender};

use crate::copy::{COLUMNS, CopyDecoder, CopyError, Row, TEXTS};

/// The files of a day: how many there are, and how much memory each takes while it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Number of files. Each row belongs to one of them, by its `user_id`.
    pub objects: usize,
    /// Rows that are encoded together.
    batch: usize,
    /// Rows of a row group.
    row_group: usize,
    /// Bytes of a part. S3 takes [parts of 5 MiB or more][limits], and at most 10,000 parts.
    ///
    /// [limits]: https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html
    part: usize,
}

/// A part of a file.
#[derive(Debug)]
pub struct Part {
    /// The number of the file.
    pub object: usize,
    /// The bytes.
    pub bytes: Bytes,
    /// Their SHA-256.
    pub sha256: [u8; 32],
    /// Whether it is the last part of the file.
    pub is_last: bool,
}

/// What was encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// Number of rows.
    pub rows: u64,
    /// Bytes of all files.
    pub bytes: u64,
    /// SHA-256 of the file, in hexadecimal digits; of several files, SHA-256 of their digits one after the other.
    pub sha256: String,
}

/// Why the rows cannot be encoded. The texts hold no value.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// Postgres sent something else than rows.
    #[error(transparent)]
    Copy(#[from] CopyError),
    /// The Parquet library failed, or nobody takes the parts any more. The text of the library is dropped.
    #[error("the Parquet file cannot be written")]
    Parquet,
}

impl Layout {
    /// One file. It takes about 40 MB of memory.
    pub const ONE: Self = Self { objects: 1, batch: 8_192, row_group: 131_072, part: 8 << 20 };
    /// The files of a large day. All are written at the same time, so that the rows are read once; they take about 150 MB
    /// of memory, and would take 300 MB with the row groups of [`Self::ONE`]. A run has at most two days in memory.
    pub const SIXTEEN: Self = Self { objects: 16, batch: 2_048, row_group: 32_768, part: 5 << 20 };

    /// Returns the file of a row: the first hexadecimal digit of SHA-256 of its `user_id`. The rows of a user stay in the
    /// same file if their tokens change: so each row is in the lake once, even while only some of the files are replaced.
    fn object(self, user_id: Option<&str>) -> usize {
        if self.objects == 1 {
            return 0;
        }
        usize::from(Sha256::digest(user_id.unwrap_or_default())[0] >> 4)
    }
}

/// Decodes chunks of COPY until there are no more, and sends the parts of the files.
///
/// # Errors
///
/// [`EncodeError`].
///
/// # Panics
///
/// In an asynchronous task: it blocks its thread.
pub fn encode(
    mut chunks: Receiver<Bytes>,
    parts: &Sender<Part>,
    layout: Layout,
) -> Result<Encoded, EncodeError> {
    let schema = Arc::new(schema());
    let mut files = (0..layout.objects)
        .map(|object| File::create(object, layout, &schema, parts.clone()))
        .collect::<Result<Vec<_>, _>>()?;
    let mut decoder = CopyDecoder::default();
    let mut rows = 0;
    while let Some(chunk) = chunks.blocking_recv() {
        decoder.push(&chunk);
        while let Some(row) = decoder.next_row()? {
            files[layout.object(row.texts[0])].push(&row)?;
            rows += 1;
        }
    }
    decoder.finish()?;
    let (mut bytes, mut digests) = (0, Vec::new());
    for file in files {
        let (length, digest) = file.finish()?;
        bytes += length;
        digests.push(digest);
    }
    let sha256 = match &*digests {
        [digest] => digest.clone(),
        several => hexadecimal(&Sha256::digest(several.concat())),
    };
    Ok(Encoded { rows, bytes, sha256 })
}

/// Returns the columns of the files. All may be null: a table that is older than login-etl may have nulls anywhere.
fn schema() -> Schema {
    let types = [const { DataType::Utf8 }; TEXTS].into_iter().chain([DataType::Int32, DataType::Date32]);
    let fields = COLUMNS.into_iter().zip(types).map(|(name, data_type)| Field::new(name, data_type, true));
    Schema::new(fields.collect::<Vec<_>>())
}

fn properties(layout: Layout) -> WriterProperties {
    WriterProperties::builder()
        .set_writer_version(WriterVersion::PARQUET_1_0)
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_max_row_group_row_count(Some(layout.row_group))
        // Tokens are random, so the least and the greatest token of a page exclude nothing.
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .build()
}

/// A file that is written.
struct File {
    schema: SchemaRef,
    writer: ArrowWriter<PartSink>,
    batch: Batch,
}

impl File {
    fn create(
        object: usize,
        layout: Layout,
        schema: &SchemaRef,
        parts: Sender<Part>,
    ) -> Result<Self, EncodeError> {
        // The schema of Arrow in the metadata would tell other programs nothing new.
        let options =
            ArrowWriterOptions::new().with_properties(properties(layout)).with_skip_arrow_metadata(true);
        let sink = PartSink::new(object, layout.part, parts);
        let writer = ArrowWriter::try_new_with_options(sink, Arc::clone(schema), options)?;
        Ok(Self { schema: Arc::clone(schema), writer, batch: Batch::with_capacity(layout.batch) })
    }

    fn push(&mut self, row: &Row<'_>) -> Result<(), EncodeError> {
        self.batch.push(row);
        if self.batch.rows == self.batch.capacity { self.write_batch() } else { Ok(()) }
    }

    fn write_batch(&mut self) -> Result<(), EncodeError> {
        let capacity = self.batch.capacity;
        let batch = mem::replace(&mut self.batch, Batch::with_capacity(capacity));
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), batch.into_columns())
            .map_err(|_| EncodeError::Parquet)?;
        Ok(self.writer.write(&batch)?)
    }

    /// Returns the length of the file, and its SHA-256.
    fn finish(mut self) -> Result<(u64, String), EncodeError> {
        if self.batch.rows > 0 {
            self.write_batch()?;
        }
        self.writer.into_inner()?.finish().map_err(|_| EncodeError::Parquet)
    }
}

/// Rows that are encoded together.
struct Batch {
    capacity: usize,
    rows: usize,
    texts: [StringBuilder; TEXTS],
    app_version: Int32Builder,
    create_date: Date32Builder,
}

impl Batch {
    fn with_capacity(capacity: usize) -> Self {
        // A guess for user_id, device_type, masked_ip, masked_device_id and locale. The buffers grow.
        let texts = [36, 8, 64, 64, 4].map(|bytes| StringBuilder::with_capacity(capacity, capacity * bytes));
        let (app_version, create_date) =
            (Int32Builder::with_capacity(capacity), Date32Builder::with_capacity(capacity));
        Self { capacity, rows: 0, texts, app_version, create_date }
    }

    fn push(&mut self, row: &Row<'_>) {
        for (builder, text) in self.texts.iter_mut().zip(row.texts) {
            builder.append_option(text);
        }
        self.app_version.append_option(row.app_version);
        self.create_date.append_option(row.create_date);
        self.rows += 1;
    }

    fn into_columns(mut self) -> Vec<ArrayRef> {
        let texts = self.texts.iter_mut().map(|builder| Arc::new(builder.finish()) as ArrayRef);
        let mut columns: Vec<ArrayRef> = texts.collect();
        columns.push(Arc::new(self.app_version.finish()));
        columns.push(Arc::new(self.create_date.finish()));
        columns
    }
}

/// Cuts a file into parts, and sends them.
struct PartSink {
    object: usize,
    part: usize,
    buffer: Vec<u8>,
    length: u64,
    file_digest: Sha256,
    parts: Sender<Part>,
}

impl PartSink {
    fn new(object: usize, part: usize, parts: Sender<Part>) -> Self {
        Self { object, part, buffer: Vec::new(), length: 0, file_digest: Sha256::new(), parts }
    }

    fn send(&mut self, is_last: bool) -> io::Result<()> {
        // The next part grows by itself: an object may be much smaller than a part.
        let bytes = Bytes::from(mem::take(&mut self.buffer));
        let sha256 = Sha256::digest(&bytes).into();
        let part = Part { object: self.object, bytes, sha256, is_last };
        self.parts.blocking_send(part).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    fn finish(mut self) -> io::Result<(u64, String)> {
        self.send(true)?;
        Ok((self.length, hexadecimal(&self.file_digest.finalize())))
    }
}

impl Write for PartSink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Only now: the last part of a file must not be empty.
        if self.buffer.len() == self.part && !bytes.is_empty() {
            self.send(false)?;
        }
        let taken = &bytes[..bytes.len().min(self.part - self.buffer.len())];
        self.buffer.extend_from_slice(taken);
        self.file_digest.update(taken);
        self.length += taken.len() as u64;
        Ok(taken.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl From<ParquetError> for EncodeError {
    fn from(_: ParquetError) -> Self {
        Self::Parquet
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut digits, byte| {
        // Writing to a String cannot fail.
        let _ = write!(digits, "{byte:02x}");
        digits
    })
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    #[test]
    fn files_are_cut_into_full_parts() {
        for (length, expected) in [(0, vec![0]), (3, vec![3]), (4, vec![4]), (5, vec![4, 1]), (8, vec![4, 4])]
        {
            let (sender, mut parts) = mpsc::channel(8);
            let bytes: Vec<u8> = (0..length).collect();
            let mut sink = PartSink::new(0, 4, sender);

            sink.write_all(&bytes).unwrap();
            let (written, digest) = sink.finish().unwrap();

            let parts: Vec<Part> = std::iter::from_fn(|| parts.blocking_recv()).collect();
            let lengths: Vec<_> = parts.iter().map(|part| part.bytes.len()).collect();
            assert_eq!(lengths, expected);
            assert_eq!(parts.iter().filter(|part| part.is_last).count(), 1);
            assert!(parts.last().unwrap().is_last);
            assert_eq!(parts.iter().flat_map(|part| part.bytes.to_vec()).collect::<Vec<_>>(), bytes);
            assert_eq!((written, digest), (length.into(), hexadecimal(&Sha256::digest(&bytes))));
        }
    }

    /// The files of a large day must have about the same size, and a user must stay in a file for ever.
    #[test]
    fn users_are_spread_over_sixteen_files() {
        let mut counts = [0; 16];
        for number in 0..16_000 {
            counts[Layout::SIXTEEN.object(Some(&format!("user-{number}")))] += 1;
        }

        assert!(counts.iter().all(|count| (900..=1_100).contains(count)), "{counts:?}");
        assert_eq!(Layout::SIXTEEN.object(Some("424cdd21-063a-43a7-b91b-7ca1a833afae")), 2);
        assert_eq!((Layout::SIXTEEN.object(None), Layout::ONE.object(Some("u"))), (14, 0));
    }
}
