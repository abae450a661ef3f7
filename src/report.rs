//! Reports the messages that failed, so that SQS redrives those and no others.

use std::collections::{HashMap, HashSet};

use aws_lambda_events::sqs::SqsBatchResponse;
use strum::VariantNames;
use tokio_postgres::error::SqlState;

use login::decode::DecodeError;
use login::event::SqsMessage;

/// A message that was not written.
#[derive(Debug, PartialEq, Eq)]
pub struct Failure {
    /// The message's place in the batch, from 0.
    pub position: usize,
    /// Why it was not written.
    pub reason: Reason,
}

/// Why a message was not written.
#[derive(Debug, PartialEq, Eq, strum::IntoStaticStr, strum::VariantNames, thiserror::Error)]
pub enum Reason {
    /// It cannot be decoded.
    #[error(transparent)]
    Undecodable(#[from] DecodeError),
    /// Postgres refused its row.
    #[error("Postgres refused the row, SQLSTATE {}", .0.code())]
    RowRefused(SqlState),
    /// An earlier message of its FIFO group failed, and order counts there.
    #[error("an earlier message of the same group failed")]
    HeldBack,
}

/// The failures of a batch, as they are found.
#[derive(Debug, Default)]
pub struct Failures<'m> {
    list: Vec<Failure>,
    /// The FIFO groups with a failure, and the place of the first.
    groups: HashMap<&'m str, usize>,
}

impl Reason {
    /// Every code that there is.
    pub fn codes() -> impl Iterator<Item = &'static str> {
        let others = Self::VARIANTS.iter().filter(|code| **code != "Undecodable");
        DecodeError::VARIANTS.iter().chain(others).copied()
    }

    /// The reason's stable name, for logs and metrics.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Undecodable(error) => error.code(),
            Self::RowRefused(_) | Self::HeldBack => self.into(),
        }
    }

    /// The field that is to blame, where it is one.
    #[must_use]
    pub fn field(&self) -> Option<&'static str> {
        match self {
            Self::Undecodable(error) => error.field(),
            Self::RowRefused(_) | Self::HeldBack => None,
        }
    }

    /// What Postgres said, where it did.
    #[must_use]
    pub fn sqlstate(&self) -> Option<&str> {
        match self {
            Self::RowRefused(sqlstate) => Some(sqlstate.code()),
            Self::Undecodable(_) | Self::HeldBack => None,
        }
    }
}

impl<'m> Failures<'m> {
    /// Adds the failure of a message.
    pub fn add(&mut self, message: &'m SqsMessage<'_>, failure: Failure) {
        if let Some(group) = message.group.as_deref() {
            let first = self.groups.entry(group).or_insert(failure.position);
            *first = failure.position.min(*first);
        }
        self.list.push(failure);
    }

    /// Whether a message before `position`, where `message` is, has failed in the same FIFO group, so
    /// that this one must be [neither written nor deleted][fifo].
    ///
    /// [fifo]: https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html#services-sqs-batchfailurereporting
    #[must_use]
    pub fn hold_back(&self, message: &SqsMessage<'_>, position: usize) -> bool {
        let first = message.group.as_deref().and_then(|group| self.groups.get(group));
        first.is_some_and(|first| *first < position)
    }

    /// The failures, in the order of the batch.
    #[must_use]
    pub fn into_list(mut self) -> Vec<Failure> {
        self.list.sort_by_key(|failure| failure.position);
        self.list
    }
}

/// The answer that makes SQS redrive the failed messages: [each id once][shape].
///
/// [shape]: https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html#services-sqs-batchfailurereporting
#[must_use]
pub fn report(messages: &[SqsMessage<'_>], failures: &[Failure]) -> SqsBatchResponse {
    let mut response = SqsBatchResponse::default();
    let mut reported = HashSet::new();
    for failure in failures {
        let id = &messages[failure.position].id;
        if reported.insert(id) {
            response.add_failure(id.clone());
        }
    }
    response
}
