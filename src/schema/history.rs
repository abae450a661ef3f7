//! The migrations of the folder `migrations`, and the table that records which of them are applied.

use refinery::Migration;
use tokio_postgres::Transaction;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

use super::error::{SchemaError, is_one_of, postgres_reason};

mod embedded {
    refinery::embed_migrations!("migrations");
}

const CREATE_HISTORY: &str = include_str!("create_history.sql");
const RECORD_MIGRATION: &str = include_str!("record_migration.sql");

const FIND_HISTORY: &str = "SELECT to_regclass('login_etl_migrations') IS NOT NULL";
const READ_HISTORY: &str = "SELECT version, name, checksum FROM login_etl_migrations";

/// The old history, in the table in which refinery itself recorded our migrations. Other programs that use refinery
/// have a table of the same name.
const READ_OLD_HISTORY: &str =
    "SELECT version::integer, name::text, checksum::text FROM refinery_schema_history";
const COPY_OLD_HISTORY: &str = "
    INSERT INTO login_etl_migrations (version, name, applied_on, checksum)
    SELECT version, name, applied_on, checksum FROM refinery_schema_history";

/// The lock ends with the transaction. Readers of the table do not wait for it.
const LOCK: &str = "LOCK TABLE login_etl_migrations IN SHARE UPDATE EXCLUSIVE MODE";

/// An applied migration: a row of the history.
struct Applied {
    version: i32,
    name: String,
    checksum: String,
}

impl Applied {
    fn is(&self, migration: &Migration) -> bool {
        self.version == migration.version()
            && self.name == migration.name()
            && self.checksum == migration.checksum().to_string()
    }
}

/// Whether the history of this schema has all migrations of this program.
pub(super) async fn is_complete(transaction: &Transaction<'_>) -> Result<bool, tokio_postgres::Error> {
    if !exists(transaction).await? {
        return Ok(false);
    }
    let applied = read(transaction, READ_HISTORY).await?;
    Ok(migrations().last().is_none_or(|newest| applied.iter().any(|row| row.version == newest.version())))
}

/// Returns the version of the newest migration that was applied to this schema.
pub(super) async fn newest_applied(
    transaction: &Transaction<'_>,
) -> Result<Option<i32>, tokio_postgres::Error> {
    if !exists(transaction).await? {
        return Ok(None);
    }
    let applied = read(transaction, READ_HISTORY).await?;
    Ok(applied.iter().map(|row| row.version).max())
}

/// Returns the version of this program's newest migration.
pub(super) fn newest_known() -> Option<i32> {
    migrations().last().map(Migration::version)
}

/// Creates the history if it is missing, and waits until no other run holds it.
///
/// A new history starts with the rows of the old history, if that history is ours. The old table stays: an older
/// `migrate` reads it after a rollback.
pub(super) async fn lock(transaction: &mut Transaction<'_>) -> Result<(), SchemaError> {
    if !exists(transaction).await? {
        create(transaction).await.map_err(busy_or_refused)?;
    }
    transaction.batch_execute(LOCK).await.map_err(busy_or_refused)?;
    if read(transaction, READ_HISTORY).await?.is_empty() && has_old_history(transaction).await? {
        transaction.batch_execute(COPY_OLD_HISTORY).await?;
    }
    Ok(())
}

/// Applies the migrations that are missing, and returns their names. A history that is newer than this program is
/// not changed.
pub(super) async fn apply_missing(transaction: &Transaction<'_>) -> Result<Vec<String>, SchemaError> {
    let applied = read(transaction, READ_HISTORY).await?;
    let newest_applied = applied.iter().map(|row| row.version).max();
    let mut names = Vec::new();
    for migration in migrations() {
        match applied.iter().find(|row| row.version == migration.version()) {
            Some(row) if row.is(&migration) => continue,
            Some(_) => {
                let problem = format!("applied migration {migration} is different from this program's");
                return Err(SchemaError::Migration(problem));
            }
            None if newest_applied > Some(migration.version()) => {
                let problem = format!("{migration} is missing, but a newer migration is applied");
                return Err(SchemaError::Migration(problem));
            }
            None => apply(transaction, &migration)
                .await
                .map_err(|error| SchemaError::Migration(postgres_reason(&error)))?,
        }
        names.push(migration.to_string());
    }
    Ok(names)
}

async fn apply(transaction: &Transaction<'_>, migration: &Migration) -> Result<(), tokio_postgres::Error> {
    transaction.batch_execute(&sent_text(migration.sql().unwrap_or_default())).await?;
    let checksum = migration.checksum().to_string();
    let record: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 3] =
        [(&migration.version(), Type::INT4), (&migration.name(), Type::TEXT), (&checksum, Type::TEXT)];
    transaction.execute_typed(RECORD_MIGRATION, &record).await?;
    Ok(())
}

/// Returns the migrations in the order of their versions.
fn migrations() -> Vec<Migration> {
    let mut migrations = embedded::migrations::runner().get_migrations().clone();
    migrations.sort();
    migrations
}

/// Returns the text of a migration as it is sent. An applied file never changes, so two mistakes in old files are
/// corrected here:
///
/// - Comments contain an ellipsis, a character that an encoding other than UTF8 may lack.
/// - V3 creates the roles and ignores the error for a role that exists. A role without CREATEROLE gets another
///   error, which V3 must ignore too.
fn sent_text(sql: &str) -> String {
    sql.replace('…', "...")
        .replace("WHEN duplicate_object OR", "WHEN insufficient_privilege OR duplicate_object OR")
}

async fn exists(transaction: &Transaction<'_>) -> Result<bool, tokio_postgres::Error> {
    transaction.query_typed(FIND_HISTORY, &[]).await?[0].try_get(0)
}

/// Creates the history. If another run creates it at the same time, this waits for the other run.
async fn create(transaction: &mut Transaction<'_>) -> Result<(), tokio_postgres::Error> {
    let savepoint = transaction.savepoint("create_history").await?;
    match savepoint.batch_execute(CREATE_HISTORY).await {
        Ok(()) => savepoint.commit().await,
        Err(error) if is_one_of(&error, &[SqlState::UNIQUE_VIOLATION, SqlState::DUPLICATE_TABLE]) => {
            savepoint.rollback().await
        }
        Err(error) => Err(error),
    }
}

/// Whether the old history is ours: it contains our first migration. A table of another program may lack columns or
/// hold nulls, or this role may have no right to read it.
async fn has_old_history(transaction: &mut Transaction<'_>) -> Result<bool, tokio_postgres::Error> {
    let savepoint = transaction.savepoint("old_history").await?;
    let rows = read(&savepoint, READ_OLD_HISTORY).await;
    savepoint.rollback().await?;
    let is_ours =
        |rows: Vec<Applied>| migrations().first().is_some_and(|first| rows.iter().any(|row| row.is(first)));
    Ok(rows.is_ok_and(is_ours))
}

async fn read(transaction: &Transaction<'_>, sql: &str) -> Result<Vec<Applied>, tokio_postgres::Error> {
    let rows = transaction.query_typed(sql, &[]).await?;
    let applied = rows.iter().map(|row| {
        Ok(Applied { version: row.try_get(0)?, name: row.try_get(1)?, checksum: row.try_get(2)? })
    });
    applied.collect()
}

fn busy_or_refused(error: tokio_postgres::Error) -> SchemaError {
    if is_one_of(&error, &[SqlState::LOCK_NOT_AVAILABLE, SqlState::QUERY_CANCELED]) {
        return SchemaError::Busy;
    }
    error.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The newest migration that is not plain ASCII; it never changes.
    const LAST_NON_ASCII: i32 = 6;

    #[test]
    fn sent_migrations_are_ascii() {
        for migration in migrations() {
            let sql = migration.sql().unwrap();

            assert!(sent_text(sql).is_ascii(), "{migration}");
            assert!(sql.is_ascii() || migration.version() <= LAST_NON_ASCII, "{migration}");
        }
    }

    #[test]
    fn only_comments_are_not_ascii() {
        for migration in migrations() {
            for line in migration.sql().unwrap().lines().filter(|line| !line.is_ascii()) {
                assert!(line.trim_start().starts_with("--"), "{migration}: {line}");
            }
        }
    }
}
