//! CloudFormation's custom resource `Custom::VaultPublicKey`: its attribute `PublicKey` is the public key that ingest
//! seals to.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use login_etl::aws::custom_resource::{CustomResourceRequest, RequestType, ResourceData, ResponseError};
use login_etl::config::{SettingError, VAULT_KMS_KEY, vault_kms_key};

use crate::kms::{Kms, KmsError};

/// Why there is no public key.
#[derive(Debug, thiserror::Error)]
enum PublicKeyError {
    #[error(transparent)]
    Setting(#[from] SettingError),
    #[error("{VAULT_KMS_KEY}: {0}")]
    Kms(#[from] KmsError),
}

/// Sends CloudFormation the public key, as `aws kms get-public-key` prints it. `environment` returns the value of an
/// environment variable, if it is set.
///
/// # Errors
///
/// [`ResponseError`].
pub async fn respond(
    request: &CustomResourceRequest,
    kms: &Kms,
    environment: impl Fn(&str) -> Option<String> + Copy,
) -> Result<(), ResponseError> {
    let outcome = match request.request_type {
        RequestType::Create | RequestType::Update => data(kms, environment).await,
        // The key outlives the stack.
        RequestType::Delete => Ok(ResourceData::new()),
    };
    if let Err(error) = &outcome {
        tracing::error!(error = %error, "the deployment failed");
    }
    request.respond(outcome, environment).await
}

async fn data(
    kms: &Kms,
    environment: impl Fn(&str) -> Option<String>,
) -> Result<ResourceData, PublicKeyError> {
    let public_key = kms.public_key(&vault_kms_key(environment)?).await?;
    Ok(ResourceData::from([("PublicKey", STANDARD.encode(public_key.to_spki()))]))
}
