//! Integration tests: the export from a real Postgres to a real emulator of S3. `make test` starts both and sets
//! environment variables with their addresses.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod bucket;
mod concurrent;
mod copy;
mod days;
mod program;
mod rights;
mod support;
mod tables;
