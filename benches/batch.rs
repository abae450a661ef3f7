//! A batch as SQS delivers it, and the pure stages as the handler runs them, for both benchmarks.
//!
//! The stages are never inlined: callgrind finds them by their names.

use std::fmt::Write as _;
use std::time::SystemTime;

use login::decode::{self, Login};
use login::envelope::ExpectedEnvelopes;
use login::event::{self, SqsMessage};
use login::mask::{self, LoginRow};
use login::message_key::MessageKey;
use login::pii::Masker;

/// Number of messages in the batch.
pub(crate) const MESSAGES: usize = 1_000;

/// When the first message was sent, in milliseconds.
const SENT_AT: u64 = 1_773_791_997_120;

/// Writes the event of a batch. The text is the same at every run, and all messages differ.
pub(crate) fn event() -> String {
    let mut event = String::from(r#"{"Records":["#);
    for number in 0..MESSAGES {
        if number > 0 {
            event.push(',');
        }
        record(&mut event, number).unwrap_or_else(|_| unreachable!("a string takes what is written to it"));
    }
    event.push_str("]}");
    event
}

/// Makes a masker with a public salt.
pub(crate) fn masker() -> Masker {
    Masker::new(&"0123456789abcdef0123456789abcdef".into())
        .unwrap_or_else(|_| unreachable!("the salt is long enough"))
}

/// Reads the event as messages.
#[inline(never)]
pub(crate) fn read(event: &str) -> Vec<SqsMessage<'_>> {
    event::read(event.as_bytes()).unwrap_or_else(|error| unreachable!("{error}"))
}

/// Reads the key of every message, and decodes it.
#[inline(never)]
pub(crate) fn decode<'m>(messages: &'m [SqsMessage<'m>]) -> Vec<(MessageKey<'m>, Login<'m>)> {
    let decoded = messages.iter().enumerate().map(|(position, message)| {
        let key = MessageKey::read(message, position, SystemTime::UNIX_EPOCH)?;
        Ok((key, decode::decode(message, ExpectedEnvelopes::default())?))
    });
    decoded
        .map(|login: Result<_, decode::DecodeError>| login.unwrap_or_else(|error| unreachable!("{error}")))
        .collect()
}

/// Masks every login.
#[inline(never)]
pub(crate) fn mask<'m>(
    logins: Vec<(MessageKey<'m>, Login<'m>)>,
    masker: &mut Masker,
) -> Vec<(MessageKey<'m>, LoginRow<'m>)> {
    logins.into_iter().map(|(key, login)| (key, mask::mask(login, masker))).collect()
}

/// Writes a message as Lambda does, with a body like those of `events/login-queue.jsonl`.
fn record(event: &mut String, number: usize) -> std::fmt::Result {
    // Multiplying by an odd number scatters the numbers and repeats none.
    let random = (number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let uuid = format!("{:08x}-1b28-499c-8a6d-{:012x}", random >> 32, random & 0xffff_ffff_ffff);
    let [a, b, c, d, ..] = random.to_be_bytes();
    let locale = ["null", r#"\"RU\""#, r#"\"ID\""#][number % 3];
    let sent_at = SENT_AT + number as u64 / 4;
    write!(
        event,
        r#"{{"messageId":"{uuid}","receiptHandle":"AQEB{uuid}{uuid}{uuid}{uuid}","body":"{{\"user_id\": \"{uuid}\", \"app_version\": \"2.{minor}.0\", \"device_type\": \"android\", \"ip\": \"{a}.{b}.{c}.{d}\", \"locale\": {locale}, \"device_id\": \"{first:03}-47-{number:04}\"}}","attributes":{{"ApproximateReceiveCount":"1","SentTimestamp":"{sent_at}","SenderId":"AIDACKCEVSQ6C2EXAMPLE","ApproximateFirstReceiveTimestamp":"{received_at}"}},"messageAttributes":{{}},"md5OfBody":"325ff4eb1cc97d68b445371e4606b5ce","eventSource":"aws:sqs","eventSourceARN":"arn:aws:sqs:eu-central-1:123456789012:login-queue","awsRegion":"eu-central-1"}}"#,
        minor = number % 100,
        first = number % 900,
        received_at = sent_at + 31,
    )
}
