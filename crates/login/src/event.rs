//! Reads the event of an SQS event-source mapping as messages.
//!
//! `aws_lambda_events` is not used to read it: its parser fails the whole batch for one bad field, and its
//! errors quote the value.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// One message of the batch, as the queue delivered it: nothing but its id is checked yet.
#[expect(missing_debug_implementations, reason = "the body is personal data")]
pub struct SqsMessage<'a> {
    /// The id that SQS gave the message: the same at every delivery, never empty.
    pub id: Cow<'a, str>,
    /// The body, still as JSON source. In a sound event it is a string.
    pub(crate) body: Option<&'a RawValue>,
    /// `SentTimestamp`, still as JSON source.
    pub(crate) sent_timestamp: Option<&'a RawValue>,
    /// `ApproximateReceiveCount`, still as JSON source.
    receive_count: Option<&'a RawValue>,
    /// `receiptHandle`, still as JSON source.
    receipt_handle: Option<&'a RawValue>,
    /// The ARN of the queue.
    pub queue_arn: Option<Cow<'a, str>>,
    /// The message group of a FIFO queue, within which the order must be kept.
    ///
    /// A message of a standard queue may have a `MessageGroupId` too (for fair queues), but such a queue
    /// keeps no order, so the id is ignored.
    pub group: Option<Cow<'a, str>>,
}

/// Why an event cannot be read. It fails the whole batch.
#[derive(Clone, Debug, PartialEq, Eq, strum::IntoStaticStr, strum::VariantNames, thiserror::Error)]
pub enum EventError {
    /// The event is not an SQS event.
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
        /// The message's place in the batch, from 0.
        position: usize,
    },
}

impl SqsMessage<'_> {
    /// Whether the message says when it was sent.
    #[must_use]
    pub fn has_sent_timestamp(&self) -> bool {
        self.sent_timestamp.is_some()
    }

    /// Returns how often SQS has delivered the message, this delivery included.
    #[must_use]
    pub fn receive_count(&self) -> Option<u64> {
        // Lambda sends the digits as a string.
        self.receive_count?.get().trim_matches('"').parse().ok()
    }

    /// Returns the name of the queue, of the [characters][names] that SQS allows. `None` where anything else stands:
    /// then the event does not come from SQS.
    ///
    /// [names]: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-queues.html
    #[must_use]
    pub fn queue_name(&self) -> Option<&str> {
        let (_, name) = self.queue_arn.as_deref()?.rsplit_once(':')?;
        let characters = name.strip_suffix(".fifo").unwrap_or(name);
        let is_name = (1..=80).contains(&name.len())
            && characters.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
        is_name.then_some(name)
    }

    /// Returns the handle by which SQS knows this delivery of the message.
    #[must_use]
    pub fn receipt_handle(&self) -> Option<String> {
        serde_json::from_str(self.receipt_handle?.get()).ok()
    }
}

impl EventError {
    /// Returns the error's stable name: the `errorType` of the invocation.
    #[must_use]
    pub fn error_type(&self) -> &'static str {
        self.into()
    }
}

/// Reads the messages of an SQS event, whose [shape][aws] AWS documents.
///
/// # Errors
///
/// [`EventError::MalformedEvent`], or [`EventError::MissingMessageId`]: the failure of such a message
/// could not be reported, so no message of the batch is written.
///
/// [aws]: https://docs.aws.amazon.com/lambda/latest/dg/with-sqs.html#example-standard-queue-message-event
pub fn read(event: &[u8]) -> Result<Vec<SqsMessage<'_>>, EventError> {
    let text = str::from_utf8(event).map_err(|error| not_utf8(&event[..error.valid_up_to()]))?;
    let Object(event): Object<Event<'_>> = serde_json::from_str(text)
        .map_err(|error| EventError::MalformedEvent { line: error.line(), column: error.column() })?;
    let numbered = event.records.into_iter().enumerate();
    numbered.map(|(position, Object(record))| record.into_message(position)).collect()
}

/// Makes the error for an event of which only this beginning is UTF-8.
fn not_utf8(valid: &[u8]) -> EventError {
    let lines = valid.split(|byte| *byte == b'\n').enumerate();
    let (line_breaks, last_line) = lines.last().unwrap_or_default();
    EventError::MalformedEvent { line: line_breaks + 1, column: last_line.len() + 1 }
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
    #[serde(borrow)]
    receipt_handle: Option<&'a RawValue>,
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

/// A string that is borrowed where it has no escapes. (Serde borrows into a `Cow`, but not into a `Cow`
/// inside an `Option`.)
#[derive(Default, serde::Deserialize)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// Reads a JSON object and refuses an array. Serde's derive would read an array field by field, and
/// `[[]]` as a batch of no messages.
struct Object<T>(T);

impl<'a> Record<'a> {
    fn into_message(self, position: usize) -> Result<SqsMessage<'a>, EventError> {
        let attributes = self.attributes.map(|Object(attributes)| attributes).unwrap_or_default();
        let queue_arn = self.event_source_arn.map(|arn| arn.0);
        let fifo = queue_arn.as_ref().is_some_and(|arn| arn.ends_with(".fifo"));
        Ok(SqsMessage {
            id: self
                .message_id
                .map(|id| id.0)
                .filter(|id| !id.is_empty())
                .ok_or(EventError::MissingMessageId { position })?,
            body: self.body,
            sent_timestamp: attributes.sent_timestamp,
            receive_count: attributes.receive_count,
            receipt_handle: self.receipt_handle,
            queue_arn,
            // SQS gives every FIFO message a group. Hand-made FIFO messages without one share a group, so
            // that their order is kept too.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_read_where_present() {
        let event = br#"{"Records": [
            {"messageId": "a", "attributes": {"SentTimestamp": "1", "ApproximateReceiveCount": "3"}},
            {"messageId": "b", "receiptHandle": "h\/1", "attributes": {"ApproximateReceiveCount": "many"}},
            {"messageId": "c", "receiptHandle": 1, "eventSourceARN": "arn"}
        ]}"#;

        let messages = read(event).unwrap();

        let attributes =
            messages.iter().map(|message| (message.has_sent_timestamp(), message.receive_count()));
        assert_eq!(attributes.collect::<Vec<_>>(), [(true, Some(3)), (false, None), (false, None)]);
        let handles = messages.iter().map(|message| (message.receipt_handle(), message.queue_arn.as_deref()));
        assert_eq!(
            handles.collect::<Vec<_>>(),
            [(None, None), (Some("h/1".into()), None), (None, Some("arn"))]
        );
    }

    #[test]
    fn queues_are_named_in_their_own_characters() {
        let long = format!("arn:aws:sqs:us-east-1:123456789012:{}", "q".repeat(81));
        let arns = [
            "arn:aws:sqs:us-east-1:123456789012:login_queue-1",
            "arn:aws:sqs:us-east-1:123456789012:logins.fifo",
            "login-queue",
            "arn:aws:sqs:us-east-1:123456789012:",
            "arn:aws:sqs:us-east-1:123456789012:203.0.113.7",
            &long,
        ];
        let records: Vec<_> =
            arns.iter().map(|arn| serde_json::json!({"messageId": "m", "eventSourceARN": arn})).collect();
        let event = serde_json::json!({ "Records": records }).to_string();

        let messages = read(event.as_bytes()).unwrap();

        let names: Vec<_> = messages.iter().map(SqsMessage::queue_name).collect();
        assert_eq!(names, [Some("login_queue-1"), Some("logins.fifo"), None, None, None, None]);
    }

    #[test]
    fn event_that_is_not_utf8_has_a_place() {
        let error = read(b"{\n\"Records\": \xff").err().unwrap();

        assert_eq!(error, EventError::MalformedEvent { line: 2, column: 12 });
        assert_eq!(error.error_type(), "MalformedEvent");
    }
}
