//! A batch as SQS delivers it, and the pure stages as the handler runs them, for both benchmarks.
//!
//! A stage is never inlined, because callgrind knows it by its name.

use std::fmt::Write as _;
use std::iter;
use std::time::SystemTime;

use login::decode::{self, Login, Scratch};
use login::event::{self, SqsMessage};
use login::mask::{self, LoginRow};
use login::pii::Masker;

/// How many messages the batch has.
pub(crate) const MESSAGES: usize = 1_000;

/// When the first message was sent, in milliseconds.
const SENT_AT: u64 = 1_773_791_997_120;

/// Writes the event of a batch: the same text at every run, every message unlike any other.
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

/// Makes a masker with a salt that is no secret.
pub(crate) fn masker() -> Masker {
    Masker::new(&"0123456789abcdef0123456789abcdef".into())
        .unwrap_or_else(|_| unreachable!("the salt is long enough"))
}

/// Reads the event as messages.
#[inline(never)]
pub(crate) fn read(event: &str) -> Vec<SqsMessage<'_>> {
    event::read(event.as_bytes()).unwrap_or_else(|error| unreachable!("{error}"))
}

/// Makes room for every message.
pub(crate) fn scratches() -> Vec<Scratch> {
    iter::repeat_with(Scratch::default).take(MESSAGES).collect()
}

/// Decodes every message, each in a room of its own, so that all of them are there at once.
#[inline(never)]
pub(crate) fn decode<'m: 's, 's>(
    messages: &[SqsMessage<'m>],
    scratches: &'s mut [Scratch],
) -> Vec<Login<'m, 's>> {
    let decoded = messages.iter().zip(scratches).enumerate().map(|(position, (message, scratch))| {
        let arrival = decode::arrival(message, position, SystemTime::UNIX_EPOCH)?;
        decode::decode(message, arrival, scratch)
    });
    decoded.map(|login| login.unwrap_or_else(|error| unreachable!("{error}"))).collect()
}

/// Masks every login.
#[inline(never)]
pub(crate) fn mask<'m>(logins: Vec<Login<'m, '_>>, masker: &mut Masker) -> Vec<LoginRow<'m>> {
    logins.into_iter().map(|login| mask::mask(login, masker)).collect()
}

/// Writes one message the way Lambda does, with a body like those of `events/login-queue.jsonl`.
fn record(event: &mut String, number: usize) -> std::fmt::Result {
    // A multiplication by an odd number scatters the numbers without repeating one.
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
