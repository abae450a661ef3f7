//! The key of a message: its identity, and its place in the batch.

use std::time::{Duration, SystemTime};

use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use uuid::fmt::Hyphenated;
use uuid::{Builder, Uuid};

use crate::decode::DecodeError;
use crate::event::SqsMessage;
use crate::json_string;

/// The last millisecond of the year 9999: most Postgres clients cannot print a later date.
const MAX_SENT_MILLIS: u64 = 253_402_300_799_999;

/// `sent_at` and `ledger_id` identify the message and are the same at every delivery. `position` and `group`
/// are its place in this batch. Keys sort as the ledger does.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MessageKey<'m> {
    /// When the message was sent.
    pub sent_at: SystemTime,
    /// The message's id, as the ledger keeps it.
    pub ledger_id: Uuid,
    /// The message's place in the batch, from 0.
    pub position: usize,
    /// The FIFO message group; `None` on a standard queue.
    pub group: Option<&'m str>,
}

impl<'m> MessageKey<'m> {
    /// Reads the key of the message at `position` of its batch.
    ///
    /// A message without a `SentTimestamp`, as in hand-made test events, counts as sent at `today`.
    ///
    /// # Errors
    ///
    /// [`DecodeError::BadSentTimestamp`].
    pub fn read(
        message: &'m SqsMessage<'_>,
        position: usize,
        today: SystemTime,
    ) -> Result<Self, DecodeError> {
        Ok(Self {
            sent_at: message.sent_timestamp.map_or(Ok(today), sent_at)?,
            ledger_id: ledger_id(&message.id),
            position,
            group: message.group.as_deref(),
        })
    }
}

fn sent_at(timestamp: &RawValue) -> Result<SystemTime, DecodeError> {
    // Lambda sends the digits as a string. A person may write them as a number.
    let source = timestamp.get();
    let unescaped;
    let digits = match json_string::inside_quotes(source) {
        None => source,
        Some(digits) if !digits.contains('\\') => digits,
        Some(_) => {
            unescaped = json_string::unescape(source).and_then(Result::ok);
            unescaped.as_deref().map_or("", String::as_str)
        }
    };
    let millis = digits.parse().ok().filter(|millis| *millis <= MAX_SENT_MILLIS);
    // `parse` would accept a sign.
    match millis {
        Some(millis) if !digits.starts_with('+') => {
            Ok(SystemTime::UNIX_EPOCH + Duration::from_millis(millis))
        }
        _ => Err(DecodeError::BadSentTimestamp),
    }
}

/// Returns the 16 bytes that the ledger keeps of a message id. The ids of SQS are UUIDs and stay as they
/// are. Any other id, as in test events, becomes the UUID (version 8) of its SHA-256.
fn ledger_id(message_id: &str) -> Uuid {
    // Only the spelling that SQS uses: otherwise two ids of different spelling would count as one.
    let spelt_as_by_sqs =
        message_id.len() == Hyphenated::LENGTH && !message_id.bytes().any(|byte| byte.is_ascii_uppercase());
    match Uuid::try_parse(message_id) {
        Ok(id) if spelt_as_by_sqs => id,
        _ => {
            let digest: [u8; 32] = Sha256::digest(message_id).into();
            let mut first_half = [0; 16];
            first_half.copy_from_slice(&digest[..16]);
            Builder::from_custom_bytes(first_half).into_uuid()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sqs_ids_are_their_own_ledger_ids() {
        let id = "059f36b4-87a3-44ab-83d2-661975830a7d";

        assert_eq!(ledger_id(id).to_string(), id);
        let others = [
            "any other",
            "059F36B4-87A3-44AB-83D2-661975830A7D",
            "059f36b487a344ab83d2661975830a7d",
            "{059f36b4-87a3-44ab-83d2-661975830a7d}",
            "urn:uuid:059f36b4-87a3-44ab-83d2-661975830a7d",
        ];
        for other in others {
            assert_eq!(ledger_id(other).get_version_num(), 8, "{other}");
        }
    }

    #[test]
    fn escaped_timestamp_equals_plain_one() {
        let read = |json| sent_at(serde_json::from_str(json).unwrap()).unwrap();

        assert_eq!(read(r#""179\u0034614400000""#), read("1794614400000"));
    }
}
