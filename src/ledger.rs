//! The ledger's count of days, by which the roll-ups and the export find the days that have changed.

/// Counts the entries of each day, in the columns `slot`, `day` and `entries`. It reads the whole ledger.
pub const COUNT_DAYS: &str = include_str!("ledger/count_days.sql");

/// Counts the entries of the day `$1`: one row with the columns `day` and `entries`. It reads one partition of the ledger.
pub const COUNT_DAY: &str = include_str!("ledger/count_day.sql");

/// The dates of the moment `$1`: one row with the columns `now`, `today`, and `final`, the newest day whose messages SQS
/// cannot deliver any more.
pub const LIMITS: &str = include_str!("ledger/limits.sql");
