//! The statements that write rows.

use std::time::SystemTime;

use login::pii::{Masked, SaltFingerprint};
use tokio_postgres::Client;
use tokio_postgres::types::Type;
use uuid::Uuid;

use super::row::KeyedRow;

/// Writes all rows, or fails if the ledger already holds the message of one row.
pub(super) const WRITE_ALL: &str = "SELECT write_logins($1, $2, $3, $4, $5, $6, $7, $8, $9)";
/// Writes the rows whose messages the ledger does not hold.
pub(super) const WRITE_UNSEEN: &str = include_str!("write_unseen.sql");

/// Writes rows with one of the two statements, in one round trip. Outside a transaction block the
/// statement is its own transaction. Returns the number of rows inserted.
pub(super) async fn insert<'r, 'm: 'r>(
    client: &Client,
    statement: &str,
    rows: impl Iterator<Item = &'r KeyedRow<'m>> + Clone,
    salt_fingerprint: &SaltFingerprint,
) -> Result<u64, tokio_postgres::Error> {
    let keys = rows.clone().map(|keyed| &keyed.key);
    let rows = rows.map(|keyed| &keyed.row);
    let sent_at: Vec<SystemTime> = keys.clone().map(|key| key.sent_at).collect();
    let message_id: Vec<Uuid> = keys.map(|key| key.ledger_id).collect();
    let user_id: Vec<&str> = rows.clone().map(|row| &*row.user_id).collect();
    let device_type: Vec<Option<&str>> = rows.clone().map(|row| row.device_type.as_deref()).collect();
    let masked_ip: Vec<Option<&str>> =
        rows.clone().map(|row| row.masked_ip.as_ref().map(Masked::as_str)).collect();
    let masked_device_id: Vec<Option<&str>> =
        rows.clone().map(|row| row.masked_device_id.as_ref().map(Masked::as_str)).collect();
    let locale: Vec<Option<&str>> = rows.clone().map(|row| row.locale.as_deref()).collect();
    let app_version: Vec<Option<i32>> = rows.map(|row| row.app_version).collect();
    let inserted = client
        .query_typed_one(
            statement,
            // In the order of the parameters of both statements.
            &[
                (&sent_at, Type::TIMESTAMPTZ_ARRAY),
                (&message_id, Type::UUID_ARRAY),
                (&user_id, Type::TEXT_ARRAY),
                (&device_type, Type::TEXT_ARRAY),
                (&masked_ip, Type::TEXT_ARRAY),
                (&masked_device_id, Type::TEXT_ARRAY),
                (&locale, Type::TEXT_ARRAY),
                (&app_version, Type::INT4_ARRAY),
                (&salt_fingerprint.as_str(), Type::TEXT),
            ],
        )
        .await?;
    // A count is never negative.
    inserted.try_get(0).map(i64::unsigned_abs)
}
