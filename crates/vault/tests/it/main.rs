//! Integration tests: the broker against a real Postgres. `make test` starts it and an emulator with the salt, and sets
//! environment variables with their addresses.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod backup;
mod bad_input;
mod erasure_list;
mod erasures;
mod keys;
mod kms_failures;
mod kms_stub;
mod localstack;
mod outages;
mod program;
mod reveals;
mod support;
