//! The rows that the writer receives, and the outcome that it returns.

use std::sync::Arc;

use login::failures::FailureReason;
use login::mask::LoginRow;
use login::message_key::MessageKey;
use login::pii::SaltFingerprint;
use login::pii::sealer::SealedValues;

/// A row, and the key of its message.
#[expect(missing_debug_implementations, reason = "a user id is personal data")]
#[expect(missing_docs, reason = "each is named for its type")]
pub struct KeyedRow<'m> {
    pub key: MessageKey<'m>,
    pub row: LoginRow<'m>,
}

/// Rows, and the sealed values that belong to them. Postgres keeps both, or neither.
#[derive(Default)]
#[expect(missing_debug_implementations, reason = "a user id is personal data")]
pub struct Rows<'m> {
    /// The rows.
    pub rows: Vec<KeyedRow<'m>>,
    /// The values that were sealed for these rows; none without a vault.
    pub sealed: SealedValues,
}

/// The rows of one statement. Shared, because an unfinished statement still reads them.
pub(super) type Chunk<'b> = Arc<Rows<'b>>;

/// The fingerprints that the database compares with its own before it keeps rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprints {
    /// The fingerprint of the salt.
    pub salt: SaltFingerprint,
    /// SHA-256 of the vault's public key; `None` without a vault.
    pub vault_key: Option<[u8; 32]>,
}

/// The outcome of a batch.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Number of rows inserted.
    pub inserted: u64,
    /// Number of messages that count as done although no row was inserted: a trigger or a rule on `user_logins`
    /// suppressed the row or wrote it elsewhere.
    pub suppressed: u64,
    /// The rows that were not written. The table holds all other rows of the batch.
    pub failed_rows: Vec<FailedRow>,
}

/// A row that was not written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedRow {
    /// The place of the row's message in the batch, from 0.
    pub position: usize,
    /// Why the row was not written.
    pub reason: FailureReason,
}
