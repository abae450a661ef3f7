//! From an SQS event to masked rows: the stages that need nothing but their input.

pub mod decode;
pub mod event;
pub mod flatten;
mod literal;
pub mod mask;
pub mod pii;
