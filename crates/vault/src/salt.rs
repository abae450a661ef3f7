//! The salts, as Secrets Manager has them.

use std::fmt;
use std::time::{Duration, SystemTime};

use login::pii::{Masker, SaltFingerprint, WeakSalt};
use login_etl::aws::secrets::{SecretError, Secrets};
use login_etl::config::SALT_SECRET_ID;
use tokio::sync::Mutex;

/// How long the fetched salts count as the current ones. A process lives for hours, and a token of an older salt finds
/// nothing to reveal or to erase.
const AGE: Duration = Duration::from_mins(5);

/// The salt of the tokens.
pub struct Salt {
    secrets: Secrets,
    secret_id: String,
    known: Mutex<Option<Known>>,
}

/// Why there is no salt.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SaltError {
    /// The secret is unavailable, or has the wrong shape.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The salt is too easy to guess.
    #[error("{SALT_SECRET_ID}: {0}")]
    Weak(#[from] WeakSalt),
    /// The tokens in the database are of another salt.
    #[error("{SALT_SECRET_ID}: the database accepts none of the salts in the secret")]
    NotAccepted,
}

/// The maskers of the secret's salts, the first salt first.
struct Known {
    maskers: Vec<Masker>,
    /// By the wall clock: the monotonic clock may stand still while Lambda freezes the process.
    read_at: SystemTime,
}

impl Salt {
    /// Fetches nothing yet.
    #[must_use]
    pub fn new(secrets: Secrets, secret_id: String) -> Self {
        Self { secrets, secret_id, known: Mutex::default() }
    }

    /// Returns what masks with the salt of this fingerprint; without one, with the last salt. The salts were fetched at
    /// most 5 minutes ago. If this salt is none of them, they are fetched again: somebody may have added it since.
    ///
    /// # Errors
    ///
    /// [`SaltError`].
    pub async fn masker(&self, accepted: Option<&SaltFingerprint>) -> Result<Masker, SaltError> {
        let mut known = self.known.lock().await;
        let fresh = known.as_ref().filter(|known| known.is_fresh());
        if let Some(masker) = fresh.and_then(|known| known.masker(accepted)) {
            return Ok(masker.clone());
        }
        let maskers = self.secrets.salts(&self.secret_id).await?.maskers()?;
        let fetched = known.insert(Known { maskers, read_at: SystemTime::now() });
        fetched.masker(accepted).cloned().ok_or(SaltError::NotAccepted)
    }
}

impl Known {
    fn masker(&self, accepted: Option<&SaltFingerprint>) -> Option<&Masker> {
        let is_accepted =
            |masker: &&Masker| accepted.is_none_or(|accepted| masker.salt_fingerprint() == *accepted);
        self.maskers.iter().rev().find(is_accepted)
    }

    fn is_fresh(&self) -> bool {
        self.read_at.elapsed().is_ok_and(|age| age < AGE)
    }
}

impl fmt::Debug for Salt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Salt").finish_non_exhaustive()
    }
}
