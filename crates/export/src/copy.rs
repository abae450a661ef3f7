//! Decodes the [binary format] of `COPY … TO STDOUT`.
//!
//! Not tokio-postgres's own decoder, which allocates for each row.
//!
//! [binary format]: https://www.postgresql.org/docs/current/sql-copy.html#id-1.9.3.55.9.4

use std::str;

/// The columns of the files, in their order. First the texts, then an integer and a date.
pub const COLUMNS: [&str; 7] =
    ["user_id", "device_type", "masked_ip", "masked_device_id", "locale", "app_version", "create_date"];
/// Number of columns that are texts.
pub const TEXTS: usize = 5;

const APP_VERSION: usize = 5;
const CREATE_DATE: usize = 6;

const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";
/// The bits of the flags that change the format. The only one that is known, bit 16, adds an OID to each row.
const CRITICAL_FLAGS: u32 = 0xffff_0000;
/// The number of fields in the end marker.
const END_MARKER: i16 = -1;
/// The length of a null.
const NULL: i32 = -1;
/// Days from 1970-01-01 to 2000-01-01, from which Postgres counts.
const DAYS_TO_2000: i32 = 10_957;

/// A row, in the order of [`COLUMNS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row<'a> {
    /// The texts.
    pub texts: [Option<&'a str>; TEXTS],
    /// `app_version`.
    pub app_version: Option<i32>,
    /// `create_date`, in days since 1970.
    pub create_date: Option<i32>,
}

/// Why the bytes are not rows of [`COLUMNS`]. The texts hold no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CopyError {
    /// The header is missing, or of a later version.
    #[error("Postgres sent no binary COPY of a known version")]
    UnknownFormat,
    /// A row has another number of columns.
    #[error("Postgres sent a row with another number of columns")]
    WrongColumns,
    /// A field has a length that its type does not have.
    #[error("the column {column} has a value of a wrong length")]
    WrongLength {
        /// The column.
        column: &'static str,
    },
    /// A text is not UTF-8: the database has the encoding `SQL_ASCII`.
    #[error("the column {column} has a value that is not UTF-8")]
    NotUtf8 {
        /// The column.
        column: &'static str,
    },
    /// A date is infinite.
    #[error("the column create_date has a date that is infinite")]
    InfiniteDate,
    /// The bytes end within a row, or without the end marker.
    #[error("Postgres ended COPY within a row")]
    Truncated,
    /// There are bytes after the end marker.
    #[error("Postgres sent bytes after the end of COPY")]
    AfterEnd,
}

/// Splits a stream of bytes into rows, wherever its chunks end.
#[derive(Debug, Default)]
pub struct CopyDecoder {
    buffer: Vec<u8>,
    /// How much of the buffer is decoded.
    decoded: usize,
    state: State,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Header,
    Rows,
    End,
}

impl CopyDecoder {
    /// Adds the next bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.decoded);
        self.decoded = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// Returns the next row; `None` if it is not complete yet, or if there are no more rows.
    ///
    /// # Errors
    ///
    /// [`CopyError`].
    pub fn next_row(&mut self) -> Result<Option<Row<'_>>, CopyError> {
        let mut fields = Fields(&self.buffer[self.decoded..]);
        if self.state == State::Header {
            match fields.header() {
                Ok(()) => self.state = State::Rows,
                Err(Stop::Incomplete) => return Ok(None),
                Err(Stop::Error(error)) => return Err(error),
            }
            self.decoded = self.buffer.len() - fields.0.len();
        }
        if self.state == State::End {
            return if fields.0.is_empty() { Ok(None) } else { Err(CopyError::AfterEnd) };
        }
        let row = match fields.row() {
            Ok(row) => row,
            Err(Stop::Incomplete) => return Ok(None),
            Err(Stop::Error(error)) => return Err(error),
        };
        self.decoded = self.buffer.len() - fields.0.len();
        if row.is_none() {
            self.state = State::End;
            if !fields.0.is_empty() {
                return Err(CopyError::AfterEnd);
            }
        }
        Ok(row)
    }

    /// Checks that the end marker came.
    ///
    /// # Errors
    ///
    /// [`CopyError::Truncated`].
    pub fn finish(&self) -> Result<(), CopyError> {
        if self.state == State::End { Ok(()) } else { Err(CopyError::Truncated) }
    }
}

/// Why no row can be decoded.
enum Stop {
    /// The bytes end before the row.
    Incomplete,
    Error(CopyError),
}

/// The bytes that are not decoded yet.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn header(&mut self) -> Result<(), Stop> {
        let signature = self.take(SIGNATURE.len())?;
        let flags = self.i32()?.cast_unsigned();
        if signature != SIGNATURE || flags & CRITICAL_FLAGS != 0 {
            return Err(Stop::Error(CopyError::UnknownFormat));
        }
        let extension = usize::try_from(self.i32()?).map_err(|_| Stop::Error(CopyError::UnknownFormat))?;
        self.take(extension).map(drop)
    }

    /// Returns a row, or `None` for the end marker.
    fn row(&mut self) -> Result<Option<Row<'a>>, Stop> {
        let count = self.array().map(i16::from_be_bytes)?;
        if count == END_MARKER {
            return Ok(None);
        }
        if usize::try_from(count) != Ok(COLUMNS.len()) {
            return Err(Stop::Error(CopyError::WrongColumns));
        }
        let mut texts = [None; TEXTS];
        for (text, column) in texts.iter_mut().zip(COLUMNS) {
            if let Some(bytes) = self.field(column)? {
                let decoded = str::from_utf8(bytes).map_err(|_| CopyError::NotUtf8 { column });
                *text = Some(decoded.map_err(Stop::Error)?);
            }
        }
        let app_version = self.integer(COLUMNS[APP_VERSION])?;
        let create_date = match self.integer(COLUMNS[CREATE_DATE])? {
            None => None,
            // Postgres sends the smallest and the largest number for the infinite dates.
            Some(i32::MIN) => return Err(Stop::Error(CopyError::InfiniteDate)),
            Some(days) => Some(days.checked_add(DAYS_TO_2000).ok_or(Stop::Error(CopyError::InfiniteDate))?),
        };
        Ok(Some(Row { texts, app_version, create_date }))
    }

    fn integer(&mut self, column: &'static str) -> Result<Option<i32>, Stop> {
        let Some(bytes) = self.field(column)? else { return Ok(None) };
        let bytes = bytes.try_into().map_err(|_| Stop::Error(CopyError::WrongLength { column }))?;
        Ok(Some(i32::from_be_bytes(bytes)))
    }

    /// Returns the bytes of a field, or `None` for a null.
    fn field(&mut self, column: &'static str) -> Result<Option<&'a [u8]>, Stop> {
        match self.i32()? {
            NULL => Ok(None),
            length => {
                let length =
                    usize::try_from(length).map_err(|_| Stop::Error(CopyError::WrongLength { column }))?;
                self.take(length).map(Some)
            }
        }
    }

    fn i32(&mut self) -> Result<i32, Stop> {
        self.array().map(i32::from_be_bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Stop> {
        let (array, rest) = self.0.split_first_chunk().ok_or(Stop::Incomplete)?;
        self.0 = rest;
        Ok(*array)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Stop> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Stop::Incomplete)?;
        self.0 = rest;
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header, a row and the end marker.
    fn stream(row: &[u8]) -> Vec<u8> {
        [SIGNATURE, &[0; 8], row, &[0xff, 0xff]].concat()
    }

    fn fields(fields: [Option<&[u8]>; 7]) -> Vec<u8> {
        let mut bytes = vec![0, 7];
        for field in fields {
            let length = field.map_or(NULL, |field| i32::try_from(field.len()).unwrap());
            bytes.extend_from_slice(&length.to_be_bytes());
            bytes.extend_from_slice(field.unwrap_or_default());
        }
        bytes
    }

    /// Returns the error of decoding the whole stream.
    fn error(stream: &[u8]) -> Option<CopyError> {
        let mut decoder = CopyDecoder::default();
        decoder.push(stream);
        loop {
            match decoder.next_row() {
                Ok(Some(_)) => {}
                Ok(None) => return decoder.finish().err(),
                Err(error) => return Some(error),
            }
        }
    }

    #[test]
    fn row_is_decoded_at_each_cut() {
        let row =
            [Some("ü".as_bytes()), Some(b""), None, None, None, Some(&[0, 0, 0, 9]), Some(&[0, 0, 0, 1])];
        let stream = stream(&fields(row));
        for cut in 0..=stream.len() {
            let mut decoder = CopyDecoder::default();
            let mut rows = 0;
            for half in [&stream[..cut], &stream[cut..]] {
                decoder.push(half);
                while let Some(row) = decoder.next_row().unwrap() {
                    let texts = [Some("ü"), Some(""), None, None, None];
                    assert_eq!(row, Row { texts, app_version: Some(9), create_date: Some(10_958) });
                    rows += 1;
                }
            }
            assert_eq!((rows, decoder.finish()), (1, Ok(())), "{cut}");
        }
    }

    #[test]
    fn other_bytes_are_errors_without_values() {
        let good = stream(&fields([None; 7]));
        let with_oids = [SIGNATURE, &[0, 1, 0, 0, 0, 0, 0, 0]].concat();
        let number =
            |bytes: &'static [u8]| stream(&fields([None, None, None, None, None, Some(bytes), None]));
        let date = |bytes: &'static [u8]| stream(&fields([None, None, None, None, None, None, Some(bytes)]));

        assert_eq!(error(&good), None);
        assert_eq!(error(&good[..good.len() - 1]), Some(CopyError::Truncated));
        assert_eq!(error(&[&good[..], b"x"].concat()), Some(CopyError::AfterEnd));
        assert_eq!(error(&[b"x", &good[..]].concat()), Some(CopyError::UnknownFormat));
        assert_eq!(error(&with_oids), Some(CopyError::UnknownFormat));
        assert_eq!(error(&stream(&[0, 6])), Some(CopyError::WrongColumns));
        assert_eq!(error(&number(&[0, 0, 1])), Some(CopyError::WrongLength { column: "app_version" }));
        assert_eq!(error(&date(&[0x7f, 0xff, 0xff, 0xff])), Some(CopyError::InfiniteDate));
        assert_eq!(
            error(&stream(&fields([Some(&[0xff]), None, None, None, None, None, None]))),
            Some(CopyError::NotUtf8 { column: "user_id" })
        );
    }
}
