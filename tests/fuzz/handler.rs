//! Stands in for the function's own, of which the stages need this much.

/// Why a whole batch is refused: the two variants that reading an event has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// The payload is not an SQS event.
    #[error("the payload is not an SQS event, at line {line}, column {column}")]
    MalformedEvent {
        /// From 1.
        line: usize,
        /// In bytes.
        column: usize,
    },
    /// A message has no id.
    #[error("the message at position {position} has no messageId")]
    MissingMessageId {
        /// The place in the batch, from 0.
        position: usize,
    },
}
