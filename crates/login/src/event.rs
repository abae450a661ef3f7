//! The invocation's payload as messages: reads what Lambda's event-source mapping sends.
//!
//! The payload is taken apart here and not by `aws_lambda_events`, because its parser refuses the
//! whole batch for one bad field and its errors quote the value that they refuse.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// One message of the batch, as the queue delivered it: nothing in it has been judged yet.
///
/// It has no `Debug`, since the body is personal data.
#[expect(missing_debug_implementations, reason = "the body is personal data")]
pub struct SqsMessage<'a> {
    /// The id that SQS gave the message, the same at every redelivery.
    pub id: Cow<'a, str>,
    /// The body, still as JSON source: a string literal, `null`, or something that is neither.
    pub(crate) body: Option<&'a RawValue>,
    /// `SentTimestamp`, still as JSON source.
    pub sent_timestamp: Option<&'a RawValue>,
    /// `ApproximateReceiveCount`, still as JSON source.
    receive_count: Option<&'a RawValue>,
    /// The message group within which the order counts, that is, of a FIFO queue.
    ///
    /// Standard queues may carry a `MessageGroupId` too (for fair queues), but promise no order:
    /// there it is ignored.
    pub group: Option<Cow<'a, str>>,
}

/// Why a payload cannot be read, which fails the whole batch.
#[derive(Clone, Debug, PartialEq, Eq, strum::IntoStaticStr, strum::VariantNames, thiserror::Error)]
pub enum EventError {
    /// The payload is not an SQS event.
    #[error("the payload is not an SQS event, at line {line}, column {column}")]
    MalformedEvent {
        /// From 1.
        line: usize,
        /// In bytes.
        column: usize,
    },
    /// A message has no id, so its failure could not be reported.
    #[error("the message at position {position} has no messageId")]
    MissingMessageId {
        /// The place in the batch, from 0.
        position: usize,
    },
}

impl SqsMessage<'_> {
    /// How often the message has been delivered, this time included, where SQS says so.
    #[must_use]
    pub fn receive_count(&self) -> Option<u64> {
        // Lambda sends the digits as a string.
        self.receive_count?.get().trim_matches('"').parse().ok()
    }
}

impl EventError {
    /// The error's stable name, which is the `errorType` of the invocation that it ends.
    #[must_use]
    pub fn error_type(&self) -> &'static str {
        self.into()
    }
}

/// Reads the messages of an SQS event.
///
/// # Errors
///
/// [`EventError::MalformedEvent`] if the payload is not an SQS event, and
/// [`EventError::MissingMessageId`] if a message has no id: its failure could not be reported, so
/// nothing of the batch is touched. See [the event's shape][aws].
///
/// [aws]: https://docs.aws.amazon.com/lambda/latest/dg/with-sqs.html#example-standard-queue-message-event
pub fn read(payload: &[u8]) -> Result<Vec<SqsMessage<'_>>, EventError> {
    let text = str::from_utf8(payload).map_err(|error| not_text(&payload[..error.valid_up_to()]))?;
    let Object(event): Object<Event<'_>> = serde_json::from_str(text)
        .map_err(|error| EventError::MalformedEvent { line: error.line(), column: error.column() })?;
    let numbered = event.records.into_iter().enumerate();
    numbered.map(|(position, Object(record))| record.into_message(position)).collect()
}

/// The error for a payload that is text no further than this.
fn not_text(read: &[u8]) -> EventError {
    let lines = read.split(|byte| *byte == b'\n').enumerate();
    let (breaks, last_line) = lines.last().unwrap_or_default();
    EventError::MalformedEvent { line: breaks + 1, column: last_line.len() + 1 }
}

#[derive(serde::Deserialize)]
struct Event<'a> {
    #[serde(borrow, rename = "Records")]
    records: Vec<Object<Record<'a>>>,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record<'a> {
    #[serde(borrow)]
    message_id: Option<Text<'a>>,
    #[serde(borrow)]
    body: Option<&'a RawValue>,
    #[serde(borrow)]
    attributes: Option<Object<Attributes<'a>>>,
    #[serde(borrow, rename = "eventSourceARN")]
    event_source_arn: Option<Text<'a>>,
}

#[derive(Default, serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Attributes<'a> {
    #[serde(borrow)]
    sent_timestamp: Option<&'a RawValue>,
    #[serde(borrow, rename = "ApproximateReceiveCount")]
    receive_count: Option<&'a RawValue>,
    #[serde(borrow)]
    message_group_id: Option<Text<'a>>,
}

/// A string that is borrowed where the JSON has no escapes. (Serde borrows a `Cow` on its own, but
/// not one inside an `Option`.)
#[derive(Default, serde::Deserialize)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// What is a JSON object, and nothing else: serde's derive alone takes an array for one, field by
/// field, and `[[]]` for a batch of no messages.
struct Object<T>(T);

impl<'a> Record<'a> {
    fn into_message(self, position: usize) -> Result<SqsMessage<'a>, EventError> {
        let attributes = self.attributes.map(|Object(attributes)| attributes).unwrap_or_default();
        let fifo = self.event_source_arn.is_some_and(|arn| arn.0.ends_with(".fifo"));
        Ok(SqsMessage {
            id: self
                .message_id
                .map(|id| id.0)
                .filter(|id| !id.is_empty())
                .ok_or(EventError::MissingMessageId { position })?,
            body: self.body,
            sent_timestamp: attributes.sent_timestamp,
            receive_count: attributes.receive_count,
            // A FIFO message always has a group; if a hand-made one has none, it is ordered with
            // its like, which is the careful reading.
            group: fifo.then(|| attributes.message_group_id.unwrap_or_default().0),
        })
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor(PhantomData))
    }
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = Object<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(Object)
    }
}
