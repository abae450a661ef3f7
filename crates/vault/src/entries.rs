//! `POST /audit`: what the audit says, for those who compare it with what KMS did.
//!
//! A page names no token. Reading the audit leaves an entry, too.

use serde::Serialize;

use crate::audit::Entry;
use crate::database::{Database, DatabaseError};
use crate::requests::AuditRequest;

/// The most entries of a page.
pub const PAGE: usize = 1000;

/// The answer to [`AuditRequest`].
#[derive(Debug, Serialize)]
pub struct Page {
    /// The number of the entry of this request.
    pub audit_entry: i64,
    /// The KMS keys of the vault, the current key first.
    pub keys: Vec<String>,
    /// The entries, in the order of their numbers.
    pub entries: Vec<Entry>,
    /// What the next request must name as `after`; none on the last page.
    pub next: Option<i64>,
}

/// Reads a page of the audit, for an entry that is committed.
///
/// # Errors
///
/// [`DatabaseError`].
pub async fn page(
    database: &Database,
    audit_entry: i64,
    request: &AuditRequest,
) -> Result<Page, DatabaseError> {
    let entries = database.entries(audit_entry, request, PAGE).await?;
    let keys = database.keys(false).await?.into_iter().map(|key| key.kms_key).collect();
    let next = entries.last().filter(|_| entries.len() == PAGE).map(|entry| entry.id);
    Ok(Page { audit_entry, keys, entries, next })
}
