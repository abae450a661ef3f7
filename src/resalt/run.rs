//! The copies of a resalt, and what each of its steps needs.

use std::time::{Duration, Instant};

use login::pii::{Resalter, SaltFingerprint, Salts};
use postgres_protocol::escape::escape_identifier;
use serde::Serialize;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Transaction};

use super::copy::{Reader, copy};
use super::rewriter::Tokens;
use crate::deadline::Deadline;
use crate::schema::beside::Beside;
use crate::schema::error::is_one_of;
use crate::schema::trust::{self, Ours};
use crate::schema::{self, REVOKE_ALL, SchemaError};

const SCHEMA: &str = include_str!("schema.sql");
const PREFLIGHT: &str = include_str!("preflight.sql");
const FIND_SOURCES: &str = include_str!("find_sources.sql");
const CREATE_COPY: &str = include_str!("create_copy.sql");
pub(super) const COLUMNS: &str = include_str!("columns.sql");

/// The comment of the schema, by which the program recognises it.
const MARKER: &str = "login-etl resalt, version 1";

/// Number of blocks of a part: 1 GiB, or some 8 million rows.
const PART_BLOCKS: i64 = 131_072;

/// The last transaction copies what was written since a round. More rounds make it shorter.
const ROUNDS: usize = 3;
/// With fewer rows in a round, another round would not be shorter.
const FEW_ROWS: u64 = 1_000;

/// Makes bare names refer to the schema of the copies $1, then to the schema of the logins $2.
const SET_SCHEMAS: &str =
    "SELECT pg_catalog.set_config('search_path', pg_catalog.format('%I, %I, pg_temp', $1, $2), true)";

/// Dates are read again by other statements; a policy must not hide a row; and a part may take long.
const SETTINGS: &str = "
    SET LOCAL datestyle = 'ISO';
    SET LOCAL row_security = off;
    SET LOCAL statement_timeout = 0;
    SET LOCAL idle_in_transaction_session_timeout = 0";

/// Two runs do not work at the same time.
const LOCK_OUT_RUNS: &str = "LOCK TABLE state IN SHARE ROW EXCLUSIVE MODE NOWAIT";

/// The result of [`resalt`](super::resalt).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Resalted {
    /// Whether the later salt is the accepted salt now. Otherwise the time ran out, and another run continues.
    pub done: bool,
    /// Number of rows that this run copied.
    pub rows: u64,
    /// Number of parts of `user_logins` that are not copied yet.
    pub parts_left: u64,
    /// Number of values that are no tokens, and stay as they are.
    pub others: u64,
}

/// A table that holds rows of `user_logins`.
pub(super) struct Source {
    pub(super) oid: u32,
    /// The name with its schema, quoted.
    pub(super) name: String,
    /// The name of the copy.
    pub(super) copy: String,
    pub(super) blocks: i64,
    /// Whether batches may write to it.
    pub(super) is_recent: bool,
    pub(super) tokens: Tokens,
    /// The columns that are copied, as a list of quoted names.
    pub(super) columns: String,
}

/// A part of a table.
pub(super) struct Part {
    pub(super) id: i32,
    pub(super) first_block: i64,
    pub(super) end_block: Option<i64>,
    /// The rows of all transactions before this number are copied.
    pub(super) seen: Option<i64>,
}

/// Which transactions' rows are copied.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Bound {
    /// Those before the oldest transaction that is open.
    Ended,
    /// All whose rows are visible. No transaction may be writing to the table.
    All,
}

/// What every step needs.
pub(super) struct Run<'r> {
    pub(super) logins_schema: &'r str,
    /// The schema of the copies.
    pub(super) schema: String,
    pub(super) resalter: Resalter,
    /// Whether `user_logins` has our partitions. Otherwise its rows are replaced, and the table stays.
    pub(super) is_ours: bool,
    pub(super) from: SaltFingerprint,
    pub(super) to: SaltFingerprint,
    pub(super) done: Resalted,
}

/// Returns the name of the schema of the copies that belongs to the schema of the logins.
#[must_use]
pub fn schema_name(logins_schema: &str) -> String {
    if logins_schema == "public" { "resalt".to_owned() } else { format!("{logins_schema}_resalt") }
}

impl<'r> Run<'r> {
    /// Creates the schema of the copies if it does not exist. Returns `None` if the last salt is the accepted salt.
    pub(super) async fn begin(
        writer: &mut Client,
        logins_schema: &'r str,
        salts: &Salts,
        to: &SaltFingerprint,
    ) -> Result<Option<Self>, SchemaError> {
        let name = schema_name(logins_schema);
        let beside = Beside { name: &name, marker: MARKER, preflight: PREFLIGHT };
        let mut transaction = schema::begin(writer, logins_schema).await?;
        trust::check(&mut transaction, logins_schema, Ours::Named).await?;
        let accepted = schema::accepted_salt(&transaction).await?;
        let Some(from) = accepted.and_then(|accepted| accepted.fingerprint.parse().ok()) else {
            return Err(not_ready("no salt is accepted yet", "send a login first"));
        };
        let resalter =
            salts.resalter(&from).map_err(|weak| not_ready(&weak.to_string(), "set another salt"))?;
        let Some(resalter) = resalter else {
            return Err(not_ready(
                "the accepted salt is none of the salts in the secret",
                "put the accepted salt into the key salt, and the new salt into the list later_salts",
            ));
        };
        if from == *to {
            return Ok(None);
        }
        let is_new = beside.create(&mut transaction, logins_schema).await?;
        let is_ours = crate::partitions::are_ours(&transaction).await?;
        let names = [(&name as _, Type::TEXT), (&logins_schema as _, Type::TEXT)];
        transaction.execute_typed(SET_SCHEMAS, &names).await?;
        if is_new {
            transaction.batch_execute(SCHEMA).await?;
            transaction.batch_execute(REVOKE_ALL).await?;
            let salts = [(&from.as_str() as _, Type::TEXT), (&to.as_str() as _, Type::TEXT)];
            transaction
                .execute_typed("INSERT INTO state (from_salt, to_salt) VALUES ($1, $2)", &salts)
                .await?;
        }
        let run = Self {
            logins_schema,
            schema: name,
            resalter,
            is_ours,
            from,
            to: to.clone(),
            done: Resalted::default(),
        };
        run.check_state(&transaction).await?;
        transaction.commit().await?;
        Ok(Some(run))
    }

    /// Locks other runs out, and checks that the copies are those of this run's salts.
    async fn check_state(&self, transaction: &Transaction<'_>) -> Result<(), SchemaError> {
        transaction.batch_execute(LOCK_OUT_RUNS).await.map_err(busy)?;
        let state = transaction.query_typed_one("SELECT from_salt, to_salt FROM state", &[]).await?;
        let (from, to): (&str, &str) = (state.try_get(0)?, state.try_get(1)?);
        if (from, to) == (self.from.as_str(), self.to.as_str()) {
            return Ok(());
        }
        Err(not_ready(
            "a resalt with other salts was begun",
            &format!("DROP SCHEMA {} CASCADE", escape_identifier(&self.schema)),
        ))
    }

    /// Begins a step.
    pub(super) async fn step<'c>(&self, writer: &'c mut Client) -> Result<Transaction<'c>, SchemaError> {
        let transaction = schema::begin(writer, self.logins_schema).await?;
        let names = [(&self.schema as _, Type::TEXT), (&self.logins_schema as _, Type::TEXT)];
        transaction.execute_typed(SET_SCHEMAS, &names).await?;
        transaction.batch_execute(SETTINGS).await?;
        self.check_state(&transaction).await?;
        Ok(transaction)
    }

    /// Returns the tables that hold rows, with their parts, and creates their copies.
    async fn sources(&self, writer: &mut Client) -> Result<Vec<(Source, Vec<Part>)>, SchemaError> {
        let transaction = self.step(writer).await?;
        let mut sources = Vec::new();
        for source in self.find_sources(&transaction).await? {
            let parts = find_parts(&transaction, &source).await?;
            sources.push((source, parts));
        }
        transaction.commit().await?;
        Ok(sources)
    }

    pub(super) async fn find_sources(
        &self,
        transaction: &Transaction<'_>,
    ) -> Result<Vec<Source>, SchemaError> {
        let mut sources = Vec::new();
        for row in transaction.query_typed(FIND_SOURCES, &[]).await? {
            let oid: u32 = row.try_get(0)?;
            let columns = transaction.query_typed_one(COLUMNS, &[(&oid, Type::OID)]).await?;
            let names: Vec<String> = columns.try_get(0)?;
            let is_token = |name: &String| matches!(name.as_str(), "masked_ip" | "masked_device_id");
            let places = names.iter().enumerate().filter(|(_, name)| is_token(name)).map(|(place, _)| place);
            sources.push(Source {
                oid,
                name: row.try_get(1)?,
                copy: if self.is_ours { row.try_get(2)? } else { format!("logins_{oid}") },
                blocks: row.try_get(3)?,
                is_recent: !self.is_ours || row.try_get(4)?,
                tokens: Tokens::Digits(places.collect()),
                columns: columns.try_get(1)?,
            });
        }
        for source in &sources {
            self.create_copy(transaction, source).await?;
        }
        Ok(sources)
    }

    async fn create_copy(&self, transaction: &Transaction<'_>, source: &Source) -> Result<(), SchemaError> {
        let parameters = [(&source.oid as _, Type::OID), (&source.copy as _, Type::TEXT)];
        let insert = "INSERT INTO copies (source, name) VALUES ($1, $2) ON CONFLICT (source) DO NOTHING";
        if transaction.execute_typed(insert, &parameters).await? == 0 {
            return Ok(());
        }
        let statements = transaction.query_typed_one(CREATE_COPY, &parameters).await?;
        transaction.batch_execute(statements.try_get(0)?).await?;
        transaction.batch_execute(REVOKE_ALL).await?;
        let insert = "
            INSERT INTO parts (source, first_block, end_block)
            SELECT $1, first_block, CASE WHEN first_block + $3 < $2 THEN first_block + $3 END
            FROM pg_catalog.generate_series(0, greatest($2 - 1, 0), $3) AS first_block";
        let parameters = [
            (&source.oid as _, Type::OID),
            (&source.blocks as _, Type::INT8),
            (&PART_BLOCKS as _, Type::INT8),
        ];
        transaction.execute_typed(insert, &parameters).await?;
        Ok(())
    }

    async fn parts_left(&self, writer: &mut Client) -> Result<u64, SchemaError> {
        let transaction = self.step(writer).await?;
        let left = transaction.query_typed_one("SELECT count(*) FROM parts WHERE seen IS NULL", &[]).await?;
        let left = left.try_get::<_, i64>(0)?.unsigned_abs();
        transaction.rollback().await?;
        Ok(left)
    }

    /// Copies all parts, and then what was written meanwhile. Returns `false` if the time ran out before.
    pub(super) async fn copy_parts(
        &mut self,
        reader: &mut Client,
        writer: &mut Client,
        deadline: Deadline,
    ) -> Result<bool, SchemaError> {
        let mut longest = Duration::ZERO;
        for round in 0..=ROUNDS {
            let before = self.done.rows;
            for (source, parts) in self.sources(writer).await? {
                for part in parts {
                    // Old tables are read again by the last transaction only.
                    if part.seen.is_some() && (round == 0 || !source.is_recent) {
                        continue;
                    }
                    if deadline.left() < longest * 2 {
                        self.done.parts_left = self.parts_left(writer).await?;
                        return Ok(false);
                    }
                    let started = Instant::now();
                    self.copy_part(reader, writer, &source, &part).await?;
                    longest = longest.max(started.elapsed());
                }
            }
            if round > 0 && self.done.rows - before < FEW_ROWS {
                break;
            }
        }
        Ok(true)
    }

    /// Copies what a part has and its copy has not.
    async fn copy_part(
        &mut self,
        reader: &mut Client,
        writer: &mut Client,
        source: &Source,
        part: &Part,
    ) -> Result<(), SchemaError> {
        let started = Instant::now();
        let transaction = self.step(writer).await?;
        let rows = self.copy_part_in(reader, &transaction, source, part, Bound::Ended).await?;
        transaction.commit().await?;
        let elapsed = started.elapsed();
        tracing::info!(
            table = source.copy,
            first_block = part.first_block,
            blocks = source.blocks,
            rows,
            elapsed_ms = elapsed.as_millis(),
            "rows copied with the later salt"
        );
        Ok(())
    }

    /// As [`copy_part`](Self::copy_part), in a transaction that is not committed here. Returns the number of rows.
    pub(super) async fn copy_part_in(
        &mut self,
        reader: &mut Client,
        transaction: &Transaction<'_>,
        source: &Source,
        part: &Part,
        bound: Bound,
    ) -> Result<u64, SchemaError> {
        let reader = Reader::begin(reader).await?;
        let Source { name, columns, .. } = source;
        let end_block = part.end_block.map_or(String::new(), |end| format!(" AND ctid < '({end},0)'"));
        let horizon = reader.horizon();
        let written = reader.written(part.seen, (bound == Bound::Ended).then_some(horizon));
        let from = format!(
            "COPY (SELECT {columns} FROM ONLY {name} WHERE ctid >= '({},0)'{end_block}{written}) \
             TO STDOUT (FORMAT binary)",
            part.first_block
        );
        let to = format!("COPY {} ({columns}) FROM STDIN (FORMAT binary)", escape_identifier(&source.copy));
        let (rows, others) =
            copy(&reader, &from, transaction, &to, &mut self.resalter, &source.tokens).await?;
        reader.end().await?;
        self.done.rows += rows;
        self.done.others += others;
        let parameters = [
            (&part.id as _, Type::INT4),
            (&horizon as _, Type::INT8),
            (&rows.cast_signed() as _, Type::INT8),
        ];
        let update = "UPDATE parts SET seen = $2, rows = rows + $3 WHERE id = $1";
        transaction.execute_typed(update, &parameters).await?;
        if part.seen.is_none() && part.end_block.is_none() {
            transaction.batch_execute(&format!("ANALYZE {}", escape_identifier(&source.copy))).await?;
        }
        Ok(rows)
    }
}

pub(super) async fn find_parts(
    transaction: &Transaction<'_>,
    source: &Source,
) -> Result<Vec<Part>, tokio_postgres::Error> {
    let select = "SELECT id, first_block, end_block, seen FROM parts WHERE source = $1 ORDER BY first_block";
    let rows = transaction.query_typed(select, &[(&source.oid, Type::OID)]).await?;
    let part = |row: &tokio_postgres::Row| {
        Ok(Part {
            id: row.try_get(0)?,
            first_block: row.try_get(1)?,
            end_block: row.try_get(2)?,
            seen: row.try_get(3)?,
        })
    };
    rows.iter().map(part).collect()
}

pub(super) fn not_ready(problem: &str, remedy: &str) -> SchemaError {
    SchemaError::NotReady(vec![schema::Finding { problem: problem.to_owned(), remedy: remedy.to_owned() }])
}

pub(super) fn busy(error: tokio_postgres::Error) -> SchemaError {
    if is_one_of(&error, &[SqlState::LOCK_NOT_AVAILABLE]) { SchemaError::Busy } else { error.into() }
}
