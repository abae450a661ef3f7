//! The books of the export, `lake.exports`: which days are due, and whether a day has the rows that it should have.

use std::time::SystemTime;

use jiff::ToSpan;
use jiff::civil::Date;
use login_etl::ledger;
use tokio_postgres::types::Type;
use tokio_postgres::{Error, Row, Transaction};

use crate::encoder::Layout;

const FIND_DAYS: &str = include_str!("books/find_days.sql");
const READ_DAYS: &str = include_str!("books/read_days.sql");
const READ_LIMITS: &str = include_str!("books/read_limits.sql");
const WRITE_DAY: &str = include_str!("books/write_day.sql");

/// Opens days again that a clock that was ahead has closed.
const REOPEN_DAYS: &str = "UPDATE exports SET closed = false WHERE closed AND day > $1";

/// A day with more rows has 16 objects.
pub const ROWS_OF_ONE_OBJECT: i64 = 5_000_000;

/// How many days the ledger certainly has, besides today. `migrate` empties days that are older.
const DAYS_OF_LEDGER: i64 = 15;

/// The dates that decide about a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Today, in UTC.
    pub today: Date,
    /// The newest day whose messages SQS cannot deliver any more.
    pub last_final: Date,
    /// The day on which the ledger was created.
    pub ledger_since: Date,
}

/// A day in the books and in the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Day {
    /// The day, of the years 1 to 9999.
    pub date: Date,
    /// Entries of the ledger.
    pub entries: i64,
    /// Number of objects, if the day has some or is known to be large.
    pub objects: Option<i16>,
    /// The last export.
    pub exported: Option<Exported>,
    /// Rows that were deleted since the count of the ledger or, without a count, since the last export.
    pub deleted_rows: i64,
    /// Whether the last export was made when SQS could not deliver messages of the day any more.
    pub is_closed: bool,
    /// Whether rows were deleted or changed since the last export.
    pub is_changed: bool,
}

/// The last export of a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exported {
    /// Rows.
    pub rows: i64,
    /// Entries of the ledger that agree with the rows; `None` if the ledger had no count.
    pub ledger_entries: Option<i64>,
    /// Entries of the ledger at that time.
    pub ledger_seen: i64,
}

/// The rows of a day are not those that the ledger or the books know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "user_logins has {rows} rows of the day, and {source_of_count} {expected}; the objects stay as they are. If rows were \
     deleted, or inserted without the ledger, call mark_changed(day, number of deleted rows)"
)]
pub struct CountMismatch {
    /// Rows of the table.
    pub rows: i64,
    /// Rows that it should have.
    pub expected: i64,
    /// The ledger, or the last export.
    pub source_of_count: &'static str,
}

/// An export that the books record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The day.
    pub date: Date,
    /// Number of objects.
    pub objects: i16,
    /// The key of the first object.
    pub key: String,
    /// Rows.
    pub rows: i64,
    /// Entries of the ledger that agree with the rows; `None` if the ledger has no count.
    pub ledger_entries: Option<i64>,
    /// Entries of the ledger.
    pub ledger_seen: i64,
    /// Rows that were deleted since the count.
    pub deleted_rows: i64,
    /// Bytes of the objects.
    pub bytes: i64,
    /// See [`Encoded::sha256`](crate::encoder::Encoded::sha256).
    pub sha256: String,
    /// The `ETag` of each object, with a blank between.
    pub etag: String,
    /// Whether SQS cannot deliver messages of the day any more.
    pub is_closed: bool,
}

/// The result of [`plan`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The days that are due, in the order in which they are exported.
    pub days: Vec<Date>,
    /// The most entries that the ledger has of a day.
    pub most_entries: i64,
    /// Rows that are in no day.
    pub rows_without_date: i64,
}

impl Day {
    /// Whether the day must be exported.
    #[must_use]
    pub fn is_due(&self, limits: Limits) -> bool {
        let is_final = self.date <= limits.last_final;
        match self.exported {
            None => true,
            Some(_) if self.is_changed => true,
            Some(_) if self.is_closed && is_final => false,
            Some(exported) => is_final || exported.ledger_seen != self.entries,
        }
    }

    /// Whether the day must be exported before the ledger forgets it.
    #[must_use]
    fn is_urgent(&self, limits: Limits) -> bool {
        self.date <= limits.last_final && self.entries > 0
    }

    /// Returns the objects of the day. Their number stays as it is. Of a day that grows, the largest day says how many
    /// it will need.
    #[must_use]
    pub fn layout(&self, limits: Limits, most_entries: i64) -> Layout {
        let rows = if self.date < limits.today { self.entries } else { self.entries.max(most_entries) };
        let is_large = self.objects.map_or(rows > ROWS_OF_ONE_OBJECT, |objects| objects > 1);
        if is_large { Layout::SIXTEEN } else { Layout::ONE }
    }

    /// Compares the rows of the table with the ledger or, if the ledger has forgotten the day, with the last export.
    /// Returns the entries of the ledger that agree with the rows; `None` if there is no count.
    ///
    /// # Errors
    ///
    /// [`CountMismatch`].
    pub fn compare(&self, rows: i64, limits: Limits) -> Result<Option<i64>, CountMismatch> {
        let mismatch = |expected, source_of_count| CountMismatch { rows, expected, source_of_count };
        let counted = self.exported.and_then(|exported| exported.ledger_entries);
        let oldest_in_ledger = limits.today.saturating_sub(DAYS_OF_LEDGER.days());
        let is_forgotten = self.entries == 0 && self.date < oldest_in_ledger;
        if !is_forgotten {
            let expected = self.entries - self.deleted_rows;
            // Some rows may be older than the ledger.
            let has_older_rows = self.date <= limits.ledger_since && counted.is_none() && rows > expected;
            return if rows == expected {
                Ok(Some(self.entries))
            } else if has_older_rows {
                Ok(None)
            } else {
                Err(mismatch(expected, "the ledger"))
            };
        }
        let Some(exported) = self.exported else { return Ok(None) };
        let expected = counted.unwrap_or(exported.rows) - self.deleted_rows;
        // Messages that came after the last export are in the table, and no longer in the ledger.
        let may_have_grown = !self.is_closed && rows > expected;
        if rows == expected {
            Ok(counted)
        } else if may_have_grown {
            Ok(None)
        } else {
            Err(mismatch(expected, "the last export"))
        }
    }
}

impl Record {
    /// Writes the record. The day is no longer marked as changed.
    ///
    /// # Errors
    ///
    /// Postgres's; it is a failed serialization if `mark_changed` was called since the transaction began.
    pub async fn write(&self, transaction: &Transaction<'_>) -> Result<(), Error> {
        let parameters = [
            (&self.date as _, Type::DATE),
            (&self.objects as _, Type::INT2),
            (&self.key as _, Type::TEXT),
            (&self.rows as _, Type::INT8),
            (&self.ledger_entries as _, Type::INT8),
            (&self.ledger_seen as _, Type::INT8),
            (&self.deleted_rows as _, Type::INT8),
            (&self.bytes as _, Type::INT8),
            (&self.sha256 as _, Type::TEXT),
            (&self.etag as _, Type::TEXT),
            (&self.is_closed as _, Type::BOOL),
        ];
        transaction.execute_typed(WRITE_DAY, &parameters).await.map(drop)
    }
}

/// Finds the days that are due: first those that the ledger soon forgets, then the newest first. The first call reads the
/// whole table, to find the days that are older than the ledger.
///
/// # Errors
///
/// Postgres's.
pub async fn plan(transaction: &Transaction<'_>, limits: Limits) -> Result<Plan, Error> {
    let rows_without_date = "SELECT rows_without_date FROM state";
    let known: Option<i64> = transaction.query_typed_one(rows_without_date, &[]).await?.try_get(0)?;
    let rows_without_date = if let Some(known) = known {
        known
    } else {
        let parameters = [(&ROWS_OF_ONE_OBJECT as _, Type::INT8)];
        transaction.query_typed_one(FIND_DAYS, &parameters).await?.try_get(0)?
    };
    transaction.execute_typed(REOPEN_DAYS, &[(&limits.last_final, Type::DATE)]).await?;
    let ledger_day = format!(
        "SELECT day, sum(entries)::bigint AS entries FROM ({}) AS counted GROUP BY day",
        ledger::COUNT_DAYS
    );
    let read = READ_DAYS.replace("{exports}", "exports").replace("{ledger_day}", &ledger_day);
    let rows = transaction.query_typed(&read, &[]).await?;
    let mut days = rows.iter().map(day).collect::<Result<Vec<_>, _>>()?;
    let most_entries = days.iter().map(|day| day.entries).max().unwrap_or_default();
    days.retain(|day| day.is_due(limits));
    days.sort_by_key(|day| (day.is_urgent(limits), day.date));
    Ok(Plan { days: days.iter().rev().map(|day| day.date).collect(), most_entries, rows_without_date })
}

/// Reads a day.
///
/// # Errors
///
/// Postgres's.
pub async fn read_day(transaction: &Transaction<'_>, date: Date) -> Result<Day, Error> {
    let exports = "(SELECT * FROM exports WHERE day = $1)";
    let read = READ_DAYS.replace("{exports}", exports).replace("{ledger_day}", ledger::COUNT_DAY);
    day(&transaction.query_typed_one(&read, &[(&date, Type::DATE)]).await?)
}

/// Reads the dates of the moment `now`.
///
/// # Errors
///
/// Postgres's.
pub async fn read_limits(transaction: &Transaction<'_>, now: SystemTime) -> Result<Limits, Error> {
    let read = READ_LIMITS.replace("{limits}", ledger::LIMITS);
    let row = transaction.query_typed_one(&read, &[(&now, Type::TIMESTAMPTZ)]).await?;
    Ok(Limits { today: row.try_get(0)?, last_final: row.try_get(1)?, ledger_since: row.try_get(2)? })
}

fn day(row: &Row) -> Result<Day, Error> {
    let exported = if row.try_get("is_exported")? {
        Some(Exported {
            rows: row.try_get("rows")?,
            ledger_entries: row.try_get("ledger_entries")?,
            ledger_seen: row.try_get("ledger_seen")?,
        })
    } else {
        None
    };
    Ok(Day {
        date: row.try_get("day")?,
        entries: row.try_get("entries")?,
        objects: row.try_get("objects")?,
        exported,
        deleted_rows: row.try_get("deleted_rows")?,
        is_closed: row.try_get("closed")?,
        is_changed: row.try_get("changed")?,
    })
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;

    const LIMITS: Limits =
        Limits { today: date(2026, 11, 26), last_final: date(2026, 11, 11), ledger_since: date(2026, 1, 1) };
    const LEDGER: &str = "the ledger";
    const EXPORT: &str = "the last export";

    /// A day of November with this many entries that is not exported.
    fn new(day: i8, entries: i64) -> Day {
        let date = date(2026, 11, day);
        Day {
            date,
            entries,
            objects: None,
            exported: None,
            deleted_rows: 0,
            is_closed: false,
            is_changed: false,
        }
    }

    /// A day whose last export had this many rows and entries.
    fn exported(day: Day, rows: i64, ledger_entries: Option<i64>) -> Day {
        let exported = Exported { rows, ledger_entries, ledger_seen: ledger_entries.unwrap_or(1) };
        Day { exported: Some(exported), ..day }
    }

    #[test]
    fn days_are_due_until_they_are_final() {
        let closed = Day { is_closed: true, ..exported(new(11, 4), 4, Some(4)) };

        assert!(new(26, 0).is_due(LIMITS));
        assert!(!exported(new(12, 4), 4, Some(4)).is_due(LIMITS));
        assert!(exported(new(12, 5), 4, Some(4)).is_due(LIMITS), "a late message");
        assert!(Day { is_changed: true, ..exported(new(12, 4), 4, Some(4)) }.is_due(LIMITS));
        assert!(exported(new(11, 4), 4, Some(4)).is_due(LIMITS), "the final export");
        assert!(!closed.is_due(LIMITS));
        assert!(!Day { entries: 0, ..closed }.is_due(LIMITS), "the ledger has forgotten the day");
        assert!(Day { is_changed: true, ..closed }.is_due(LIMITS));
        assert!(Day { date: date(2026, 11, 12), entries: 5, ..closed }.is_due(LIMITS), "closed too early");
    }

    #[test]
    fn rows_must_equal_the_ledger() {
        let error = |rows, expected, source_of_count| Err(CountMismatch { rows, expected, source_of_count });
        let deleted = Day { deleted_rows: 3, ..exported(new(20, 9), 9, Some(9)) };

        assert_eq!(new(26, 4).compare(4, LIMITS), Ok(Some(4)));
        assert_eq!(new(26, 4).compare(3, LIMITS), error(3, 4, LEDGER));
        assert_eq!(new(26, 4).compare(5, LIMITS), error(5, 4, LEDGER));
        assert_eq!(new(26, 0).compare(5, LIMITS), error(5, 0, LEDGER));
        assert_eq!(deleted.compare(6, LIMITS), Ok(Some(9)));
        assert_eq!(deleted.compare(9, LIMITS), error(9, 6, LEDGER));
        // `migrate` has not emptied this day of the ledger yet.
        assert_eq!(new(1, 4).compare(3, LIMITS), error(3, 4, LEDGER));
    }

    #[test]
    fn days_before_the_ledger_have_no_count() {
        let young = Limits { ledger_since: date(2026, 11, 20), ..LIMITS };
        let error = |rows, expected| Err(CountMismatch { rows, expected, source_of_count: LEDGER });

        assert_eq!(new(20, 4).compare(9, young), Ok(None));
        assert_eq!(new(20, 4).compare(4, young), Ok(Some(4)));
        assert_eq!(new(20, 4).compare(3, young), error(3, 4));
        assert_eq!(exported(new(20, 4), 4, Some(4)).compare(9, young), error(9, 4));
        assert_eq!(new(21, 4).compare(9, young), error(9, 4));
        assert_eq!(new(1, 0).compare(9, LIMITS), Ok(None));
    }

    #[test]
    fn forgotten_days_are_compared_with_the_last_export() {
        let error = |rows, expected| Err(CountMismatch { rows, expected, source_of_count: EXPORT });
        let counted = Day { is_closed: true, deleted_rows: 2, ..exported(new(1, 0), 9, Some(9)) };
        let uncounted = Day { is_closed: true, deleted_rows: 2, ..exported(new(1, 0), 9, None) };
        let open = exported(new(1, 0), 9, Some(9));

        assert_eq!(counted.compare(7, LIMITS), Ok(Some(9)));
        assert_eq!(counted.compare(0, LIMITS), error(0, 7), "the rows were dropped");
        assert_eq!(counted.compare(8, LIMITS), error(8, 7));
        assert_eq!(uncounted.compare(7, LIMITS), Ok(None));
        assert_eq!(uncounted.compare(9, LIMITS), error(9, 7));
        assert_eq!(open.compare(9, LIMITS), Ok(Some(9)));
        assert_eq!(open.compare(10, LIMITS), Ok(None), "a message came after the last export");
        assert_eq!(open.compare(8, LIMITS), error(8, 9));
    }

    #[test]
    fn number_of_objects_stays() {
        let large = ROWS_OF_ONE_OBJECT + 1;

        assert_eq!(new(25, large).layout(LIMITS, large), Layout::SIXTEEN);
        assert_eq!(new(25, large - 1).layout(LIMITS, large), Layout::ONE);
        assert_eq!(new(26, 1).layout(LIMITS, large), Layout::SIXTEEN, "today still grows");
        assert_eq!(Day { objects: Some(1), ..new(25, large) }.layout(LIMITS, large), Layout::ONE);
        assert_eq!(Day { objects: Some(16), ..new(26, 1) }.layout(LIMITS, 1), Layout::SIXTEEN);
    }
}
