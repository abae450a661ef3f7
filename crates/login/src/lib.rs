//! From an SQS event to masked rows: the stages that need nothing but their input.
//!
//! ```text
//! event bytes ── event::read ──▶ SqsMessage ── decode ──▶ Login ── mask ──▶ LoginRow
//!                                    └─────────── Failures ───────────┘
//! ```
//!
//! - [`event`] reads the event as messages,
//! - [`message_key`] makes the key that identifies a message at every delivery,
//! - [`decode`] turns a message into a [`Login`](decode::Login); `flatten`, or its fast path `ordinary_body`, reads
//!   the body, and [`envelope`] recognises the envelopes that AWS puts around it,
//! - [`mask`] turns a login into a [`LoginRow`](mask::LoginRow), behind the privacy boundary [`pii`],
//! - [`failures`] keeps the messages that failed.
//!
//! This is a crate so that the compiler guards the privacy boundary: no code outside it can read a raw
//! personal value. None of its dependencies does I/O.

pub mod decode;
pub mod envelope;
pub mod event;
pub mod failures;
pub mod flat_body;
mod flatten;
pub mod hpke;
mod json_string;
pub mod mask;
pub mod message_key;
mod ordinary_body;
pub mod pii;
