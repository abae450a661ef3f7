//! The clients of AWS, all made here, and the texts of their errors.

use std::time::Duration;

use aws_config::meta::region::RegionProviderChain;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_cloudformation::config::SharedCredentialsProvider;
use aws_sdk_cloudformation::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_cloudformation::operation::RequestId;

use crate::error::Error;

/// Time limit of one attempt of a call.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(30);
/// Time limit of an invocation: `migrate` may run for 5 minutes.
const INVOCATION_TIMEOUT: Duration = Duration::from_secs(310);

/// Errors whose text names rights, stacks and functions only. The text of any other error is dropped: it may quote
/// what was sent, as that of `SignatureDoesNotMatch` quotes the session token.
const HARMLESS_CODES: [&str; 15] = [
    "AccessDenied",
    "AccessDeniedException",
    "AuthFailure",
    "ExpiredToken",
    "ExpiredTokenException",
    "InvalidClientTokenId",
    "KMSAccessDeniedException",
    "KmsAccessDenied",
    "ResourceConflictException",
    "ResourceInUseException",
    "ResourceNotFoundException",
    "Throttling",
    "ThrottlingException",
    "TooManyRequestsException",
    "UnrecognizedClientException",
];

/// Errors that stay until the caller gets other credentials or rights.
const DENIED_CODES: [&str; 6] = [
    "AccessDenied",
    "AccessDeniedException",
    "ExpiredToken",
    "ExpiredTokenException",
    "InvalidClientTokenId",
    "UnrecognizedClientException",
];

/// Makes the clients of one region.
#[derive(Clone, Debug)]
pub(crate) struct Aws {
    sdk: SdkConfig,
}

impl Aws {
    /// Finds the credentials, and the region if none is given.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] if there is no region.
    pub(crate) async fn connect(region: Option<String>) -> Result<Self, Error> {
        let region = RegionProviderChain::first_try(region.map(Region::new)).or_default_provider();
        let timeouts = TimeoutConfig::builder().operation_attempt_timeout(ATTEMPT_TIMEOUT).build();
        let sdk = aws_config::defaults(BehaviorVersion::latest())
            .region(region)
            .timeout_config(timeouts)
            .load()
            .await;
        if sdk.region().is_none() {
            return Err(Error::Usage(
                "no region: add --region, or set AWS_REGION or the profile's region".to_owned(),
            ));
        }
        Ok(Self { sdk })
    }

    /// Returns the region.
    pub(crate) fn region(&self) -> &str {
        self.sdk.region().map_or("", AsRef::as_ref)
    }

    /// Returns the provider of the credentials.
    ///
    /// # Errors
    ///
    /// [`Error::Failed`] if nothing does.
    pub(crate) fn credentials(&self) -> Result<SharedCredentialsProvider, Error> {
        let provider = self.sdk.credentials_provider();
        provider.ok_or_else(|| Error::Failed("no provider of AWS credentials".to_owned()))
    }

    /// Makes a client of CloudFormation.
    pub(crate) fn cloudformation(&self) -> aws_sdk_cloudformation::Client {
        aws_sdk_cloudformation::Client::new(&self.sdk)
    }

    /// Makes a client of CloudTrail.
    pub(crate) fn cloudtrail(&self) -> aws_sdk_cloudtrail::Client {
        aws_sdk_cloudtrail::Client::new(&self.sdk)
    }

    /// Makes a client of Lambda.
    pub(crate) fn lambda(&self) -> aws_sdk_lambda::Client {
        aws_sdk_lambda::Client::new(&self.sdk)
    }

    /// Makes a client of Lambda that invokes functions: it waits for the longest of them, and sends nothing twice.
    pub(crate) fn invoking_lambda(&self) -> aws_sdk_lambda::Client {
        let timeouts = TimeoutConfig::builder().operation_attempt_timeout(INVOCATION_TIMEOUT).build();
        let config = aws_sdk_lambda::config::Builder::from(&self.sdk)
            .timeout_config(timeouts)
            .retry_config(RetryConfig::disabled());
        aws_sdk_lambda::Client::from_conf(config.build())
    }

    /// Makes a client of CloudWatch.
    pub(crate) fn cloudwatch(&self) -> aws_sdk_cloudwatch::Client {
        aws_sdk_cloudwatch::Client::new(&self.sdk)
    }

    /// Makes a client of Secrets Manager.
    pub(crate) fn secrets(&self) -> aws_sdk_secretsmanager::Client {
        aws_sdk_secretsmanager::Client::new(&self.sdk)
    }

    /// Makes a client of CloudWatch Logs.
    pub(crate) fn logs(&self) -> aws_sdk_cloudwatchlogs::Client {
        aws_sdk_cloudwatchlogs::Client::new(&self.sdk)
    }

    /// Makes a client of SQS.
    pub(crate) fn sqs(&self) -> aws_sdk_sqs::Client {
        aws_sdk_sqs::Client::new(&self.sdk)
    }
}

/// Describes why a call failed: the operation, and AWS's error code and request id. AWS's own text is added if it cannot
/// quote what was sent.
pub(crate) fn failure<E>(operation: &str, error: &SdkError<E>) -> Error
where
    E: std::error::Error + ProvideErrorMetadata + RequestId + 'static,
{
    let reason = match error {
        SdkError::ServiceError(service) => service_error(service.err()),
        SdkError::TimeoutError(_) => "AWS did not answer in time".to_owned(),
        // The request was not sent, or no answer came, so these texts quote none.
        SdkError::ConstructionFailure(_) | SdkError::DispatchFailure(_) => {
            let causes = causes(error);
            // No credentials is no error of its own: the SDK fails to make the request.
            if causes.contains("credentials") { no_credentials(error) } else { causes }
        }
        _ => "the answer cannot be read".to_owned(),
    };
    let text = format!("{operation} failed: {reason}");
    if error.code().is_some_and(|code| DENIED_CODES.contains(&code)) {
        Error::Denied(text)
    } else {
        Error::Failed(text)
    }
}

fn service_error<E: ProvideErrorMetadata + RequestId>(error: &E) -> String {
    let code = error.code().unwrap_or("unknown error");
    let text = error.message().filter(|_| HARMLESS_CODES.contains(&code));
    let text = text.map(|text| format!(": {text}")).unwrap_or_default();
    let id = error.request_id().map(|id| format!(" (request id {id})")).unwrap_or_default();
    format!("{code}{text}{id}")
}

/// Says that there are no credentials, and why.
pub(crate) fn no_credentials(error: &dyn std::error::Error) -> String {
    format!(
        "no AWS credentials that can be used; set AWS_PROFILE, or log in (aws sso login): {}",
        causes(error)
    )
}

/// Returns the texts of an error's causes.
pub(crate) fn causes(error: &dyn std::error::Error) -> String {
    let mut texts = Vec::new();
    let mut cause = error.source();
    while let Some(error) = cause {
        texts.push(error.to_string());
        cause = error.source();
    }
    texts.join(": ")
}

#[cfg(test)]
mod tests {
    use aws_sdk_lambda::error::ErrorMetadata;
    use aws_sdk_lambda::operation::invoke::InvokeError;

    use super::*;

    fn described(code: &str, text: &str) -> String {
        service_error(&InvokeError::generic(ErrorMetadata::builder().code(code).message(text).build()))
    }

    #[test]
    fn only_harmless_texts_are_shown() {
        let denied = described("AccessDeniedException", "not authorized to perform: lambda:InvokeFunction");
        let invalid = described("InvalidParameterValueException", "the value 203.0.113.7 is not valid");

        assert_eq!(denied, "AccessDeniedException: not authorized to perform: lambda:InvokeFunction");
        assert_eq!(invalid, "InvalidParameterValueException");
    }
}
