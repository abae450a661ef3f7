//! The erasure list: an object in a bucket for each erasure, so that a restored backup can repeat it.
//!
//! The vault writes the object before it commits the erasure ([`ErasureList::put`]). So the list has each erasure that
//! the database has. `migrate` replays what the database does not have: `schema::vault::replay`.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::aws::bucket::{Bucket, BucketError, Keys};
use crate::aws::secrets::Secrets;
use crate::config::ErasureBucket;

/// Where the objects are in the bucket. `vault_list` makes their keys.
const PREFIX: &str = "erasures/";
const FORMAT: u8 = 1;

/// The bucket of the erasure list.
#[derive(Debug)]
pub struct ErasureList {
    bucket: Bucket,
}

/// An erasure, as it is in its object. It names neither a person nor a value.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Erasure {
    format: u8,
    /// When the database erased, in UTC and with microseconds.
    pub erased_at: String,
    /// The tokens whose values are erased.
    pub tokens: Vec<String>,
    /// Whether later values are kept out, too.
    pub never_again: bool,
    /// Whether the tokens are erased in the rows of `user_logins`, too.
    pub rows: bool,
    /// The fingerprint of the salt of the tokens; `None` before the first batch.
    pub salt_fingerprint: Option<String>,
}

/// Why the content of an object is not an erasure. The text quotes nothing of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// The object is not JSON, or lacks a key, or has a key too many.
    #[error("it is not the object of an erasure")]
    NotAnErasure,
    /// The object has another format.
    #[error("its format is unknown: use the migrate of the version that wrote it")]
    OtherFormat,
    /// The time has the wrong form.
    #[error("its erased_at is not a time")]
    NotATime,
    /// A token has the wrong form.
    #[error("one of its tokens is not a token")]
    NotAToken,
}

#[derive(Deserialize)]
struct Format {
    format: u64,
}

impl ErasureList {
    /// Sends nothing yet.
    #[must_use]
    pub fn new(secrets: &Secrets, ErasureBucket { name, endpoint }: &ErasureBucket) -> Self {
        Self { bucket: Bucket::new(secrets.sdk_config().clone(), name, endpoint.as_deref()) }
    }

    /// Writes an erasure.
    ///
    /// # Errors
    ///
    /// [`BucketError`]: the object may be written all the same.
    pub async fn put(&self, key: &str, erasure: &Erasure) -> Result<(), BucketError> {
        let content = serde_json::to_vec(erasure).unwrap_or_else(|_| unreachable!("its keys are texts"));
        self.bucket.put(key, &content).await
    }

    /// Returns the keys of the objects after a key, the oldest first.
    ///
    /// # Errors
    ///
    /// [`BucketError`].
    pub async fn keys(&self, after: &str) -> Result<Keys, BucketError> {
        self.bucket.list(PREFIX, after).await
    }

    /// Returns the content of an object.
    ///
    /// # Errors
    ///
    /// [`BucketError`].
    pub async fn get(&self, key: &str) -> Result<Bytes, BucketError> {
        self.bucket.get(key).await
    }
}

impl Erasure {
    /// An erasure of this format.
    #[must_use]
    pub fn new(
        erased_at: String,
        tokens: Vec<String>,
        never_again: bool,
        rows: bool,
        salt_fingerprint: Option<String>,
    ) -> Self {
        Self { format: FORMAT, erased_at, tokens, never_again, rows, salt_fingerprint }
    }

    /// Reads the content of an object.
    ///
    /// # Errors
    ///
    /// [`Unreadable`].
    pub fn read(content: &[u8]) -> Result<Self, Unreadable> {
        let Format { format } = serde_json::from_slice(content).map_err(|_| Unreadable::NotAnErasure)?;
        if format != u64::from(FORMAT) {
            return Err(Unreadable::OtherFormat);
        }
        let erasure: Self = serde_json::from_slice(content).map_err(|_| Unreadable::NotAnErasure)?;
        if !is_time(&erasure.erased_at) {
            return Err(Unreadable::NotATime);
        }
        if erasure.tokens.iter().any(|token| !is_token(token)) {
            return Err(Unreadable::NotAToken);
        }
        Ok(erasure)
    }
}

fn is_token(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
}

/// Whether Postgres reads the text as the time that it means, such as `2026-11-27T12:31:01.000001Z`.
fn is_time(text: &str) -> bool {
    let has_form = text.len() == 27
        && text.bytes().zip(*b"0000-00-00T00:00:00.000000Z").all(|(byte, of_form)| match of_form {
            b'0' => byte.is_ascii_digit(),
            of_form => byte == of_form,
        });
    let number = |from: usize, to: usize| text[from..to].parse::<u16>().unwrap_or_default();
    has_form && {
        let (year, month, day) = (number(0, 4), number(5, 7), number(8, 10));
        let is_leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
        let last_day = match month {
            2 => 28 + u16::from(is_leap),
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        };
        year > 0
            && (1..=12).contains(&month)
            && (1..=last_day).contains(&day)
            && number(11, 13) < 24
            && number(14, 16) < 60
            && number(17, 19) < 60
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const AT: &str = "2026-11-27T12:31:01.000001Z";

    fn object(change: impl FnOnce(&mut Value)) -> Vec<u8> {
        let mut object = json!({
            "format": 1, "erased_at": AT, "tokens": ["0a".repeat(32)], "never_again": false, "rows": true,
            "salt_fingerprint": "3b0a1a8fbcb7edc1",
        });
        change(&mut object);
        object.to_string().into_bytes()
    }

    #[test]
    fn written_erasure_is_read_again() {
        let fingerprint = Some("3b0a1a8fbcb7edc1".to_owned());
        let erasure = Erasure::new(AT.to_owned(), vec!["0a".repeat(32)], false, true, fingerprint);

        assert_eq!(Erasure::read(&serde_json::to_vec(&erasure).unwrap()), Ok(erasure.clone()));
        assert_eq!(Erasure::read(&object(|_| {})), Ok(erasure));
    }

    #[test]
    fn other_contents_are_unreadable() {
        let wrong = |change: fn(&mut Value)| Erasure::read(&object(change)).unwrap_err();

        assert_eq!(Erasure::read(b"").unwrap_err(), Unreadable::NotAnErasure);
        assert_eq!(Erasure::read(b"[]").unwrap_err(), Unreadable::NotAnErasure);
        assert_eq!(wrong(|object| object["format"] = json!(2)), Unreadable::OtherFormat);
        assert_eq!(wrong(|object| object["user_id"] = json!("u")), Unreadable::NotAnErasure);
        assert_eq!(wrong(|object| object["rows"] = json!("yes")), Unreadable::NotAnErasure);
        assert_eq!(wrong(|object| object["tokens"][0] = json!("192.0.2.1")), Unreadable::NotAToken);
        assert_eq!(wrong(|object| object["tokens"][0] = json!("0A".repeat(32))), Unreadable::NotAToken);
    }

    #[test]
    fn only_times_of_the_calendar_are_read() {
        for time in [AT, "2024-02-29T23:59:59.999999Z", "2000-02-29T00:00:00.000000Z"] {
            assert!(is_time(time), "{time}");
        }
        for time in [
            "",
            "infinity",
            "2026-11-27 12:31:01.000001Z",
            "2026-11-27T12:31:01.000001+",
            "2026-02-29T00:00:00.000000Z",
            "2100-02-29T00:00:00.000000Z",
            "2026-04-31T00:00:00.000000Z",
            "2026-13-01T00:00:00.000000Z",
            "2026-00-01T00:00:00.000000Z",
            "0000-01-01T00:00:00.000000Z",
            "2026-11-27T24:00:00.000000Z",
            "2026-11-27T12:60:00.000000Z",
            "2026-11-27T12:31:60.000000Z",
            "2026-11-27T12:31:01.00000é",
        ] {
            assert!(!is_time(time), "{time}");
        }
    }
}
