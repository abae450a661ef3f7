//! The question of an operator for the salt that the function uses: an event that is no batch.

use login::pii::{Masker, SaltFingerprint};
use serde::{Deserialize, Serialize};

use crate::aws::secrets::Secrets;
use crate::error::StartError;

/// The longest question. A batch with a message is longer, so it is not parsed twice.
const MAX_LENGTH: usize = 64;

/// The event `{"action": "salt-fingerprint"}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "action", rename_all = "kebab-case", deny_unknown_fields)]
enum Question {
    SaltFingerprint {},
}

/// The answer: the fingerprints of two salts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SaltFingerprints {
    /// Of the salt that Secrets Manager holds now.
    pub current: String,
    /// Of the salt with which this process masks.
    pub in_use: String,
}

/// Whether an event is the question.
#[must_use]
pub fn is_asked(event: &[u8]) -> bool {
    event.len() <= MAX_LENGTH && serde_json::from_slice::<Question>(event).is_ok()
}

/// Fetches the salt from Secrets Manager, and returns its fingerprint beside that of the salt in use.
///
/// # Errors
///
/// [`StartError`]: a process that starts now would fail with it too.
pub async fn answer(secret_id: &str, in_use: &SaltFingerprint) -> Result<SaltFingerprints, StartError> {
    let salt = Secrets::from_env().await.salt(secret_id).await?;
    let current = Masker::new(&salt)?.salt_fingerprint();
    Ok(SaltFingerprints { current: current.as_str().to_owned(), in_use: in_use.as_str().to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_exact_question_is_asked() {
        assert!(is_asked(br#"{"action": "salt-fingerprint"}"#));
        for other in [
            &br#"{"action": "salt-fingerprint", "Records": []}"#[..],
            br#"{"action": "status"}"#,
            br#"{"Records": []}"#,
            b"[]",
            b"",
        ] {
            assert!(!is_asked(other));
        }
    }
}
