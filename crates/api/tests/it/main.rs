//! Integration tests: the API against a real Postgres. `make test` starts it and sets an environment variable with its
//! address.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod answers;
mod as_sql;
mod bad_input;
mod cursors;
mod documents;
mod lambda;
mod outages;
mod page;
mod pages;
mod support;
