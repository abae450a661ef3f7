//! Why a request has no success.

use crate::audit::Outcome;
use crate::database::DatabaseError;
use crate::kms::KmsError;
use crate::open::Unopenable;
use crate::problem::Problem;
use crate::salt::SaltError;

/// Why a request has no success.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The request itself is refused, before anything is done.
    #[error("{}", .0.detail)]
    Refused(Problem),
    /// The vault has no value of the token.
    #[error("the vault has no value of the token")]
    Unknown,
    /// The value was erased.
    #[error("the value was erased")]
    Erased,
    /// The sealed value does not open, or is the value of another token.
    #[error(transparent)]
    Unopenable(#[from] Unopenable),
    /// KMS did not do its part.
    #[error(transparent)]
    Kms(#[from] KmsError),
    /// There is no salt.
    #[error(transparent)]
    Salt(#[from] SaltError),
    /// The database did not do its part.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// Postgres did not say in time what an erasure did.
    #[error("the erasure took too long; Postgres may still finish it")]
    ErasureUnknown,
}

impl Failure {
    /// Returns the stable name of an error of a service. Other failures have none.
    #[must_use]
    pub fn error_type(&self) -> Option<&'static str> {
        match self {
            Self::Refused(_) | Self::Unknown | Self::Erased => None,
            Self::Unopenable(_) => Some("Unopenable"),
            Self::Kms(error) => Some(error.error_type()),
            Self::Salt(SaltError::NotAccepted) => Some("SaltChanged"),
            Self::Salt(_) => Some("SecretsUnavailable"),
            Self::Database(error) => Some(error.error_type()),
            Self::ErasureUnknown => Some("DatabaseTimedOut"),
        }
    }

    /// Returns the outcome in the audit entry.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Unknown => Outcome::Unknown,
            Self::Erased => Outcome::Erased,
            Self::Unopenable(_) => Outcome::Unopenable,
            Self::Kms(_) => Outcome::KmsFailed,
            Self::Refused(_) | Self::Salt(_) | Self::Database(_) | Self::ErasureUnknown => Outcome::Failed,
        }
    }

    /// Returns what the caller is told.
    #[must_use]
    pub fn problem(&self) -> Problem {
        match self {
            Self::Refused(problem) => problem.clone(),
            Self::Unknown => Problem::unknown_token(),
            Self::Erased => Problem::erased(),
            Self::Unopenable(_) => Problem::unopenable(),
            Self::Kms(error) => Problem::kms(error.failure),
            Self::Salt(_) => Problem::salt_unavailable(),
            Self::Database(DatabaseError::Unavailable(_) | DatabaseError::Silent) => {
                Problem::database_unavailable()
            }
            Self::Database(DatabaseError::NotListed(_)) => Problem::list_unavailable(),
            Self::Database(_) => Problem::bug(),
            Self::ErasureUnknown => Problem::erasure_unknown(),
        }
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self::Refused(problem)
    }
}
