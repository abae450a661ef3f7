//! Integration tests: the broker against a real Postgres. `make test` starts it and an emulator with the salt, and sets
//! environment variables with their addresses.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod audits;
mod backup;
mod bad_input;
mod erasure_list;
mod erasures;
mod honey;
mod keys;
mod kms_failures;
mod kms_stub;
mod localstack;
mod outages;
mod program;
mod resalted;
mod reveals;
mod support;
mod verifications;
