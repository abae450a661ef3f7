//! The statement that writes rows, and its parameters.

use std::time::SystemTime;

use login::pii::Masked;
use login::pii::sealer::Body;
use tokio_postgres::types::{ToSql, Type};
use uuid::Uuid;

use super::connect::Connection;
use super::row::{Chunk, Fingerprints, KeyedRow};

/// A parameter of a statement.
pub(super) type Parameter<'p> = (&'p (dyn ToSql + Sync), Type);

/// Rows as columns: an array for each parameter of the statement.
pub(super) struct Columns<'r> {
    sent_at: Vec<SystemTime>,
    message_id: Vec<Uuid>,
    user_id: Vec<&'r str>,
    device_type: Vec<Option<&'r str>>,
    masked_ip: Vec<Option<&'r str>>,
    masked_device_id: Vec<Option<&'r str>>,
    locale: Vec<Option<&'r str>>,
    app_version: Vec<Option<i32>>,
    salt_fingerprint: &'r str,
}

/// Sealed values as columns: an array for each parameter of the functions of the vault.
pub(super) struct SealedColumns<'r> {
    key: &'r [u8],
    encapsulated_keys: Vec<&'r [u8]>,
    entry_lengths: Vec<i32>,
    bodies: Vec<&'r [u8]>,
}

impl<'r> Columns<'r> {
    pub(super) fn new<'m: 'r>(
        rows: impl Iterator<Item = &'r KeyedRow<'m>> + Clone,
        fingerprints: &'r Fingerprints,
    ) -> Self {
        let keys = rows.clone().map(|keyed| &keyed.key);
        let rows = rows.map(|keyed| &keyed.row);
        Self {
            sent_at: keys.clone().map(|key| key.sent_at).collect(),
            message_id: keys.map(|key| key.ledger_id).collect(),
            user_id: rows.clone().map(|row| &*row.user_id).collect(),
            device_type: rows.clone().map(|row| row.device_type.as_deref()).collect(),
            masked_ip: rows.clone().map(|row| row.masked_ip.as_ref().map(Masked::as_str)).collect(),
            masked_device_id: rows
                .clone()
                .map(|row| row.masked_device_id.as_ref().map(Masked::as_str))
                .collect(),
            locale: rows.clone().map(|row| row.locale.as_deref()).collect(),
            app_version: rows.map(|row| row.app_version).collect(),
            salt_fingerprint: fingerprints.salt.as_str(),
        }
    }

    /// Returns the parameters `$1` to `$9` of the functions that write rows.
    pub(super) fn parameters(&self) -> [Parameter<'_>; 9] {
        [
            (&self.sent_at, Type::TIMESTAMPTZ_ARRAY),
            (&self.message_id, Type::UUID_ARRAY),
            (&self.user_id, Type::TEXT_ARRAY),
            (&self.device_type, Type::TEXT_ARRAY),
            (&self.masked_ip, Type::TEXT_ARRAY),
            (&self.masked_device_id, Type::TEXT_ARRAY),
            (&self.locale, Type::TEXT_ARRAY),
            (&self.app_version, Type::INT4_ARRAY),
            (&self.salt_fingerprint, Type::TEXT),
        ]
    }
}

impl<'r> SealedColumns<'r> {
    /// Returns nothing without a vault.
    pub(super) fn new(chunks: &'r [Chunk<'_>], fingerprints: &'r Fingerprints) -> Option<Self> {
        let key = fingerprints.vault_key.as_ref()?;
        let bodies = chunks.iter().flat_map(|chunk| chunk.sealed.bodies());
        // A message is too short for an entry whose length does not fit.
        let entry_length = |body: &Body| i32::try_from(body.entry_length).unwrap_or(i32::MAX);
        Some(Self {
            key,
            encapsulated_keys: bodies.clone().map(|body| &body.encapsulated_key[..]).collect(),
            entry_lengths: bodies.clone().map(entry_length).collect(),
            bodies: bodies.map(|body| &*body.entries).collect(),
        })
    }

    /// Returns the last parameters of the functions that write rows and sealed values.
    pub(super) fn parameters(&self) -> [Parameter<'_>; 4] {
        [
            (&self.key, Type::BYTEA),
            (&self.encapsulated_keys, Type::BYTEA_ARRAY),
            (&self.entry_lengths, Type::INT4_ARRAY),
            (&self.bodies, Type::BYTEA_ARRAY),
        ]
    }
}

/// Writes all rows and their sealed values in one round trip, or fails if the ledger already holds the message of one
/// row. Outside a transaction block the statement is its own transaction. Returns the number of rows inserted.
pub(super) async fn write_all(
    connection: &Connection,
    chunks: &[Chunk<'_>],
    fingerprints: &Fingerprints,
) -> Result<u64, tokio_postgres::Error> {
    let rows = chunks.iter().flat_map(|chunk| &chunk.rows);
    // On a FIFO queue messages are also looked for by their ids alone: SQS changes the time at which they were
    // sent when it moves them to the dead-letter queue.
    let is_fifo = rows.clone().any(|row| row.key.group.is_some());
    let function = if is_fifo { "write_fifo_logins" } else { "write_logins" };
    let schema = connection.quoted_schema();
    let columns = Columns::new(rows, fingerprints);
    let client = connection.client();
    let inserted = if let Some(sealed) = SealedColumns::new(chunks, fingerprints) {
        let call = format!(
            "SELECT {schema}.vault_{function}($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)"
        );
        let parameters = [&columns.parameters()[..], &sealed.parameters()].concat();
        client.query_typed_one(&call, &parameters).await?
    } else {
        let call = format!("SELECT {schema}.{function}($1, $2, $3, $4, $5, $6, $7, $8, $9)");
        client.query_typed_one(&call, &columns.parameters()).await?
    };
    // A count is never negative.
    inserted.try_get(0).map(i64::unsigned_abs)
}
