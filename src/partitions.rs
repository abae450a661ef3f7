//! The partitions of `user_logins`: one for each day, and one for all other rows.
//!
//! Only a table that [`migrate`](crate::schema::migrate) has created, or that was moved as docs/operations.md says, has
//! them. All other tables are left as they are.

use std::time::{Duration, SystemTime};

use postgres_protocol::escape::escape_identifier;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Transaction};

use crate::analytics;
use crate::lake;
use crate::schema::beside;
use crate::schema::error::is_one_of;
use crate::schema::trust::{self, Ours};
use crate::schema::{Finding, REVOKE_PARTITION_RIGHTS, SchemaError, begin};

/// The partition for all rows that no other partition is for.
pub(crate) const OTHER: &str = "user_logins_other";

const OWN_PARTITIONS: &str = include_str!("partitions/own.sql");
const MISSING_DAYS: &str = include_str!("partitions/missing_days.sql");
const OLD_PARTITIONS: &str = include_str!("partitions/old.sql");

/// Postgres compares a new partition with the rows in `user_logins_other`, and locks this partition for it. Few batches
/// insert into it, but a dump reads it. The time limit is longer than the second after which Postgres cancels an
/// automatic vacuum.
const LOCK_OTHER: &str =
    "SET LOCAL lock_timeout = '2s'; LOCK TABLE ONLY user_logins_other IN ACCESS EXCLUSIVE MODE";
/// Two runs take turns. Batches and queries do not wait for this lock.
const LOCK_OUT_RUNS: &str = "LOCK TABLE ONLY user_logins IN SHARE UPDATE EXCLUSIVE MODE";
/// All batches wait until a partition is dropped, which takes some milliseconds, and until the batches and queries before
/// it have ended, for at most this time.
const LOCK_OUT_BATCHES: &str =
    "SET LOCAL lock_timeout = '1s'; LOCK TABLE ONLY user_logins IN ACCESS EXCLUSIVE MODE";

/// How often [`drop_old`] tries to lock the table for a partition.
const LOCK_ATTEMPTS: usize = 5;
/// The time for waiting batches between two attempts.
const LOCK_PAUSE: Duration = Duration::from_secs(1);

/// When so many partitions are missing, more than a week of runs has failed to add one.
const TOO_MANY_MISSING: usize = 8;

/// The texts of dates are read again by other statements.
const DATES: &str = "SET LOCAL datestyle = 'ISO'";

/// The result of [`drop_old`].
#[derive(Debug, Default)]
pub struct DroppedLogins {
    /// The names of the partitions that were dropped.
    pub partitions: Vec<String>,
    /// Number of rows that were deleted from `user_logins_other`.
    pub rows: u64,
    /// Why old rows were kept.
    pub warnings: Vec<Finding>,
}

/// The old rows of a partition.
struct Old {
    /// The name, quoted.
    partition: String,
    /// Whether all rows that the partition can have are old.
    entirely: bool,
    /// The days of the rows, as the text of an array; `None` without rows.
    days: Option<String>,
}

/// What happened to an old partition.
enum Outcome {
    Dropped,
    Kept(Finding),
    /// Others held locks during all attempts.
    InUse,
}

/// Adds the partitions of the days around `now` that are missing. Until then, rows of such a day are in
/// `user_logins_other`, and stay there.
///
/// Returns a warning if this role may not add them, or if `user_logins_other` is in use: the next run may succeed.
///
/// # Errors
///
/// [`SchemaError::TableInUse`] if partitions of more than a week are missing, [`SchemaError::NotReady`] if another role
/// could act as this role, and [`SchemaError::Postgres`]: nothing was changed.
pub async fn add_days(
    client: &mut Client,
    schema: &str,
    now: SystemTime,
) -> Result<Option<Finding>, SchemaError> {
    let mut transaction = begin(client, schema).await?;
    trust::check(&mut transaction, schema, Ours::Named).await?;
    match own_partitions(&transaction).await? {
        None => return Ok(None),
        Some(Err(finding)) => return Ok(Some(finding)),
        Some(Ok(())) => {}
    }
    transaction.batch_execute(DATES).await?;
    let mut missing = 0;
    match add_missing(&transaction, now, &mut missing).await {
        Err(error) if is_one_of(&error, &[SqlState::LOCK_NOT_AVAILABLE]) => {
            if missing >= TOO_MANY_MISSING {
                return Err(SchemaError::TableInUse);
            }
            Ok(Some(Finding {
                problem: "a day of user_logins has no partition yet, because another session uses the table"
                    .to_owned(),
                remedy: "run migrate at another time, within a week: its daily run tries again too"
                    .to_owned(),
            }))
        }
        outcome => {
            outcome?;
            transaction.commit().await?;
            Ok(None)
        }
    }
}

/// Sets `missing` to the number of missing partitions, and adds them.
async fn add_missing(
    transaction: &Transaction<'_>,
    now: SystemTime,
    missing: &mut usize,
) -> Result<(), tokio_postgres::Error> {
    // Before anything is read: two runs that have read user_logins_other would wait for each other.
    transaction.batch_execute(LOCK_OUT_RUNS).await?;
    *missing = missing_days(transaction, now).await?.len();
    if *missing == 0 {
        return Ok(());
    }
    transaction.batch_execute(LOCK_OTHER).await?;
    for statement in missing_days(transaction, now).await? {
        transaction.batch_execute(&statement).await?;
    }
    transaction.batch_execute(REVOKE_PARTITION_RIGHTS).await
}

/// Returns the statements that add the missing partitions.
async fn missing_days(
    transaction: &Transaction<'_>,
    now: SystemTime,
) -> Result<Vec<String>, tokio_postgres::Error> {
    let rows = transaction.query_typed(MISSING_DAYS, &[(&now, Type::TIMESTAMPTZ)]).await?;
    rows.iter().map(|row| row.try_get(0)).collect()
}

/// Drops the partitions, and deletes the other rows, of days that are older than this number of days before `now`. A day
/// stays until its roll-up is closed and its export is final, if there are roll-ups and exports.
///
/// Batches wait for at most 1 s at a time.
///
/// # Errors
///
/// [`SchemaError::NotReady`] if `user_logins` has no partitions of ours, or if another role could act as this role; and
/// [`SchemaError::Postgres`]. What was dropped before stays dropped.
pub async fn drop_old(
    client: &mut Client,
    schema: &str,
    keep_days: u16,
    now: SystemTime,
) -> Result<DroppedLogins, SchemaError> {
    let mut dropped = DroppedLogins::default();
    let (is_done, old) = find_old(client, schema, keep_days, now).await?;
    // Another attempt for each partition would make batches wait again.
    let mut is_in_use = false;
    for Old { partition, entirely, days } in old {
        let days = days.unwrap_or_else(|| "{}".to_owned());
        if entirely && is_in_use {
            continue;
        }
        if entirely {
            match drop_partition(client, schema, &partition, &days, &is_done).await? {
                Outcome::Dropped => dropped.partitions.push(partition),
                Outcome::Kept(warning) => dropped.warnings.push(warning),
                Outcome::InUse => {
                    is_in_use = true;
                    dropped.warnings.push(in_use(&partition));
                }
            }
        } else {
            let transaction = begin(client, schema).await?;
            transaction.batch_execute(DATES).await?;
            let delete = format!(
                "DELETE FROM user_logins_other
                 WHERE create_date IN (SELECT day FROM unnest($1::date[]) AS old (day) WHERE {is_done})"
            );
            dropped.rows = transaction.execute_typed(&delete, &[(&days, Type::TEXT)]).await?;
            dropped.warnings.extend(undone(&transaction, &partition, &days, &is_done).await?);
            transaction.commit().await?;
        }
    }
    Ok(dropped)
}

/// Returns the condition under which a day may be dropped, and what is old.
async fn find_old(
    client: &mut Client,
    schema: &str,
    keep_days: u16,
    now: SystemTime,
) -> Result<(String, Vec<Old>), SchemaError> {
    let mut transaction = begin(client, schema).await?;
    trust::check(&mut transaction, schema, Ours::Named).await?;
    match own_partitions(&transaction).await? {
        None => return Err(SchemaError::NotReady(vec![not_partitioned(schema)])),
        Some(outcome) => outcome.map_err(|finding| SchemaError::NotReady(vec![finding]))?,
    }
    transaction.batch_execute(DATES).await?;
    let is_done = is_done(&mut transaction, schema).await?;
    let keep_days = i32::from(keep_days);
    let parameters = [(&now as _, Type::TIMESTAMPTZ), (&keep_days as _, Type::INT4)];
    let mut old = Vec::new();
    for row in transaction.query_typed(OLD_PARTITIONS, &parameters).await? {
        let days = transaction.query_typed_one(row.try_get(2)?, &[]).await?.try_get(0)?;
        old.push(Old { partition: row.try_get(0)?, entirely: row.try_get(1)?, days });
    }
    Ok((is_done, old))
}

/// Returns the condition under which nothing needs the rows of `old.day` any more.
async fn is_done(transaction: &mut Transaction<'_>, schema: &str) -> Result<String, SchemaError> {
    let (books, rollups) = (lake::schema_name(schema), analytics::schema_name(schema));
    let mut conditions = vec!["true".to_owned()];
    if is_ours(transaction, &books).await? {
        let books = escape_identifier(&books);
        conditions
            .push(format!("EXISTS (SELECT FROM {books}.exports WHERE exports.day = old.day AND final)"));
    }
    if is_ours(transaction, &rollups).await? {
        let rollups = escape_identifier(&rollups);
        conditions
            .push(format!("EXISTS (SELECT FROM {rollups}.state WHERE logins_without_date IS NOT NULL)"));
        conditions
            .push(format!("NOT EXISTS (SELECT FROM {rollups}.day WHERE day.day = old.day AND NOT closed)"));
    }
    Ok(conditions.join(" AND "))
}

/// Whether this schema exists and was made by this program.
async fn is_ours(transaction: &mut Transaction<'_>, schema: &str) -> Result<bool, SchemaError> {
    let exists = beside::exists(transaction, schema).await?;
    if exists {
        trust::check(transaction, schema, Ours::All).await?;
    }
    Ok(exists)
}

/// Drops a partition if all these days are done.
async fn drop_partition(
    client: &mut Client,
    schema: &str,
    partition: &str,
    days: &str,
    is_done: &str,
) -> Result<Outcome, SchemaError> {
    for attempt in 0..LOCK_ATTEMPTS {
        if attempt > 0 {
            tokio::time::sleep(LOCK_PAUSE).await;
        }
        let transaction = begin(client, schema).await?;
        transaction.batch_execute(DATES).await?;
        match drop_locked(&transaction, partition, days, is_done).await {
            Err(error) if is_one_of(&error, &[SqlState::LOCK_NOT_AVAILABLE]) => {
                transaction.rollback().await?;
            }
            Err(error) if is_one_of(&error, &[SqlState::DEPENDENT_OBJECTS_STILL_EXIST]) => {
                return Ok(Outcome::Kept(Finding {
                    problem: format!("{partition} is old, and other objects depend on it"),
                    remedy: format!("DROP TABLE {partition} CASCADE, or drop these objects"),
                }));
            }
            outcome => {
                let kept = outcome?;
                transaction.commit().await?;
                return Ok(kept.map_or(Outcome::Dropped, Outcome::Kept));
            }
        }
    }
    Ok(Outcome::InUse)
}

async fn drop_locked(
    transaction: &Transaction<'_>,
    partition: &str,
    days: &str,
    is_done: &str,
) -> Result<Option<Finding>, tokio_postgres::Error> {
    // Before the lock, because batches wait for it.
    if let Some(finding) = undone(transaction, partition, days, is_done).await? {
        return Ok(Some(finding));
    }
    transaction.batch_execute(LOCK_OUT_BATCHES).await?;
    // DROP TABLE locks both too. Batches must not wait until a vacuum of the partition has ended.
    let lock = format!("LOCK TABLE ONLY user_logins_other, ONLY {partition} IN ACCESS EXCLUSIVE MODE NOWAIT");
    transaction.batch_execute(&lock).await?;
    // An erasure may have changed a day meanwhile.
    let finding = undone(transaction, partition, days, is_done).await?;
    if finding.is_none() {
        transaction.batch_execute(&format!("DROP TABLE {partition}")).await?;
    }
    Ok(finding)
}

/// Returns a finding if some of these days are not done.
async fn undone(
    transaction: &Transaction<'_>,
    partition: &str,
    days: &str,
    is_done: &str,
) -> Result<Option<Finding>, tokio_postgres::Error> {
    let count =
        format!("SELECT count(*), min(day)::text FROM unnest($1::date[]) AS old (day) WHERE NOT ({is_done})");
    let row = transaction.query_typed_one(&count, &[(&days, Type::TEXT)]).await?;
    let first_day: Option<String> = row.try_get(1)?;
    Ok(first_day.map(|day| Finding {
        problem: format!(
            "{partition} has {} old day(s) without a final export or a closed roll-up, the first of them {day}",
            row.get::<_, i64>(0)
        ),
        remedy: "see why the export or the roll-up does not finish; without them, drop their schemas".to_owned(),
    }))
}

fn in_use(partition: &str) -> Finding {
    Finding {
        problem: format!("{partition} is old, and was not dropped, because other sessions use the table"),
        remedy: "end their sessions; the next run of migrate tries again".to_owned(),
    }
}

fn not_partitioned(schema: &str) -> Finding {
    Finding {
        problem: format!(
            "{}.user_logins has no partitions of days, so LOGIN_RETENTION_DAYS can drop none",
            escape_identifier(schema)
        ),
        remedy: "move it, as docs/operations.md says, or remove the setting and delete old rows yourself"
            .to_owned(),
    }
}

/// Whether the partitions of `user_logins` are ours.
pub(crate) async fn are_ours(transaction: &Transaction<'_>) -> Result<bool, tokio_postgres::Error> {
    Ok(own_partitions(transaction).await?.is_some())
}

/// Returns `None` if the partitions of `user_logins` are not ours, and what prevents this role from changing them.
async fn own_partitions(
    transaction: &Transaction<'_>,
) -> Result<Option<Result<(), Finding>>, tokio_postgres::Error> {
    let rows = transaction.query_typed(OWN_PARTITIONS, &[]).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let obstacle: Option<String> = row.try_get(0)?;
    Ok(Some(match obstacle {
        None => Ok(()),
        Some(problem) => Err(Finding { problem, remedy: row.try_get(1)? }),
    }))
}
