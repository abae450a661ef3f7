//! The failures of a batch and of the process. (A message's failure is a
//! [`FailureReason`](login::failures::FailureReason).)

use lambda_runtime::Diagnostic;
use login::event::EventError;
use login::pii::WeakSalt;
use login::pii::sealer::NotSealed;
use strum::VariantNames;

use crate::aws::secrets::SecretError;
use crate::config::{SALT_SECRET_ID, SettingError, VAULT_PUBLIC_KEY};
use crate::store::error::StoreError;

/// Why a whole batch failed. Nothing of it was committed, or repeating it is safe.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// The event cannot be read.
    #[error(transparent)]
    Event(#[from] EventError),
    /// A value could not be sealed.
    #[error(transparent)]
    NotSealed(#[from] NotSealed),
    /// The rows could not be written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The `errorType` of [`BatchError::NotSealed`].
const NOT_SEALED: &str = "ValuesNotSealed";

/// Why the process cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A setting is missing or wrong.
    #[error(transparent)]
    Setting(#[from] SettingError),
    /// A secret is unavailable, or has the wrong shape.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The salt is too easy to guess to protect what it masks.
    #[error("{SALT_SECRET_ID}: {0}")]
    Salt(#[from] WeakSalt),
    /// The public key of the vault is not a point of its curve.
    #[error("{VAULT_PUBLIC_KEY}: {0}")]
    VaultKey(#[from] NotSealed),
}

impl BatchError {
    /// Returns every `errorType`, for the tests that compare the documents.
    pub fn error_types() -> impl Iterator<Item = &'static str> {
        EventError::VARIANTS.iter().chain(&[NOT_SEALED]).chain(StoreError::VARIANTS).copied()
    }

    /// Returns the `errorType` of the invocation, which is stable.
    #[must_use]
    pub fn error_type(&self) -> &'static str {
        match self {
            Self::Event(error) => error.error_type(),
            Self::NotSealed(_) => NOT_SEALED,
            Self::Store(error) => error.error_type(),
        }
    }

    /// Whether the database caused the failure.
    #[must_use]
    pub fn is_database_error(&self) -> bool {
        let is_other = |error: &StoreError| {
            matches!(error, StoreError::SaltChanged | StoreError::VaultKeyChanged | StoreError::Secret(_))
        };
        matches!(self, Self::Store(error) if !is_other(error))
    }

    /// Returns the SQLSTATE of Postgres, where Postgres sent one.
    #[must_use]
    pub fn sqlstate(&self) -> Option<&str> {
        match self {
            Self::Event(_) | Self::NotSealed(_) => None,
            Self::Store(error) => error.sqlstate(),
        }
    }
}

impl From<BatchError> for Diagnostic {
    fn from(error: BatchError) -> Self {
        Self { error_type: error.error_type().to_owned(), error_message: error.to_string() }
    }
}

/// The error of a fingerprint event. A process that does not start has no `errorType`.
impl From<StartError> for Diagnostic {
    fn from(error: StartError) -> Self {
        Self { error_type: "SaltUnavailable".to_owned(), error_message: error.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use tokio_postgres::error::SqlState;

    use super::*;

    #[test]
    fn only_the_database_causes_database_errors() {
        let secret = SecretError::NoToken { cause: "no region".to_owned() };
        let errors = [
            BatchError::Event(EventError::MissingMessageId { position: 0 }),
            BatchError::Store(StoreError::SaltChanged),
            BatchError::Store(StoreError::VaultKeyChanged),
            BatchError::Store(StoreError::Secret(secret)),
            BatchError::Store(StoreError::TimedOut),
            BatchError::Store(StoreError::Deadlock { sqlstate: SqlState::T_R_DEADLOCK_DETECTED }),
        ];

        let rows = errors.map(|error| {
            let sqlstate = error.sqlstate().map(ToOwned::to_owned);
            (error.error_type(), error.is_database_error(), sqlstate)
        });

        assert_eq!(
            rows,
            [
                ("MissingMessageId", false, None),
                ("SaltChanged", false, None),
                ("VaultKeyChanged", false, None),
                ("SecretsUnavailable", false, None),
                ("DatabaseTimedOut", true, None),
                ("DatabaseDeadlock", true, Some("40P01".to_owned())),
            ]
        );
    }
}
