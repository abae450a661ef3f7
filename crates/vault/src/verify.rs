//! `POST /verify`: does the vault work? Opens values that the database chose at random, and answers with numbers only.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::database::StoredKey;
use crate::failure::Failure;

/// Number of characters of a hash that tell the keys of a vault apart.
const HASH_PREFIX: usize = 16;

/// What was found.
#[derive(Debug, Default)]
pub struct Tally {
    sampled: u32,
    opened: u32,
    unopenable: u32,
    /// Of each key whose values were tried: how KMS failed, if it did.
    kms: BTreeMap<i16, Option<&'static str>>,
}

/// The answer to [`VerifyRequest`](crate::requests::VerifyRequest).
#[derive(Debug, Serialize)]
pub struct Report {
    /// Number of values that were tried.
    pub sampled: u32,
    /// Of them: number of values that opened, and have the right token.
    pub opened: u32,
    /// Of them: number of values that KMS could open, and that did not open or have another token.
    pub unopenable: u32,
    /// The numbers of the audit entries.
    pub audit_entries: Vec<i64>,
    /// The keys, the current key first.
    pub keys: Vec<KeyReport>,
    /// Whether the current key is the key of the function's settings; none if KMS does not say it.
    pub settings_have_current_key: Option<bool>,
}

/// What was found about a key.
#[derive(Debug, Serialize)]
pub struct KeyReport {
    /// The first digits of the hash of the public key.
    pub sha256: String,
    /// The ARN or id of the KMS key.
    pub kms_key: String,
    /// When the key became the current key for the last time.
    pub accepted_at: String,
    /// Whether new values are sealed to it.
    pub is_current: bool,
    /// Number of values that are sealed to it, without those that are not folded yet.
    pub sealed: i64,
    /// `works`, or the name of the error; none if no value of the key was tried.
    pub kms: Option<&'static str>,
}

impl Tally {
    /// Whether KMS already failed with the key. More requests would only take time.
    #[must_use]
    pub fn kms_failed(&self, key: i16) -> bool {
        self.kms.get(&key).is_some_and(Option::is_some)
    }

    /// Counts a value. A value that an erasure removed meanwhile does not count.
    pub fn count<T>(&mut self, key: i16, opened: &Result<T, Failure>) {
        let kms = match opened {
            Ok(_) => {
                self.opened += 1;
                None
            }
            Err(Failure::Unopenable(_)) => {
                self.unopenable += 1;
                None
            }
            Err(Failure::Kms(error)) => Some(error.error_type()),
            Err(_) => return,
        };
        self.sampled += 1;
        self.kms.insert(key, kms);
    }

    /// Number of values that did not open.
    #[must_use]
    pub fn unopenable(&self) -> u32 {
        self.unopenable
    }

    /// Makes the answer.
    #[must_use]
    pub fn report(
        self,
        audit_entries: Vec<i64>,
        keys: Vec<StoredKey>,
        settings_have_current_key: Option<bool>,
    ) -> Report {
        let Self { sampled, opened, unopenable, kms } = self;
        let keys = keys.into_iter().map(|key| KeyReport {
            kms: kms.get(&key.id).map(|failure| failure.unwrap_or("works")),
            sha256: key.sha256.chars().take(HASH_PREFIX).collect(),
            kms_key: key.kms_key,
            accepted_at: key.accepted_at,
            is_current: key.is_current,
            sealed: key.sealed.unwrap_or_default(),
        });
        let keys = keys.collect();
        Report { sampled, opened, unopenable, audit_entries, keys, settings_have_current_key }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kms::{KmsError, KmsFailure};
    use crate::open::Unopenable;

    #[test]
    fn failure_of_kms_stays_with_its_key() {
        let mut tally = Tally::default();
        let disabled = KmsError { failure: KmsFailure::KeyDisabled, request_id: None };

        for (key, opened) in [
            (1, Ok(())),
            (1, Err(Failure::Unopenable(Unopenable))),
            (2, Err(Failure::Kms(disabled))),
            (3, Err(Failure::Erased)),
            (3, Err(Failure::Unknown)),
        ] {
            tally.count(key, &opened);
        }

        assert_eq!([1, 2, 3].map(|key| tally.kms_failed(key)), [false, true, false]);
        let keys = [(1, true), (2, false), (3, false)].map(|(id, is_current)| StoredKey {
            id,
            sha256: "0123456789abcdef".repeat(4),
            kms_key: format!("key {id}"),
            accepted_at: "2026-11-27T00:00:00Z".into(),
            is_current,
            sealed: Some(7),
        });
        let key = |id: u8, is_current: bool, kms: Option<&str>| {
            json!({
                "sha256": "0123456789abcdef", "kms_key": format!("key {id}"), "is_current": is_current, "kms": kms,
                "accepted_at": "2026-11-27T00:00:00Z", "sealed": 7,
            })
        };
        let report = serde_json::to_value(tally.report(vec![4, 5], keys.into(), Some(true))).unwrap();
        assert_eq!(
            report,
            json!({
                "sampled": 3, "opened": 1, "unopenable": 1, "audit_entries": [4, 5],
                "keys": [
                    key(1, true, Some("works")), key(2, false, Some("KmsKeyDisabled")), key(3, false, None),
                ],
                "settings_have_current_key": true,
            })
        );
    }
}
