//! The salt, as Secrets Manager has it.

use std::fmt;
use std::time::{Duration, SystemTime};

use login::pii::{Masker, WeakSalt};
use login_etl::aws::secrets::{SecretError, Secrets};
use login_etl::config::SALT_SECRET_ID;
use tokio::sync::Mutex;

/// How long a fetched salt counts as the current one. A process lives for hours, and a token of an older salt finds
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
}

struct Known {
    masker: Masker,
    /// By the wall clock: the monotonic clock may stand still while Lambda freezes the process.
    read_at: SystemTime,
}

impl Salt {
    /// Fetches nothing yet.
    #[must_use]
    pub fn new(secrets: Secrets, secret_id: String) -> Self {
        Self { secrets, secret_id, known: Mutex::default() }
    }

    /// Returns what masks with the salt, which was fetched at most 5 minutes ago.
    ///
    /// # Errors
    ///
    /// [`SaltError`].
    pub async fn masker(&self) -> Result<Masker, SaltError> {
        let mut known = self.known.lock().await;
        if let Some(known) = known.as_ref().filter(|known| known.is_fresh()) {
            return Ok(known.masker.clone());
        }
        let masker = Masker::new(&self.secrets.salt(&self.secret_id).await?)?;
        *known = Some(Known { masker: masker.clone(), read_at: SystemTime::now() });
        Ok(masker)
    }
}

impl Known {
    fn is_fresh(&self) -> bool {
        self.read_at.elapsed().is_ok_and(|age| age < AGE)
    }
}

impl fmt::Debug for Salt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Salt").finish_non_exhaustive()
    }
}
