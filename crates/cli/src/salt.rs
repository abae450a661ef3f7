//! The events of the two functions that concern the salt and the schema, and their answers.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::Error;
use crate::invoke::Invoker;
use crate::stack::Stack;

/// The answer of the migrate function to `status`.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct SchemaStatus {
    pub(crate) version: Option<i32>,
    pub(crate) newest_version: Option<i32>,
    pub(crate) accepted_salt: Option<AcceptedSalt>,
}

/// The salt that the database accepts.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct AcceptedSalt {
    pub(crate) fingerprint: String,
    pub(crate) accepted_at: String,
}

/// The answer of the ingest function: fingerprints of salts.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct SaltFingerprints {
    /// Of the salt in Secrets Manager; of several salts, of the last.
    pub(crate) current: String,
    /// Of the salt of the process that answered.
    pub(crate) in_use: String,
    /// Of all salts in Secrets Manager, the first salt first. A function of an older version does not say them.
    #[serde(default)]
    generations: Vec<String>,
}

impl SaltFingerprints {
    /// Whether the secret has this salt, and a later salt waits for a resalt.
    pub(crate) fn has_later_than(&self, accepted: &str) -> bool {
        accepted != self.current && self.generations.iter().any(|fingerprint| fingerprint == accepted)
    }
}

/// Reads the state of the schema.
pub(crate) async fn schema_status(invoker: &Invoker, stack: &Stack) -> Result<SchemaStatus, Error> {
    invoker.migrate(stack, &json!({ "action": "status" })).await
}

/// Accepts a salt.
pub(crate) async fn accept(invoker: &Invoker, stack: &Stack, fingerprint: &str) -> Result<(), Error> {
    let event = json!({ "action": "accept-salt", "fingerprint": fingerprint });
    invoker.migrate::<Value>(stack, &event).await.map(drop)
}

/// Returns the fingerprints from the ingest function. Only this function may read the salt.
pub(crate) async fn fingerprints(invoker: &Invoker, stack: &Stack) -> Result<SaltFingerprints, Error> {
    let function = stack.output("FunctionName")?;
    invoker.invoke(function, &json!({ "action": "salt-fingerprint" })).await
}
