//! An event that is no batch: an operator compares the salt of the function with the accepted salt.

use login::pii::{Masker, SaltFingerprint};
use serde::{Deserialize, Serialize};

use crate::aws::secrets::Secrets;
use crate::error::StartError;

/// The longest event of this kind. A batch with a message is longer, so the function never parses a batch twice.
const MAX_LENGTH: usize = 64;

/// The event `{"action": "salt-fingerprint"}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "action", rename_all = "kebab-case", deny_unknown_fields)]
enum FingerprintEvent {
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

/// Whether an event is `{"action": "salt-fingerprint"}`.
#[must_use]
pub fn matches(event: &[u8]) -> bool {
    event.len() <= MAX_LENGTH && serde_json::from_slice::<FingerprintEvent>(event).is_ok()
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
    fn only_the_exact_event_matches() {
        assert!(matches(br#"{"action": "salt-fingerprint"}"#));
        for other in [
            &br#"{"action": "salt-fingerprint", "Records": []}"#[..],
            br#"{"action": "status"}"#,
            br#"{"Records": []}"#,
            b"[]",
            b"",
        ] {
            assert!(!matches(other));
        }
    }
}
