//! Writes login messages from an SQS queue to Postgres: masked, and each exactly once.
//!
//! ```text
//! event ── event::read ──▶ SqsMessage ── decode ──▶ Login ── mask ──▶ LoginRow ── Writer ──▶ Postgres
//!                              └───────────────── Failures ───────────────┴──▶ SqsBatchResponse
//! ```
//!
//! [`runtime`] receives an invocation, and [`handler`] drives its batch: the stages of the crate [`login`] up
//! to the masked row, then [`store`] within the [`deadline`]. [`telemetry`] logs, measures and traces.
//!
//! At the start, [`config`] reads the settings and [`aws`] fetches the secrets. [`schema`] belongs to the
//! program `migrate`, which a deployment runs.
//!
//! Each kind of failure has a type: [`FailureReason`](login::failures::FailureReason) fails a message,
//! [`BatchError`](error::BatchError) fails a batch, [`StartError`](error::StartError) fails the process.

pub mod analytics;
pub mod aws;
pub mod config;
pub mod deadline;
pub mod erasures;
pub mod error;
pub mod fingerprint_event;
pub mod handler;
pub mod lake;
pub mod ledger;
pub mod memory;
pub mod partitions;
pub mod point;
pub mod resalt;
pub mod runtime;
pub mod schema;
pub mod store;
pub mod telemetry;
