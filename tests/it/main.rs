//! Integration tests: the library and the built programs against a real Postgres and a real
//! emulator of Secrets Manager. `make test` starts both and sets environment variables with their addresses.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod analytics;
mod attempts;
mod bad_input;
mod bodies;
mod connection;
mod documents;
mod erasure_list;
mod events;
mod existing_databases;
mod iam;
mod lake;
mod ledger;
mod metrics;
mod partitions;
mod planted;
mod pooler;
mod programs;
mod queue;
mod refused_rows;
mod resalt;
mod roles;
mod salt;
mod schema;
mod settings;
mod support;
mod traces;
mod vault;
mod vault_attacks;
mod vault_schema;
mod vault_support;
