//! The events of the migrate function.

use login::pii::{NotAFingerprint, SaltFingerprint};
use login_etl::aws::custom_resource::CustomResourceRequest;
use login_etl::config::{NotAVaultKey, VaultPublicKey};
use serde::Deserialize;
use serde_json::Value;

/// An event of the migrate function.
pub(crate) enum MigrateEvent {
    /// The event of the schedule, which has no key.
    Daily,
    /// A request of CloudFormation.
    Deployment(CustomResourceRequest),
    /// `{"action": "rotate"}`: set the passwords that the secrets hold.
    Rotate,
    /// `{"action": "roll-up"}`: bring the analysts' schema up to date.
    RollUp,
    /// `{"action": "status"}`: return the version of the schema and the accepted salt.
    Status,
    /// `{"action": "accept-salt", "fingerprint": "…"}`: replace the accepted salt.
    AcceptSalt(SaltFingerprint),
    /// `{"action": "accept-vault-key"}`: make the vault's key in the settings the current key; or another key, such as
    /// that of the next deployment: `{"action": "accept-vault-key", "public_key": "…", "kms_key": "…"}`.
    AcceptVaultKey(Option<(VaultPublicKey, String)>),
    /// `{"action": "resalt"}`: replace the tokens by those of the last salt, as far as the time allows.
    Resalt,
    /// `{"action": "replay-erasures"}`: repeat the erasures of the erasure list that the database does not have.
    ReplayErasures,
}

/// Why an event cannot be read. The texts quote nothing of the event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MigrateEventError {
    /// The event has the key `RequestType`, but not the other keys of such a request.
    #[error("the event is not a request of CloudFormation")]
    NotARequest,
    /// No known event has these keys and values.
    #[error(
        "the event is unknown; known are {{}}, {{\"action\": \"rotate\"}}, {{\"action\": \"roll-up\"}}, \
         {{\"action\": \"status\"}}, {{\"action\": \"accept-salt\", \"fingerprint\": \"…\"}}, \
         {{\"action\": \"accept-vault-key\"}}, {{\"action\": \"resalt\"}}, {{\"action\": \"replay-erasures\"}} and \
         the requests of CloudFormation"
    )]
    Unknown,
    /// The salt's fingerprint has the wrong form.
    #[error(transparent)]
    WrongFingerprint(#[from] NotAFingerprint),
    /// The public key has the wrong form.
    #[error("the public_key {0}")]
    WrongVaultKey(#[from] NotAVaultKey),
}

#[derive(Deserialize)]
#[serde(tag = "action", rename_all = "kebab-case", deny_unknown_fields)]
enum Action {
    Rotate {},
    RollUp {},
    Status {},
    AcceptSalt { fingerprint: String },
    AcceptVaultKey { public_key: Option<String>, kms_key: Option<String> },
    Resalt {},
    ReplayErasures {},
}

impl MigrateEvent {
    /// Reads an event. The parser's errors are dropped: they may quote values, such as CloudFormation's signed URL.
    ///
    /// # Errors
    ///
    /// [`MigrateEventError`].
    pub(crate) fn read(event: Value) -> Result<Self, MigrateEventError> {
        // An invocation without a payload is null in some emulators.
        if event.is_null() || event.as_object().is_some_and(serde_json::Map::is_empty) {
            return Ok(Self::Daily);
        }
        if event.get("RequestType").is_some() {
            let request = CustomResourceRequest::deserialize(event);
            return request.map(Self::Deployment).map_err(|_| MigrateEventError::NotARequest);
        }
        match Action::deserialize(event).map_err(|_| MigrateEventError::Unknown)? {
            Action::Rotate {} => Ok(Self::Rotate),
            Action::RollUp {} => Ok(Self::RollUp),
            Action::Status {} => Ok(Self::Status),
            Action::Resalt {} => Ok(Self::Resalt),
            Action::AcceptSalt { fingerprint } => Ok(Self::AcceptSalt(fingerprint.parse()?)),
            Action::AcceptVaultKey { public_key, kms_key } => match (public_key, kms_key) {
                (None, None) => Ok(Self::AcceptVaultKey(None)),
                (Some(key), Some(kms_key)) => Ok(Self::AcceptVaultKey(Some((key.parse()?, kms_key)))),
                _ => Err(MigrateEventError::Unknown),
            },
            Action::ReplayErasures {} => Ok(Self::ReplayErasures),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const VAULT_KEY: &str = "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEgtR7oTpydduPtSzJvz9DGrx/BK/KYul+8ZgYDD2x8wGApUmDNbEd3iJ5RujVQX/gFCCn7v+7sCiqYATMbM05iw==";

    fn name(event: Value) -> Result<String, MigrateEventError> {
        MigrateEvent::read(event).map(|event| match event {
            MigrateEvent::Daily => "daily".to_owned(),
            MigrateEvent::Deployment(_) => "deployment".to_owned(),
            MigrateEvent::Rotate => "rotate".to_owned(),
            MigrateEvent::RollUp => "roll-up".to_owned(),
            MigrateEvent::Status => "status".to_owned(),
            MigrateEvent::Resalt => "resalt".to_owned(),
            MigrateEvent::AcceptSalt(fingerprint) => fingerprint.as_str().to_owned(),
            MigrateEvent::AcceptVaultKey(None) => "accept-vault-key".to_owned(),
            MigrateEvent::ReplayErasures => "replay-erasures".to_owned(),
            MigrateEvent::AcceptVaultKey(Some((_, kms_key))) => format!("accept-vault-key of {kms_key}"),
        })
    }

    #[test]
    fn each_event_has_its_meaning() {
        let request = json!({"RequestType": "Create", "RequestId": "r", "StackId": "s", "LogicalResourceId": "l",
            "ResponseURL": "https://example.com", "ResourceProperties": {"Version": "10"}});
        let accept_salt = json!({"action": "accept-salt", "fingerprint": "3b0a1a8fbcb7edc1"});

        assert_eq!(name(json!({})).as_deref(), Ok("daily"));
        assert_eq!(name(Value::Null).as_deref(), Ok("daily"));
        assert_eq!(name(request).as_deref(), Ok("deployment"));
        assert_eq!(name(json!({"action": "rotate"})).as_deref(), Ok("rotate"));
        assert_eq!(name(json!({"action": "roll-up"})).as_deref(), Ok("roll-up"));
        assert_eq!(name(json!({"action": "status"})).as_deref(), Ok("status"));
        assert_eq!(name(json!({"action": "replay-erasures"})).as_deref(), Ok("replay-erasures"));
        assert_eq!(name(accept_salt).as_deref(), Ok("3b0a1a8fbcb7edc1"));
        assert_eq!(name(json!({"action": "accept-vault-key"})).as_deref(), Ok("accept-vault-key"));
        let other_key = json!({"action": "accept-vault-key", "public_key": VAULT_KEY, "kms_key": "k"});
        assert_eq!(name(other_key).as_deref(), Ok("accept-vault-key of k"));
    }

    #[test]
    fn other_events_are_errors_without_values() {
        let unknown = [
            json!({"action": "hunter2"}),
            json!({"action": "status", "hunter2": 1}),
            json!({"action": "rotate", "prune": true}),
            json!({"action": "accept-salt"}),
            json!({"action": "accept-vault-key", "kms_key": "hunter2"}),
            json!({"action": "accept-vault-key", "public_key": VAULT_KEY}),
            json!({"action": ["status"]}),
            json!({"prune": false}),
            json!({"Records": []}),
            json!("status"),
            json!([]),
        ];
        for event in unknown {
            assert_eq!(name(event), Err(MigrateEventError::Unknown));
        }
        assert_eq!(name(json!({"RequestType": "hunter2"})), Err(MigrateEventError::NotARequest));
        for fingerprint in ["hunter2", "", "3B0A1A8FBCB7EDC1", "3b0a1a8fbcb7edc10", "3b0a1a8fbcb7edcé"] {
            let event = json!({"action": "accept-salt", "fingerprint": fingerprint});
            assert_eq!(name(event), Err(MigrateEventError::WrongFingerprint(NotAFingerprint)));
        }
        let wrong_key = json!({"action": "accept-vault-key", "public_key": "hunter2", "kms_key": "k"});
        assert_eq!(name(wrong_key), Err(MigrateEventError::WrongVaultKey(NotAVaultKey::NotBase64)));
    }

    #[test]
    fn unknown_event_error_names_known_events() {
        let text = MigrateEventError::Unknown.to_string();

        assert_eq!(
            text,
            r#"the event is unknown; known are {}, {"action": "rotate"}, {"action": "roll-up"}, {"action": "status"}, {"action": "accept-salt", "fingerprint": "…"}, {"action": "accept-vault-key"}, {"action": "resalt"}, {"action": "replay-erasures"} and the requests of CloudFormation"#
        );
    }
}
