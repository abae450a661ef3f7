//! Writes login messages from an SQS queue to Postgres, masked, exactly once.
//!
//! ```text
//! SqsEvent ── decode ──▶ Login ── mask ──▶ LoginRow ── store ──▶ Postgres
//!               │                                        │
//!               └───────────── Failure ──── report ──────┴──▶ SqsBatchResponse
//! ```
//!
//! An invocation goes through the modules in this order:
//!
//! - [`handler`] takes the batch through the stages and logs what becomes of it,
//! - [`event`] reads the payload as messages,
//! - [`decode`] turns a message into a [`Login`](decode::Login), with [`flatten`] for its body,
//! - [`mask`] turns that into a [`LoginRow`](mask::LoginRow), behind the privacy boundary [`pii`],
//! - [`store`] writes the rows within the [`deadline`],
//! - [`report`] answers with what failed.
//!
//! Around them, [`payload`] brings the event past the runtime, [`config`] and [`secrets`] say what to start with, [`iam`] signs what may stand for a
//! password, [`telemetry`] logs, and [`schema`] is the database's, brought up to date by the program
//! `migrate`, which a deployment runs as a [`custom_resource`].
//!
//! Three kinds of failure have a type each: [`DecodeError`](decode::DecodeError) fails one message,
//! [`BatchError`](handler::BatchError) the batch, and [`StartError`](config::StartError) the process.

pub mod aws;
pub mod config;
pub mod deadline;
pub mod handler;
pub mod report;
pub mod runtime;
pub mod schema;
pub mod store;
pub mod telemetry;
