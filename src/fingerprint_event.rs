//! An event that is no batch: an operator compares the salt of the function with the accepted salt.

use login::pii::SaltFingerprint;
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

/// The answer: fingerprints of salts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SaltFingerprints {
    /// Of the salt that Secrets Manager holds now; of several salts, of the last.
    pub current: String,
    /// Of the salt with which this process masks.
    pub in_use: String,
    /// Of all salts that Secrets Manager holds now, the first salt first.
    pub generations: Vec<String>,
}

/// Whether an event is `{"action": "salt-fingerprint"}`.
#[must_use]
pub fn matches(event: &[u8]) -> bool {
    event.len() <= MAX_LENGTH && serde_json::from_slice::<FingerprintEvent>(event).is_ok()
}

/// Fetches the salts from Secrets Manager, and returns their fingerprints beside that of the salt in use.
///
/// # Errors
///
/// [`StartError`]: a process that starts now would fail with it too.
pub async fn answer(secret_id: &str, in_use: &SaltFingerprint) -> Result<SaltFingerprints, StartError> {
    let maskers = Secrets::from_env().await.salts(secret_id).await?.maskers()?;
    let text = |fingerprint: &SaltFingerprint| fingerprint.as_str().to_owned();
    let generations: Vec<_> = maskers.iter().map(|masker| text(&masker.salt_fingerprint())).collect();
    let current = generations.last().cloned().unwrap_or_default();
    Ok(SaltFingerprints { current, in_use: text(in_use), generations })
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
