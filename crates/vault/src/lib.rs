//! The vault's broker: the only program that opens what ingest sealed.
//!
//! ```text
//! event ── event ──▶ HttpRequest ── requests ──▶ broker ── Answer
//!                                                  │
//!     database: ask ─ commit ─▶ take ──▶ kms: derive ──▶ unseal ──▶ database: tell ─ commit ─▶ answer
//! ```
//!
//! The private key never leaves KMS. KMS returns the result of a Diffie-Hellman exchange with the point of one stream,
//! of at most 1,000 values; [`open`] computes the stream's key from it.
//!
//! A value is returned only if its audit entry was committed before the vault was read, the opened value has the token
//! that was asked for, and the outcome was committed too.

pub mod answer;
pub mod audit;
pub mod broker;
pub mod database;
pub mod entries;
pub mod event;
pub mod failure;
mod fields;
pub mod honey;
pub mod kms;
pub mod open;
pub mod padding;
pub mod problem;
pub mod program;
pub mod public_key;
pub mod record;
pub mod requests;
pub mod salt;
pub mod settings;
pub mod token;
pub mod unseal;
pub mod verify;
