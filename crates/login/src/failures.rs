//! The messages of a batch that failed, so that SQS redrives these and no others.

use std::collections::{HashMap, HashSet};

use strum::VariantNames;

use crate::decode::DecodeError;
use crate::event::SqsMessage;

/// Why a message was not written.
#[derive(Clone, Debug, PartialEq, Eq, strum::IntoStaticStr, strum::VariantNames, thiserror::Error)]
pub enum FailureReason {
    /// The message cannot be decoded.
    #[error(transparent)]
    Undecodable(#[from] DecodeError),
    /// Postgres refused the message's row.
    #[error("Postgres refused the row, SQLSTATE {sqlstate}")]
    RowRefused {
        /// [Postgres's code][codes] of five characters.
        ///
        /// [codes]: https://www.postgresql.org/docs/current/errcodes-appendix.html
        sqlstate: String,
    },
    /// An earlier message of the same FIFO group failed, and the group's order must be kept.
    #[error("an earlier message of the same group failed")]
    HeldBack,
    /// The time of the invocation ran out before the message's row was written.
    #[error("the time ran out before the row was written")]
    OutOfTime,
}

/// The failures of a batch.
#[expect(missing_debug_implementations, reason = "a message's body is personal data")]
pub struct Failures<'m> {
    messages: &'m [SqsMessage<'m>],
    /// By the message's position in the batch.
    reasons: Vec<(usize, FailureReason)>,
    /// The position of the first failure in each FIFO group.
    first_in_group: HashMap<&'m str, usize>,
}

impl FailureReason {
    /// Returns every code, for the tests that compare the documents.
    pub fn codes() -> impl Iterator<Item = &'static str> {
        let others = Self::VARIANTS.iter().filter(|code| **code != "Undecodable");
        DecodeError::VARIANTS.iter().chain(others).copied()
    }

    /// Returns the reason's stable name, for logs and metrics.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Undecodable(error) => error.code(),
            Self::RowRefused { .. } | Self::HeldBack | Self::OutOfTime => self.into(),
        }
    }

    /// Returns the name of the bad field, where a field is bad.
    #[must_use]
    pub fn field(&self) -> Option<&'static str> {
        match self {
            Self::Undecodable(error) => error.field(),
            Self::RowRefused { .. } | Self::HeldBack | Self::OutOfTime => None,
        }
    }

    /// Returns the SQLSTATE of Postgres, where Postgres refused the row.
    #[must_use]
    pub fn sqlstate(&self) -> Option<&str> {
        match self {
            Self::RowRefused { sqlstate } => Some(sqlstate),
            Self::Undecodable(_) | Self::HeldBack | Self::OutOfTime => None,
        }
    }
}

impl<'m> Failures<'m> {
    /// Makes an empty list of failures for these messages.
    #[must_use]
    pub fn new(messages: &'m [SqsMessage<'m>]) -> Self {
        Self { messages, reasons: Vec::new(), first_in_group: HashMap::new() }
    }

    /// Adds the failure of the message at `position`.
    pub fn add(&mut self, position: usize, reason: impl Into<FailureReason>) {
        if let Some(group) = self.messages[position].group.as_deref() {
            let first = self.first_in_group.entry(group).or_insert(position);
            *first = position.min(*first);
        }
        self.reasons.push((position, reason.into()));
    }

    /// Whether a message before `position` has failed in the same FIFO group: then the message at
    /// `position` must be [neither written nor deleted][fifo]. The store's `row_by_row` applies the same rule
    /// to rows that Postgres refuses.
    ///
    /// [fifo]: https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html#services-sqs-batchfailurereporting
    #[must_use]
    pub fn is_held_back(&self, position: usize) -> bool {
        let group = self.messages[position].group.as_deref();
        group.and_then(|group| self.first_in_group.get(group)).is_some_and(|first| *first < position)
    }

    /// Returns the failures in the order of the batch.
    #[must_use]
    pub fn into_sorted(mut self) -> Vec<(&'m SqsMessage<'m>, FailureReason)> {
        self.reasons.sort_by_key(|(position, _)| *position);
        self.reasons.into_iter().map(|(position, reason)| (&self.messages[position], reason)).collect()
    }
}

/// Returns the messages that no redelivery can help, from failures in the order of the batch: those that cannot
/// be decoded, and those that are held back behind such a message.
///
/// SQS delivers a FIFO group only while no message of it [is in flight][fifo]. So the messages that are held back
/// leave with the message that holds them back, and no message behind a refused row leaves.
///
/// [fifo]: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/FIFO-queues-understanding-logic.html
#[must_use]
pub fn hopeless<'m>(failures: &[(&'m SqsMessage<'m>, FailureReason)]) -> Vec<&'m SqsMessage<'m>> {
    let mut waiting_groups = HashSet::new();
    let mut hopeless = Vec::new();
    for (message, reason) in failures {
        let group = message.group.as_deref();
        if matches!(reason, FailureReason::RowRefused { .. } | FailureReason::OutOfTime) {
            waiting_groups.extend(group);
        } else if !group.is_some_and(|group| waiting_groups.contains(group)) {
            hopeless.push(*message);
        }
    }
    hopeless
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event;

    #[test]
    fn failure_holds_back_later_messages_only() {
        let record = |id| {
            let attributes = r#"{"MessageGroupId": "group"}"#;
            format!(r#"{{"messageId": "{id}", "eventSourceARN": "x.fifo", "attributes": {attributes}}}"#)
        };
        let event = format!(r#"{{"Records": [{}, {}, {}]}}"#, record("a"), record("b"), record("c"));
        let messages = event::read(event.as_bytes()).unwrap();
        let mut failures = Failures::new(&messages);

        failures.add(1, FailureReason::HeldBack);

        assert_eq!([0, 1, 2].map(|position| failures.is_held_back(position)), [false, false, true]);
    }

    #[test]
    fn reason_has_code_field_and_sqlstate() {
        let bad_version = FailureReason::from(DecodeError::BadVersion);
        let refused = FailureReason::RowRefused { sqlstate: "23514".to_owned() };
        let parts = |reason: &FailureReason| {
            (reason.code(), reason.field(), reason.sqlstate().map(ToOwned::to_owned))
        };

        assert_eq!(parts(&bad_version), ("BadVersion", Some("app_version"), None));
        assert_eq!(parts(&refused), ("RowRefused", None, Some("23514".to_owned())));
        assert_eq!(parts(&FailureReason::HeldBack), ("HeldBack", None, None));
        assert_eq!(parts(&FailureReason::OutOfTime), ("OutOfTime", None, None));
    }

    #[test]
    fn codes_are_those_of_all_reasons() {
        let codes: Vec<_> = FailureReason::codes().collect();

        assert!(
            ["BadVersion", "RowRefused", "HeldBack"].iter().all(|code| codes.contains(code)),
            "{codes:?}"
        );
        assert!(!codes.contains(&"Undecodable"), "{codes:?}");
    }

    #[test]
    fn failures_are_returned_in_batch_order() {
        let messages = event::read(br#"{"Records": [{"messageId": "a"}, {"messageId": "b"}]}"#).unwrap();
        let mut failures = Failures::new(&messages);
        failures.add(1, FailureReason::HeldBack);
        failures.add(0, DecodeError::MissingBody);

        let sorted = failures.into_sorted();

        let ids: Vec<_> = sorted.iter().map(|(message, reason)| (&*message.id, reason.code())).collect();
        assert_eq!(ids, [("a", "MissingBody"), ("b", "HeldBack")]);
    }

    #[test]
    fn only_undecodable_messages_are_hopeless() {
        let reasons = [
            DecodeError::BadVersion.into(),
            FailureReason::RowRefused { sqlstate: "23514".to_owned() },
            FailureReason::OutOfTime,
            DecodeError::MissingBody.into(),
        ];

        assert_eq!(hopeless_positions(["", "", "", ""], reasons), [0, 3]);
    }

    #[test]
    fn held_back_messages_follow_their_group() {
        let reasons = [
            DecodeError::BadVersion.into(),
            FailureReason::RowRefused { sqlstate: "23514".to_owned() },
            FailureReason::HeldBack,
            FailureReason::HeldBack,
            DecodeError::MissingBody.into(),
        ];

        assert_eq!(hopeless_positions(["bad", "refused", "bad", "refused", "refused"], reasons), [0, 2]);
    }

    /// Returns the positions of the hopeless messages. A group makes a message one of a FIFO queue.
    fn hopeless_positions<const N: usize>(groups: [&str; N], reasons: [FailureReason; N]) -> Vec<usize> {
        let records = groups.iter().enumerate().map(|(position, group)| {
            let arn = if group.is_empty() { "x" } else { "x.fifo" };
            let attributes = format!(r#"{{"MessageGroupId": "{group}"}}"#);
            format!(r#"{{"messageId": "{position}", "eventSourceARN": "{arn}", "attributes": {attributes}}}"#)
        });
        let event = format!(r#"{{"Records": [{}]}}"#, records.collect::<Vec<_>>().join(","));
        let messages = event::read(event.as_bytes()).unwrap();
        let failures: Vec<_> = messages.iter().zip(reasons).collect();
        hopeless(&failures).iter().map(|message| message.id.parse().unwrap()).collect()
    }
}
