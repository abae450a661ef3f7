//! Recognises envelopes: JSON that AWS services and their clients put around a body, or send instead of it.
//!
//! An envelope is recognised by keys that all real ones have, so that a login with an unknown key `body` or
//! `Event` is not taken for an envelope.

use std::str::FromStr;

use serde_json::value::RawValue;
use strum::EnumCount;

use crate::flat_body::{EnvelopeKey, FlatBody};
use crate::flatten::flatten;
use crate::json_string;

/// The sources of the records that are not unwrapped, each with a key that all records of the source have. Most of
/// them hold base64. AWS documents [the records][pipes] under each source of EventBridge Pipes.
///
/// [pipes]: https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-pipes-event-source.html
const OTHER_RECORDS: [(&str, EnvelopeKey); 6] = [
    ("aws:kinesis", EnvelopeKey::Data),
    ("aws:dynamodb", EnvelopeKey::Dynamodb),
    ("aws:kafka", EnvelopeKey::Topic),
    ("SelfManagedKafka", EnvelopeKey::Topic),
    ("aws:amq", EnvelopeKey::Data),
    ("aws:rmq", EnvelopeKey::Data),
];

const RECOGNISERS: [for<'t> fn(&FlatBody<'t>) -> Option<Envelope<'t>>; 8] = [
    sns_notification,
    sns_confirmation,
    eventbridge_event,
    sqs_record,
    other_record,
    http_request,
    event_of_records,
    s3_test_event,
];

/// A kind of envelope that is unwrapped, as a setting names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::EnumCount, strum::EnumString, strum::VariantArray)]
#[strum(serialize_all = "lowercase")]
pub enum EnvelopeKind {
    /// A notification of SNS.
    Sns,
    /// An event of `EventBridge`.
    EventBridge,
    /// A record of another SQS queue.
    Sqs,
    /// An HTTP request.
    Http,
}

/// The kinds of envelope that are unwrapped: by default, all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpectedEnvelopes([bool; EnvelopeKind::COUNT]);

/// A text is neither `none` nor a list of kinds of envelope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("neither none nor a list of kinds of envelope")]
pub struct UnknownEnvelope;

/// A body that is not itself a login.
pub(crate) enum Envelope<'t> {
    Content(EnvelopeKind, Content<'t>),
    Refused(RefusedEnvelope),
}

/// What is inside an envelope.
pub(crate) enum Content<'t> {
    /// A JSON string.
    Text(&'t str),
    /// A JSON object.
    Object(&'t str),
}

/// Why an envelope is not unwrapped.
pub(crate) enum RefusedEnvelope {
    /// It has a column beside its content, a key of an envelope twice, or the keys of another envelope.
    Ambiguous,
    /// The record or the request has no body.
    Empty,
    Unsupported(UnsupportedEnvelope),
    /// Several records, or a list that may have several.
    RecordList,
    S3Pointer,
    S3TestEvent,
    SnsConfirmation,
}

/// An envelope that is not unwrapped, as an error names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::Display)]
pub enum UnsupportedEnvelope {
    /// A record of Kinesis, `DynamoDB`, Kafka, `ActiveMQ` or `RabbitMQ`.
    #[strum(to_string = "a record of a stream or a message broker")]
    Record,
    /// An HTTP request with `isBase64Encoded`.
    #[strum(to_string = "an HTTP request in base64")]
    Base64Request,
    /// An envelope that is not among the [`ExpectedEnvelopes`].
    #[strum(to_string = "an envelope that EXPECTED_ENVELOPES does not list")]
    Unexpected,
}

impl ExpectedEnvelopes {
    /// Whether envelopes of this kind are unwrapped.
    #[must_use]
    pub fn contains(self, kind: EnvelopeKind) -> bool {
        self.0[kind as usize]
    }
}

impl Default for ExpectedEnvelopes {
    fn default() -> Self {
        Self([true; EnvelopeKind::COUNT])
    }
}

/// Reads `none`, or kinds of envelope separated by commas: `sns,eventbridge`.
impl FromStr for ExpectedEnvelopes {
    type Err = UnknownEnvelope;

    fn from_str(text: &str) -> Result<Self, UnknownEnvelope> {
        let mut expected = Self([false; EnvelopeKind::COUNT]);
        if text.trim() == "none" {
            return Ok(expected);
        }
        for name in text.split(',') {
            let kind: EnvelopeKind = name.trim().parse().map_err(|_| UnknownEnvelope)?;
            expected.0[kind as usize] = true;
        }
        Ok(expected)
    }
}

/// Recognises an object that is an envelope; `None` if it is not an envelope.
pub(crate) fn of_object<'t>(body: &FlatBody<'t>) -> Option<Envelope<'t>> {
    if !body.has_envelope_keys() {
        return None;
    }
    let mut found = RECOGNISERS.iter().filter_map(|recognise| recognise(body));
    let envelope = found.next()?;
    let is_ambiguous = body.has_columns() || body.repeats_envelope_key || found.next().is_some();
    Some(if is_ambiguous { Envelope::Refused(RefusedEnvelope::Ambiguous) } else { envelope })
}

/// Recognises an array that is an envelope; `None` if it is not an envelope.
pub(crate) fn of_array(json: &str) -> Option<RefusedEnvelope> {
    let elements: Vec<&RawValue> = serde_json::from_str(json).ok()?;
    match elements[..] {
        [class, pointer] if is_string(class.get()) && is_s3_pointer(pointer.get()) => {
            Some(RefusedEnvelope::S3Pointer)
        }
        _ => are_records(&elements).then_some(RefusedEnvelope::RecordList),
    }
}

/// Recognises an [SNS notification][sns].
///
/// [sns]: https://docs.aws.amazon.com/sns/latest/dg/http-notification-json.html
fn sns_notification<'t>(body: &FlatBody<'t>) -> Option<Envelope<'t>> {
    let message = body.envelope_value(EnvelopeKey::Message).filter(|message| is_string(message))?;
    body.envelope_value(EnvelopeKey::TopicArn).filter(|topic| is_string(topic))?;
    is_text(body, EnvelopeKey::Type, &["Notification"])
        .then_some(Envelope::Content(EnvelopeKind::Sns, Content::Text(message)))
}

/// Recognises the message that SNS sends [when a subscription is made or removed][sns].
///
/// [sns]: https://docs.aws.amazon.com/sns/latest/dg/http-subscription-confirmation-json.html
fn sns_confirmation<'t>(body: &FlatBody<'t>) -> Option<Envelope<'t>> {
    let types = ["SubscriptionConfirmation", "UnsubscribeConfirmation"];
    let has_token = body.envelope_value(EnvelopeKey::Token).is_some_and(is_string);
    (has_token && is_text(body, EnvelopeKey::Type, &types))
        .then_some(Envelope::Refused(RefusedEnvelope::SnsConfirmation))
}

/// Recognises an [EventBridge event][eventbridge].
///
/// [eventbridge]: https://docs.aws.amazon.com/eventbridge/latest/ref/overiew-event-structure.html
fn eventbridge_event<'t>(body: &FlatBody<'t>) -> Option<Envelope<'t>> {
    for key in [EnvelopeKey::DetailType, EnvelopeKey::Source] {
        body.envelope_value(key).filter(|text| is_string(text))?;
    }
    let detail = body.envelope_value(EnvelopeKey::Detail).filter(|detail| is_object(detail))?;
    Some(Envelope::Content(EnvelopeKind::EventBridge, Content::Object(detail)))
}

/// Recognises a [record of an SQS event][sqs], as EventBridge Pipes and Lambda functions forward it. A pipe whose
/// template is `<aws.pipes.event.json>` makes [an object][pipes] of the body.
///
/// [sqs]: https://docs.aws.amazon.com/lambda/latest/dg/with-sqs.html#example-standard-queue-message-event
/// [pipes]: https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-pipes-input-transformation.html
fn sqs_record<'t>(body: &FlatBody<'t>) -> Option<Envelope<'t>> {
    let has_ids = [EnvelopeKey::MessageId, EnvelopeKey::ReceiptHandle]
        .into_iter()
        .all(|key| body.envelope_value(key).is_some_and(is_string));
    if !has_ids || !is_text(body, EnvelopeKey::EventSource, &["aws:sqs"]) {
        return None;
    }
    Some(match body.envelope_value(EnvelopeKey::Body) {
        Some(content) if is_string(content) => Envelope::Content(EnvelopeKind::Sqs, Content::Text(content)),
        Some(content) if is_object(content) => Envelope::Content(EnvelopeKind::Sqs, Content::Object(content)),
        _ => Envelope::Refused(RefusedEnvelope::Empty),
    })
}

/// Recognises a record of another source of EventBridge Pipes.
fn other_record<'t>(body: &FlatBody<'t>) -> Option<Envelope<'t>> {
    let is_record = OTHER_RECORDS.iter().any(|(source, key)| {
        body.envelope_value(*key).is_some() && is_text(body, EnvelopeKey::EventSource, &[source])
    });
    is_record.then_some(Envelope::Refused(RefusedEnvelope::Unsupported(UnsupportedEnvelope::Record)))
}

/// Recognises a request as API Gateway ([payload format][format] 1.0 or 2.0), a function URL or a load
/// balancer passes it to a Lambda function.
///
/// [format]: https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html
fn http_request<'t>(body: &FlatBody<'t>) -> Option<Envelope<'t>> {
    body.envelope_value(EnvelopeKey::RequestContext).filter(|context| is_object(context))?;
    let is_base64 = match body.envelope_value(EnvelopeKey::IsBase64Encoded)? {
        "true" => true,
        "false" => false,
        _ => return None,
    };
    // Format 1.0 has a null for a request without a body; format 2.0 lacks the key.
    Some(match body.envelope_value(EnvelopeKey::Body).filter(|content| is_string(content)) {
        Some(_) if is_base64 => {
            Envelope::Refused(RefusedEnvelope::Unsupported(UnsupportedEnvelope::Base64Request))
        }
        Some(content) => Envelope::Content(EnvelopeKind::Http, Content::Text(content)),
        None => Envelope::Refused(RefusedEnvelope::Empty),
    })
}

/// Recognises an event of a Lambda function, and a notification of S3: both are lists of records.
fn event_of_records<'t>(body: &FlatBody<'t>) -> Option<Envelope<'t>> {
    let records: Vec<&RawValue> = serde_json::from_str(body.envelope_value(EnvelopeKey::Records)?).ok()?;
    are_records(&records).then_some(Envelope::Refused(RefusedEnvelope::RecordList))
}

/// Recognises the [message][s3] that S3 sends when a bucket's notifications are switched on.
///
/// [s3]: https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html
fn s3_test_event<'t>(body: &FlatBody<'t>) -> Option<Envelope<'t>> {
    let is_test = is_text(body, EnvelopeKey::Event, &["s3:TestEvent"])
        && is_text(body, EnvelopeKey::Service, &["Amazon S3"]);
    is_test.then_some(Envelope::Refused(RefusedEnvelope::S3TestEvent))
}

/// Whether an object is the pointer that [SQS's extended client][client] sends for a body that it keeps in S3.
///
/// [client]: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-managing-large-messages.html
fn is_s3_pointer(json: &str) -> bool {
    flatten(json).is_ok_and(|pointer| {
        [EnvelopeKey::S3BucketName, EnvelopeKey::S3Key]
            .into_iter()
            .all(|key| pointer.envelope_value(key).is_some_and(is_string))
    })
}

/// Whether all elements of an array are records of an event, and there is at least one.
fn are_records(elements: &[&RawValue]) -> bool {
    let is_record = |element: &&RawValue| {
        flatten(element.get())
            .is_ok_and(|record| record.envelope_value(EnvelopeKey::EventSource).is_some_and(is_string))
    };
    !elements.is_empty() && elements.iter().all(is_record)
}

/// Whether the value of a key is a string with one of these texts.
fn is_text(body: &FlatBody<'_>, key: EnvelopeKey, texts: &[&str]) -> bool {
    let text = body.envelope_value(key).and_then(json_string::unescape).and_then(Result::ok);
    text.is_some_and(|text| texts.contains(&text.as_str()))
}

fn is_string(json: &str) -> bool {
    json.starts_with('"')
}

fn is_object(json: &str) -> bool {
    json.starts_with('{')
}

#[cfg(test)]
mod tests {
    use strum::VariantArray;

    use super::*;

    fn expected(text: &str) -> Result<Vec<EnvelopeKind>, UnknownEnvelope> {
        let expected: ExpectedEnvelopes = text.parse()?;
        Ok(EnvelopeKind::VARIANTS.iter().copied().filter(|kind| expected.contains(*kind)).collect())
    }

    #[test]
    fn expected_envelopes_are_none_or_a_list() {
        use EnvelopeKind::{EventBridge, Http, Sns, Sqs};

        assert_eq!(expected("none"), Ok(vec![]));
        assert_eq!(expected("sns"), Ok(vec![Sns]));
        assert_eq!(expected("http, sqs ,eventbridge,sns"), Ok(vec![Sns, EventBridge, Sqs, Http]));
        for text in ["", ",", "sns,", "SNS", "none,sns", "all", "s3"] {
            assert_eq!(expected(text), Err(UnknownEnvelope), "{text}");
        }
        assert!(EnvelopeKind::VARIANTS.iter().all(|kind| ExpectedEnvelopes::default().contains(*kind)));
    }
}
