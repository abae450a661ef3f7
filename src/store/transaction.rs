//! Transaction blocks.

/// Begins a transaction that Postgres ends if the function stops responding. A sandbox that Lambda destroys,
/// and a network that breaks, close no connection: without the timeout Postgres would keep the
/// transaction's locks until TCP gives up after hours, and every redelivery would wait for these locks.
pub(super) const BEGIN: &str = "BEGIN; SET LOCAL idle_in_transaction_session_timeout = '60s'";

/// Commits. After a failed statement Postgres rolls back instead.
pub(super) const COMMIT: &str = "COMMIT";
