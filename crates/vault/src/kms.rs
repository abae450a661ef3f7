//! KMS: the private key is there, and stays there.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use aws_config::SdkConfig;
use aws_sdk_kms::Client;
use aws_sdk_kms::config::Builder;
use aws_sdk_kms::config::retry::RetryConfig;
use aws_sdk_kms::config::timeout::TimeoutConfig;
use aws_sdk_kms::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kms::operation::RequestId;
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::{KeyAgreementAlgorithmSpec, KeySpec, KeyUsageType};
use login_etl::point::Point;

use crate::open::SharedCoordinate;

/// Time limit of a request. The only attempt has no limit of its own.
const TIMEOUT: Duration = Duration::from_secs(3);

/// KMS, which holds the private key.
#[derive(Clone)]
pub struct Kms(Client);

/// What KMS computed, and the id under which `CloudTrail` has the request.
#[derive(Debug)]
pub struct Derived {
    /// The result of the exchange.
    pub coordinate: SharedCoordinate,
    /// The id of the request.
    pub request_id: Option<String>,
}

/// A request to KMS failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{failure}")]
pub struct KmsError {
    /// Why.
    pub failure: KmsFailure,
    /// The id of the request, if KMS answered.
    pub request_id: Option<String>,
}

/// Why a request to KMS failed. No text of KMS is in it: it may quote the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr, thiserror::Error)]
pub enum KmsFailure {
    /// The policies do not allow the use of the key.
    #[error("KMS denies the use of the key")]
    #[strum(serialize = "KmsAccessDenied")]
    AccessDenied,
    /// The key is disabled.
    #[error("the KMS key is disabled")]
    #[strum(serialize = "KmsKeyDisabled")]
    KeyDisabled,
    /// The key is scheduled for deletion. A key that KMS is still creating has the same error.
    #[error("the KMS key is scheduled for deletion")]
    #[strum(serialize = "KmsKeyPendingDeletion")]
    KeyPendingDeletion,
    /// The key does not exist: it was deleted, or is in another account or region.
    #[error("the KMS key does not exist")]
    #[strum(serialize = "KmsKeyNotFound")]
    KeyNotFound,
    /// The key is of another kind.
    #[error("the KMS key is not for key agreement on the curve P-256")]
    #[strum(serialize = "KmsKeyOfOtherKind")]
    KeyOfOtherKind,
    /// The account sends too many requests.
    #[error("KMS throttles the requests")]
    #[strum(serialize = "KmsThrottled")]
    Throttled,
    /// KMS did not answer in 3 s.
    #[error("KMS did not answer in time")]
    #[strum(serialize = "KmsTimedOut")]
    TimedOut,
    /// KMS is out of reach.
    #[error("KMS cannot be reached")]
    #[strum(serialize = "KmsUnreachable")]
    Unreachable,
    /// KMS failed for another reason.
    #[error("KMS failed")]
    #[strum(serialize = "KmsFailed")]
    Failed,
}

impl Kms {
    /// Makes a client, and sends nothing yet.
    #[must_use]
    pub fn new(sdk: &SdkConfig) -> Self {
        let timeouts =
            TimeoutConfig::builder().operation_timeout(TIMEOUT).disable_operation_attempt_timeout();
        // A repeated request would be a second use of the key, and a second event in CloudTrail. The audit would not have
        // the id of the first event.
        let retries = RetryConfig::disabled();
        let config = Builder::from(sdk).timeout_config(timeouts.build()).retry_config(retries);
        Self(Client::from_conf(config.build()))
    }

    /// Does the Diffie-Hellman exchange between a key and the point of a stream.
    ///
    /// # Errors
    ///
    /// [`KmsError`].
    pub async fn derive(&self, key: &str, encapsulated: &Point) -> Result<Derived, KmsError> {
        let request = self
            .0
            .derive_shared_secret()
            .key_id(key)
            .key_agreement_algorithm(KeyAgreementAlgorithmSpec::Ecdh)
            .public_key(Blob::new(encapsulated.to_spki()));
        // Boxed: the SDK's future is tens of kilobytes large.
        let output = Box::pin(request.send()).await.map_err(|error| KmsError::from(&error))?;
        let request_id = known_id(&output);
        let failed = KmsError { failure: KmsFailure::Failed, request_id: request_id.clone() };
        let coordinate = output.shared_secret.map(Blob::into_inner).unwrap_or_default();
        Ok(Derived { coordinate: coordinate.try_into().map_err(|_| failed)?, request_id })
    }

    /// Returns the public key, which ingest seals to.
    ///
    /// # Errors
    ///
    /// [`KmsError`].
    pub async fn public_key(&self, key: &str) -> Result<Point, KmsError> {
        let request = self.0.get_public_key().key_id(key);
        let output = Box::pin(request.send()).await.map_err(|error| KmsError::from(&error))?;
        let other_kind = KmsError { failure: KmsFailure::KeyOfOtherKind, request_id: known_id(&output) };
        if output.key_spec != Some(KeySpec::EccNistP256)
            || output.key_usage != Some(KeyUsageType::KeyAgreement)
        {
            return Err(other_kind);
        }
        let der = output.public_key.map(Blob::into_inner).unwrap_or_default();
        Point::from_spki(&der).map_err(|_| other_kind)
    }
}

impl KmsError {
    /// Returns the stable name of the error.
    #[must_use]
    pub fn error_type(&self) -> &'static str {
        self.failure.into()
    }
}

impl KmsFailure {
    /// Whether the same request may succeed soon.
    #[must_use]
    pub fn is_temporary(self) -> bool {
        matches!(self, Self::Throttled | Self::TimedOut | Self::Unreachable | Self::Failed)
    }

    /// Reads the [code] of a refusal.
    ///
    /// [code]: https://docs.aws.amazon.com/kms/latest/APIReference/API_DeriveSharedSecret.html
    fn of_code(code: Option<&str>) -> Self {
        match code {
            Some("AccessDenied" | "AccessDeniedException") => Self::AccessDenied,
            Some("DisabledException") => Self::KeyDisabled,
            Some("KMSInvalidStateException") => Self::KeyPendingDeletion,
            Some("NotFoundException") => Self::KeyNotFound,
            Some("InvalidKeyUsageException" | "UnsupportedOperationException") => Self::KeyOfOtherKind,
            Some("LimitExceededException" | "ThrottlingException") => Self::Throttled,
            _ => Self::Failed,
        }
    }
}

impl<E: ProvideErrorMetadata + Error + 'static> From<&SdkError<E>> for KmsError {
    fn from(error: &SdkError<E>) -> Self {
        let failure = match error {
            SdkError::TimeoutError(_) => KmsFailure::TimedOut,
            SdkError::DispatchFailure(failure) if failure.is_timeout() => KmsFailure::TimedOut,
            SdkError::DispatchFailure(_) => KmsFailure::Unreachable,
            SdkError::ServiceError(refusal) => KmsFailure::of_code(refusal.err().code()),
            _ => KmsFailure::Failed,
        };
        Self { failure, request_id: known_id(error) }
    }
}

/// Returns the id of a request, if the audit can keep it: letters, digits and hyphens.
fn known_id(answer: &impl RequestId) -> Option<String> {
    let id = answer.request_id()?;
    let is_id =
        (1..=64).contains(&id.len()) && id.bytes().all(|byte| byte == b'-' || byte.is_ascii_alphanumeric());
    is_id.then(|| id.to_owned())
}

impl fmt::Debug for Kms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kms").finish_non_exhaustive()
    }
}
