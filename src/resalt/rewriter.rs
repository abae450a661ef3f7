//! Replaces tokens in the [binary format] of COPY. A new token has the length of the old token, so each is replaced in
//! its place, and all other bytes stay.
//!
//! [binary format]: https://www.postgresql.org/docs/current/sql-copy.html#id-1.9.3.55.9.4

use bytes::{Bytes, BytesMut};
use login::pii::Resalter;

use crate::schema::SchemaError;

const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";
/// The signature, the flags and the length of an extension. Postgres sends no extension.
const HEADER_LENGTH: usize = SIGNATURE.len() + 8;
/// The number of fields in the end marker.
const END_MARKER: i16 = -1;

/// Replaces the tokens of some columns in a stream of rows, wherever its chunks end.
#[derive(Debug)]
pub(super) struct Rewriter<'r> {
    resalter: &'r mut Resalter,
    tokens: &'r Tokens,
    buffer: BytesMut,
    state: State,
    rows: u64,
    /// Number of values that are no tokens, and stay as they are.
    others: u64,
}

/// Where the tokens of a table are, and how they are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Tokens {
    /// The places of at most two columns with texts of 64 digits.
    Digits(Vec<usize>),
    /// The place of the column with the 32 bytes that the digits stand for.
    Bytes(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Header,
    Rows,
    End,
}

/// The bytes are not what Postgres sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Postgres sent no binary COPY of a known form")]
pub(super) struct UnknownFormat;

impl From<UnknownFormat> for SchemaError {
    fn from(error: UnknownFormat) -> Self {
        Self::Postgres(error.to_string())
    }
}

impl<'r> Rewriter<'r> {
    pub(super) fn new(resalter: &'r mut Resalter, tokens: &'r Tokens) -> Self {
        Self { resalter, tokens, buffer: BytesMut::new(), state: State::Header, rows: 0, others: 0 }
    }

    /// Adds the next bytes.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Returns the number of bytes that were added and not returned.
    pub(super) fn pending(&self) -> usize {
        self.buffer.len()
    }

    /// Returns the bytes of all rows that are complete, with their new tokens.
    pub(super) fn take_rows(&mut self) -> Result<Bytes, UnknownFormat> {
        let mut place = 0;
        if self.state == State::Header {
            if self.buffer.len() < HEADER_LENGTH {
                return Ok(Bytes::new());
            }
            if !self.buffer.starts_with(SIGNATURE) || self.buffer[SIGNATURE.len()..HEADER_LENGTH] != [0; 8] {
                return Err(UnknownFormat);
            }
            place = HEADER_LENGTH;
            self.state = State::Rows;
        }
        while self.state == State::Rows
            && let Some(end) = self.rewrite_row(place)?
        {
            place = end;
        }
        Ok(self.buffer.split_to(place).freeze())
    }

    /// Checks that the end marker came, and returns the number of rows, and of values that are no tokens.
    pub(super) fn finish(self) -> Result<(u64, u64), UnknownFormat> {
        let is_complete = self.state == State::End && self.buffer.is_empty();
        if is_complete { Ok((self.rows, self.others)) } else { Err(UnknownFormat) }
    }

    /// Replaces the tokens of the row that begins here, and returns where it ends; `None` if it is not complete.
    fn rewrite_row(&mut self, start: usize) -> Result<Option<usize>, UnknownFormat> {
        let Some(fields) = self.number(start).map(i16::from_be_bytes) else { return Ok(None) };
        let mut place = start + 2;
        if fields == END_MARKER {
            self.state = State::End;
            return Ok(Some(place));
        }
        // Only a complete row is changed: it is read again if it is not.
        let mut found = [(0, 0); 2];
        for field in 0..usize::try_from(fields).map_err(|_| UnknownFormat)? {
            let Some(length) = self.number(place).map(i32::from_be_bytes) else { return Ok(None) };
            place += 4;
            let Ok(length) = usize::try_from(length) else { continue };
            if let Some(number) = self.tokens.columns().iter().position(|column| *column == field) {
                *found.get_mut(number).ok_or(UnknownFormat)? = (place, length);
            }
            place += length;
        }
        if self.buffer.len() < place {
            return Ok(None);
        }
        for (start, length) in found {
            if length > 0 && !self.tokens.replace(&mut self.buffer[start..start + length], self.resalter) {
                self.others += 1;
            }
        }
        self.rows += 1;
        Ok(Some(place))
    }

    fn number<const LENGTH: usize>(&self, start: usize) -> Option<[u8; LENGTH]> {
        self.buffer.get(start..start + LENGTH)?.try_into().ok()
    }
}

impl Tokens {
    fn columns(&self) -> &[usize] {
        match self {
            Self::Digits(columns) => columns,
            Self::Bytes(column) => std::slice::from_ref(column),
        }
    }

    /// Replaces a token. Returns `false` for a value that is none.
    fn replace(&self, value: &mut [u8], resalter: &mut Resalter) -> bool {
        match self {
            Self::Digits(_) => {
                let is_digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
                let Ok(digits) = <&mut [u8; 64]>::try_from(value) else { return false };
                if !digits.iter().all(is_digit) {
                    return false;
                }
                *digits = resalter.resalt(digits);
            }
            Self::Bytes(_) => {
                let Ok(bytes) = <&mut [u8; 32]>::try_from(value) else { return false };
                *bytes = resalt_bytes(bytes, resalter);
            }
        }
        true
    }
}

/// Returns the new token of a token, both as the bytes that their digits stand for.
pub(super) fn resalt_bytes(token: &[u8; 32], resalter: &mut Resalter) -> [u8; 32] {
    let mut digits = [0; 64];
    let mut bytes = [0; 32];
    let encoded = base16ct::lower::encode(token, &mut digits).is_ok();
    let decoded = base16ct::lower::decode(resalter.resalt(&digits), &mut bytes).is_ok();
    assert!(encoded && decoded, "32 bytes are 64 digits");
    bytes
}

#[cfg(test)]
mod tests {
    use login::pii::{Masker, Salts};

    use super::*;

    const SALT: &str = "0123456789abcdef0123456789abcdef";

    fn resalter() -> Resalter {
        let first = Masker::new(&SALT.into()).unwrap().salt_fingerprint();
        Salts::new(SALT.into(), vec!["fedcba9876543210fedcba9876543210".into()])
            .resalter(&first)
            .unwrap()
            .unwrap()
    }

    fn copied(rows: &[Vec<Option<&[u8]>>]) -> Vec<u8> {
        let mut bytes = [SIGNATURE, &[0; 8]].concat();
        for row in rows {
            bytes.extend(i16::try_from(row.len()).unwrap().to_be_bytes());
            for field in row {
                let length = field.map_or(-1, |field| i32::try_from(field.len()).unwrap());
                bytes.extend(length.to_be_bytes());
                bytes.extend(field.unwrap_or_default());
            }
        }
        bytes.extend(END_MARKER.to_be_bytes());
        bytes
    }

    fn rewrite(bytes: &[u8], chunk: usize, tokens: &Tokens) -> Result<(Vec<u8>, (u64, u64)), UnknownFormat> {
        let mut resalter = resalter();
        let mut rewriter = Rewriter::new(&mut resalter, tokens);
        let mut rewritten = Vec::new();
        for chunk in bytes.chunks(chunk) {
            rewriter.push(chunk);
            rewritten.extend(rewriter.take_rows()?);
        }
        Ok((rewritten, rewriter.finish()?))
    }

    #[test]
    fn tokens_are_replaced_wherever_the_chunks_end() {
        let (old, other) = ([b'a'; 64], [b'5'; 64]);
        let (new, other_new) = (resalter().resalt(&old), resalter().resalt(&other));
        let upper = [b'A'; 64];
        let rows = |one, two| {
            copied(&[
                vec![Some(b"user"), Some(one), None, Some(two), Some(&[7; 64])],
                vec![None, None, Some(&old), Some(&upper), None],
                // As long as the bytes of a token, but a text.
                vec![Some(b""), Some(&old[..32]), None, None, Some(&[])],
            ])
        };
        let before = rows(&old, &other);
        for chunk in 1..=before.len() {
            let (after, counts) = rewrite(&before, chunk, &Tokens::Digits(vec![1, 3])).unwrap();

            assert_eq!(after, rows(&new, &other_new));
            assert_eq!(counts, (3, 2));
        }
    }

    #[test]
    fn bytes_are_replaced_as_their_digits() {
        let (old, digits) = ([0xab; 32], b"ab".repeat(32));
        let new = resalter().resalt(&digits.try_into().unwrap());
        let new = base16ct::lower::decode_vec(new).unwrap();

        let (after, counts) =
            rewrite(&copied(&[vec![Some(&old), Some(&old)]]), 7, &Tokens::Bytes(1)).unwrap();

        assert_eq!(after, copied(&[vec![Some(&old), Some(&new)]]));
        assert_eq!(counts, (1, 0));
    }

    #[test]
    fn stream_that_is_cut_or_unknown_is_refused() {
        let whole = copied(&[vec![Some(b"user")]]);
        for end in 0..whole.len() {
            assert_eq!(rewrite(&whole[..end], 5, &Tokens::Bytes(0)).err(), Some(UnknownFormat));
        }
        let mut longer = whole.clone();
        longer.push(0);
        let mut with_oids = whole;
        with_oids[SIGNATURE.len() + 1] = 1;
        for bytes in [longer, with_oids] {
            assert_eq!(rewrite(&bytes, 5, &Tokens::Bytes(0)).err(), Some(UnknownFormat));
        }
    }
}
