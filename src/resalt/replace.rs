//! The last transaction of a resalt.

use std::time::Duration;

use postgres_protocol::escape::escape_identifier;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Transaction};

use super::copy::{Reader, copy};
use super::rewriter::{Tokens, resalt_bytes};
use super::run::{Bound, COLUMNS, Run, Source, busy, find_parts};
use crate::deadline::Deadline;
use crate::schema::beside::exists;
use crate::schema::error::is_one_of;
use crate::schema::vault::{self, ROWS_PER_STEP};
use crate::schema::{REVOKE_ALL, REVOKE_PARTITION_RIGHTS, SchemaError};
use crate::{analytics, lake, partitions};

const FIND_SWAPS: &str = include_str!("find_swaps.sql");
const FIND_TRIGGERS: &str = include_str!("find_triggers.sql");
const FIND_ROLLUPS: &str = include_str!("find_rollups.sql");
const ADD_SEALED: &str = include_str!("add_sealed.sql");

/// How often the batches are locked out. If the lock does not come in time, waiting batches get a turn.
const LOCK_ATTEMPTS: usize = 10;
const LOCK_PAUSE: Duration = Duration::from_secs(3);
/// Waits for the batches that are being written.
const LOCK_OUT_BATCHES: &str = "SET LOCAL lock_timeout = '3s'; LOCK TABLE ONLY user_logins IN SHARE MODE";
/// Waits for the queries that are running.
const LOCK_OUT_QUERIES: &str = "LOCK TABLE ONLY user_logins IN ACCESS EXCLUSIVE MODE";

/// How the last transaction ended.
pub(super) enum Replaced {
    Yes,
    /// Rows of these tables were changed or deleted after they were copied.
    Changed(Vec<Source>),
}

impl Run<'_> {
    /// Replaces the tables, and accepts the later salt. Without [`Replaced::Yes`], nothing was changed.
    pub(super) async fn replace(
        &mut self,
        reader: &mut Client,
        writer: &mut Client,
    ) -> Result<Replaced, SchemaError> {
        // Most of it here, where each step is committed.
        let limit = Deadline::within(Duration::from_hours(1));
        vault::fold(writer, self.logins_schema, ROWS_PER_STEP, limit).await?;

        let mut transaction = self.step(writer).await?;
        let rollups = self.lock_out_others(&transaction).await?;
        let sources = self.find_sources(&transaction).await?;
        let (mut days, mut changed) = (Vec::new(), Vec::new());
        for source in sources {
            days.extend(self.days(&transaction, &source).await?);
            if source.is_recent {
                continue;
            }
            let lock = format!("LOCK TABLE {} IN SHARE MODE", source.name);
            transaction.batch_execute(&lock).await.map_err(busy)?;
            if !self.complete(reader, &transaction, &source).await? {
                changed.push(source);
            }
        }
        if !changed.is_empty() {
            transaction.rollback().await?;
            return Ok(Replaced::Changed(changed));
        }
        if rollups {
            self.replace_rollups(reader, &transaction).await?;
        }
        self.copy_sealed(reader, &transaction).await?;
        for attempt in 0..LOCK_ATTEMPTS {
            if attempt > 0 {
                tokio::time::sleep(LOCK_PAUSE).await;
            }
            let done = self.done;
            let mut savepoint = transaction.savepoint("batches").await?;
            match self.replace_logins(reader, &mut savepoint, &days).await {
                Ok(Replaced::Yes) => {
                    savepoint.commit().await?;
                    transaction.commit().await?;
                    return Ok(Replaced::Yes);
                }
                Err(SchemaError::TableInUse) => savepoint.rollback().await?,
                Ok(changed) => {
                    savepoint.rollback().await?;
                    transaction.rollback().await?;
                    return Ok(changed);
                }
                Err(error) => return Err(error),
            }
            self.done = done;
        }
        Err(SchemaError::TableInUse)
    }

    /// Begins the copy of a table anew.
    pub(super) async fn copy_anew(&self, writer: &mut Client, source: &Source) -> Result<(), SchemaError> {
        let transaction = self.step(writer).await?;
        transaction.batch_execute(&format!("TRUNCATE {}", escape_identifier(&source.copy))).await?;
        let forget = "UPDATE parts SET seen = NULL, rows = 0 WHERE source = $1";
        transaction.execute_typed(forget, &[(&source.oid, Type::OID)]).await?;
        Ok(transaction.commit().await?)
    }

    /// Locks erasures, folds, roll-ups and exports out. Returns whether there are roll-ups.
    async fn lock_out_others(&self, transaction: &Transaction<'_>) -> Result<bool, SchemaError> {
        transaction.batch_execute("SELECT vault_lock()").await.map_err(busy)?;
        let rollups = exists(transaction, &analytics::schema_name(self.logins_schema)).await?;
        if rollups {
            let rollups = escape_identifier(&analytics::schema_name(self.logins_schema));
            let lock = format!("LOCK TABLE {rollups}.state IN SHARE ROW EXCLUSIVE MODE");
            transaction.batch_execute(&lock).await.map_err(busy)?;
        }
        if exists(transaction, &lake::schema_name(self.logins_schema)).await? {
            let books = escape_identifier(&lake::schema_name(self.logins_schema));
            let lock = format!("LOCK TABLE {books}.state, {books}.exports IN SHARE ROW EXCLUSIVE MODE");
            transaction.batch_execute(&lock).await.map_err(busy)?;
        }
        Ok(rollups)
    }

    /// Returns the days of a table, as texts.
    async fn days(&self, transaction: &Transaction<'_>, source: &Source) -> Result<Vec<String>, SchemaError> {
        // All rows of a partition of ours have one day, except in the partition for all other rows.
        let one_day = self.is_ours && source.copy != partitions::OTHER;
        let (distinct, limit) = if one_day { ("", "LIMIT 1") } else { ("DISTINCT", "") };
        let select = format!(
            "SELECT {distinct} create_date::date::text FROM ONLY {} WHERE create_date IS NOT NULL {limit}",
            source.name
        );
        let rows = transaction.query_typed(&select, &[]).await?;
        Ok(rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?)
    }

    /// Copies what is missing in the copy of a table to which nobody writes. Returns whether the copy then has as many rows
    /// as the table.
    async fn complete(
        &mut self,
        reader: &mut Client,
        transaction: &Transaction<'_>,
        source: &Source,
    ) -> Result<bool, SchemaError> {
        for part in find_parts(transaction, source).await? {
            self.copy_part_in(reader, transaction, source, &part, Bound::All).await?;
        }
        let compare = format!(
            "SELECT (SELECT count(*) FROM ONLY {}) = (SELECT sum(rows) FROM parts WHERE source = $1)",
            source.name
        );
        Ok(transaction.query_typed_one(&compare, &[(&source.oid, Type::OID)]).await?.try_get(0)?)
    }

    /// Replaces the tokens of the roll-ups. Analysts wait until the transaction ends.
    async fn replace_rollups(
        &mut self,
        reader: &mut Client,
        transaction: &Transaction<'_>,
    ) -> Result<(), SchemaError> {
        let rollups = analytics::schema_name(self.logins_schema);
        for row in transaction.query_typed(FIND_ROLLUPS, &[(&rollups, Type::TEXT)]).await? {
            let (table, column): (&str, &str) = (row.try_get(0)?, row.try_get(1)?);
            let source = format!("{}.{}", escape_identifier(&rollups), escape_identifier(table));
            let copy_of = self.of_copies(table);
            let create = format!("CREATE TABLE {copy_of} (LIKE {source})");
            transaction.batch_execute(&create).await?;
            let (names, list) = columns(transaction, &source).await?;
            let tokens = Tokens::Digits(names.iter().position(|name| name == column).into_iter().collect());
            let from = format!("COPY (SELECT {list} FROM {source}) TO STDOUT (FORMAT binary)");
            let to = format!("COPY {copy_of} ({list}) FROM STDIN (FORMAT binary)");
            let reader = Reader::begin(&mut *reader).await?;
            copy(&reader, &from, transaction, &to, &mut self.resalter, &tokens).await?;
            reader.end().await?;
            let replace = format!(
                "TRUNCATE {source}; INSERT INTO {source} ({list}) SELECT {list} FROM {copy_of}; DROP TABLE {copy_of}"
            );
            transaction.batch_execute(&replace).await.map_err(busy)?;
        }
        let changed = format!("UPDATE {}.state SET run = run + 1", escape_identifier(&rollups));
        Ok(transaction.batch_execute(&changed).await?)
    }

    /// Copies the sealed values. A value opens only beside the token with which it was sealed, so this token is kept.
    async fn copy_sealed(
        &mut self,
        reader: &mut Client,
        transaction: &Transaction<'_>,
    ) -> Result<(), SchemaError> {
        let source = self.of_logins("vault_sealed");
        let copy_of = self.of_copies("vault_sealed");
        // The index is made after the rows: that is faster.
        let create = format!("CREATE TABLE {copy_of} (LIKE {source} INCLUDING ALL EXCLUDING INDEXES)");
        transaction.batch_execute(&create).await?;
        let (names, list) = columns(transaction, &source).await?;
        let place = names.iter().position(|name| name == "token").unwrap_or_default();
        let values = list.replace("sealed_token", "coalesce(sealed_token, token) AS sealed_token");
        let from = format!("COPY (SELECT {values} FROM {source}) TO STDOUT (FORMAT binary)");
        let to = format!("COPY {copy_of} ({list}) FROM STDIN (FORMAT binary)");
        let reader = Reader::begin(reader).await?;
        copy(&reader, &from, transaction, &to, &mut self.resalter, &Tokens::Bytes(place)).await?;
        reader.end().await?;
        let finish = format!(
            "ALTER TABLE {copy_of} ADD PRIMARY KEY (token);
             COMMENT ON TABLE {copy_of} IS 'The sealed value of each token';
             ANALYZE {copy_of}"
        );
        transaction.batch_execute(&finish).await?;
        Ok(transaction.batch_execute(REVOKE_ALL).await?)
    }

    /// Replaces the logins and the vault, while no batch is written. [`SchemaError::TableInUse`] if a lock does not come in
    /// time.
    async fn replace_logins(
        &mut self,
        reader: &mut Client,
        transaction: &mut Transaction<'_>,
        days: &[String],
    ) -> Result<Replaced, SchemaError> {
        transaction.batch_execute(LOCK_OUT_BATCHES).await.map_err(in_use)?;
        let mut changed = Vec::new();
        for source in self.find_sources(transaction).await? {
            if source.is_recent && !self.complete(reader, transaction, &source).await? {
                changed.push(source);
            }
        }
        if !changed.is_empty() {
            return Ok(Replaced::Changed(changed));
        }
        self.replace_vault(transaction).await?;
        transaction.batch_execute(LOCK_OUT_QUERIES).await.map_err(in_use)?;
        if self.is_ours {
            let swaps = transaction.query_typed(FIND_SWAPS, &[(&self.schema, Type::TEXT)]).await?;
            for statement in swaps {
                transaction.batch_execute(statement.try_get(0)?).await?;
            }
            transaction.batch_execute(REVOKE_PARTITION_RIGHTS).await?;
        } else {
            self.replace_rows(transaction).await?;
        }
        let accept = format!(
            "UPDATE {} SET fingerprint = $1, accepted_at = now()",
            self.of_logins("salt_fingerprint")
        );
        transaction.execute_typed(&accept, &[(&self.to.as_str(), Type::TEXT)]).await?;
        let books = lake::schema_name(self.logins_schema);
        if exists(transaction, &books).await? {
            let books = escape_identifier(&books);
            // Batches may have added recent days since.
            let mark = format!(
                "SELECT {books}.mark_changed(day)
                 FROM (
                     SELECT day FROM {books}.exports
                     WHERE exported_at IS NOT NULL
                         AND (day = ANY ($1::text[]::date[]) OR day > (now() AT TIME ZONE 'UTC')::date - 17)
                 ) AS exported"
            );
            transaction.query_typed(&mark, &[(&days, Type::TEXT_ARRAY)]).await?;
        }
        let drop = format!("DROP SCHEMA {} CASCADE", escape_identifier(&self.schema));
        transaction.batch_execute(&drop).await?;
        Ok(Replaced::Yes)
    }

    /// Replaces the rows of a table that has no partitions of ours, and so stays as it is.
    async fn replace_rows(&self, transaction: &Transaction<'_>) -> Result<(), SchemaError> {
        let triggers = transaction.query_typed(FIND_TRIGGERS, &[]).await?;
        for trigger in &triggers {
            transaction.batch_execute(trigger.try_get(0)?).await?;
        }
        let logins = self.of_logins("user_logins");
        transaction.batch_execute(&format!("TRUNCATE {logins}")).await?;
        for row in transaction.query_typed("SELECT name FROM copies", &[]).await? {
            let copy_of = self.of_copies(row.try_get(0)?);
            let (_, list) = columns(transaction, &copy_of).await?;
            let insert =
                format!("INSERT INTO {logins} ({list}) OVERRIDING SYSTEM VALUE SELECT {list} FROM {copy_of}");
            transaction.batch_execute(&insert).await?;
        }
        for trigger in &triggers {
            transaction.batch_execute(trigger.try_get(1)?).await?;
        }
        Ok(())
    }

    /// Replaces the sealed values and the erased tokens.
    async fn replace_vault(&mut self, transaction: &Transaction<'_>) -> Result<(), SchemaError> {
        let (sealed, copy_of) = (self.of_logins("vault_sealed"), self.of_copies("vault_sealed"));
        // The batches' values since the last fold. Batches wait, so there are no more.
        let mut folded = 0;
        loop {
            let row =
                transaction.query_typed_one("SELECT vault_fold($1)", &[(&ROWS_PER_STEP, Type::INT4)]).await?;
            let rows: i64 = row.try_get(0)?;
            folded += rows;
            if rows < ROWS_PER_STEP.into() {
                break;
            }
        }
        if folded > 0 {
            // Only rows that this transaction wrote are so young.
            let (old, new) =
                self.map(transaction, &format!("SELECT token FROM {sealed} WHERE age(xmin) <= 0")).await?;
            let add = ADD_SEALED.replace("{sealed}", &sealed).replace("{copy}", &copy_of);
            transaction.execute_typed(&add, &[(&old, Type::BYTEA_ARRAY), (&new, Type::BYTEA_ARRAY)]).await?;
        }
        let logins = escape_identifier(self.logins_schema);
        let swap = format!("DROP TABLE {sealed}; ALTER TABLE {copy_of} SET SCHEMA {logins}");
        transaction.batch_execute(&swap).await?;
        let erased = self.of_logins("vault_erased");
        let (old, new) = self.map(transaction, &format!("SELECT token FROM {erased}")).await?;
        let update = format!(
            "UPDATE {erased} SET token = new FROM unnest($1, $2) AS replaced (old, new) WHERE token = old"
        );
        transaction.execute_typed(&update, &[(&old, Type::BYTEA_ARRAY), (&new, Type::BYTEA_ARRAY)]).await?;
        Ok(())
    }

    /// Returns the tokens that a query returns, and their new tokens.
    async fn map(
        &mut self,
        transaction: &Transaction<'_>,
        select: &str,
    ) -> Result<(Vec<Vec<u8>>, Vec<Vec<u8>>), SchemaError> {
        let (mut old, mut new) = (Vec::new(), Vec::new());
        for row in transaction.query_typed(select, &[]).await? {
            let token: &[u8] = row.try_get(0)?;
            // Of another length, it is no token.
            let Ok(bytes) = token.try_into() else { continue };
            old.push(token.to_vec());
            new.push(resalt_bytes(bytes, &mut self.resalter).to_vec());
        }
        Ok((old, new))
    }

    fn of_logins(&self, table: &str) -> String {
        format!("{}.{}", escape_identifier(self.logins_schema), escape_identifier(table))
    }

    fn of_copies(&self, table: &str) -> String {
        format!("{}.{}", escape_identifier(&self.schema), escape_identifier(table))
    }
}

/// Returns the columns of a table that COPY writes: their names, and a list of the quoted names.
async fn columns(
    transaction: &Transaction<'_>,
    table: &str,
) -> Result<(Vec<String>, String), tokio_postgres::Error> {
    let oid = transaction.query_typed_one("SELECT $1::regclass::oid", &[(&table, Type::TEXT)]).await?;
    let oid: u32 = oid.try_get(0)?;
    let row = transaction.query_typed_one(COLUMNS, &[(&oid, Type::OID)]).await?;
    Ok((row.try_get(0)?, row.try_get(1)?))
}

fn in_use(error: tokio_postgres::Error) -> SchemaError {
    if is_one_of(&error, &[SqlState::LOCK_NOT_AVAILABLE]) { SchemaError::TableInUse } else { error.into() }
}
