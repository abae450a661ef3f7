//! The protocol of CloudFormation's custom resources: the request arrives as an event, and the response is
//! sent to the URL in the request. See the [reference].
//!
//! [reference]: https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/crpg-ref.html

use std::error::Error;
use std::fmt;

use aws_smithy_http_client::Connector as HttpsConnector;
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_runtime_api::client::http::HttpConnector;
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use serde::{Deserialize, Serialize};

/// A response may have 4096 bytes. This limit leaves room for its other fields.
const REASON_CHARS: usize = 1000;

/// A request of CloudFormation. (The types of `aws_lambda_events` are not used: their `Debug` prints the
/// URL.)
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct CustomResourceRequest {
    /// What happens to the resource.
    pub request_type: RequestType,
    request_id: String,
    stack_id: String,
    logical_resource_id: String,
    /// `None` before the resource exists.
    physical_resource_id: Option<String>,
    /// Secret: anyone who has this signed URL can send the response.
    #[serde(rename = "ResponseURL")]
    response_url: String,
}

/// What happens to a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum RequestType {
    /// The resource is new in the stack.
    Create,
    /// The resource's properties changed.
    Update,
    /// The resource leaves the stack.
    Delete,
}

/// The response could not be delivered.
#[derive(Debug, thiserror::Error)]
pub enum ResponseError {
    /// The URL is not valid, or its host is out of reach.
    #[error("the response to CloudFormation cannot be delivered: {0}")]
    Undeliverable(String),
    /// The host refused the response.
    #[error("the response to CloudFormation cannot be delivered: HTTP status {0}")]
    HttpStatus(u16),
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Response<'r> {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    physical_resource_id: &'r str,
    stack_id: &'r str,
    request_id: &'r str,
    logical_resource_id: &'r str,
}

impl CustomResourceRequest {
    /// Sends the outcome to CloudFormation. A failure fails the deployment, and the error's text becomes
    /// its reason.
    ///
    /// # Errors
    ///
    /// [`ResponseError`]: the response may be sent again.
    pub async fn respond<E: fmt::Display>(&self, outcome: Result<(), E>) -> Result<(), ResponseError> {
        let body = serde_json::to_string(&self.response(outcome)).map_err(undeliverable)?;
        let mut request = HttpRequest::new(body.into());
        request.set_method("PUT").map_err(undeliverable)?;
        // The error is dropped: it may quote the URL. No content type is sent, because none is signed.
        request.set_uri(&*self.response_url).map_err(|_| undeliverable("the ResponseURL is not a URL"))?;
        let connector = HttpsConnector::builder().tls_provider(Provider::Rustls(CryptoMode::AwsLc)).build();
        let response = connector.call(request).await.map_err(undeliverable)?;
        if response.status().is_success() {
            return Ok(());
        }
        Err(ResponseError::HttpStatus(response.status().as_u16()))
    }

    fn response<E: fmt::Display>(&self, outcome: Result<(), E>) -> Response<'_> {
        Response {
            status: if outcome.is_ok() { "SUCCESS" } else { "FAILED" },
            reason: outcome.err().map(|error| error.to_string().chars().take(REASON_CHARS).collect()),
            // Always the same: a new id would make CloudFormation delete the old resource.
            physical_resource_id: self.physical_resource_id.as_deref().unwrap_or(&self.logical_resource_id),
            stack_id: &self.stack_id,
            request_id: &self.request_id,
            logical_resource_id: &self.logical_resource_id,
        }
    }
}

impl fmt::Debug for CustomResourceRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CustomResourceRequest")
            .field("request_type", &self.request_type)
            .finish_non_exhaustive()
    }
}

fn undeliverable(error: impl Into<Box<dyn Error + Send + Sync>>) -> ResponseError {
    ResponseError::Undeliverable(error.into().to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// A request as the reference shows it.
    fn request(request_type: &str, physical_id: Option<&str>) -> CustomResourceRequest {
        let mut event = json!({
            "RequestType": request_type,
            "RequestId": "unique-1",
            "ResponseURL": "https://bucket.s3.amazonaws.com/answer?X-Amz-Signature=hunter2",
            "ResourceType": "Custom::Schema",
            "LogicalResourceId": "Schema",
            "StackId": "arn:aws:cloudformation:us-east-2:123456789012:stack/login-etl/1",
            "ResourceProperties": { "ServiceToken": "arn:…", "Version": "4" },
        });
        if let Some(id) = physical_id {
            event["PhysicalResourceId"] = id.into();
        }
        serde_json::from_value(event).unwrap()
    }

    fn response(request: &CustomResourceRequest, outcome: Result<(), &str>) -> Value {
        serde_json::to_value(request.response(outcome)).unwrap()
    }

    #[test]
    fn physical_id_never_changes() {
        let created = response(&request("Create", None), Ok(()));
        let updated = response(&request("Update", Some("Older")), Ok(()));

        assert_eq!(
            created,
            json!({
                "Status": "SUCCESS",
                "PhysicalResourceId": "Schema",
                "StackId": "arn:aws:cloudformation:us-east-2:123456789012:stack/login-etl/1",
                "RequestId": "unique-1",
                "LogicalResourceId": "Schema",
            })
        );
        assert_eq!(updated["PhysicalResourceId"], "Older");
    }

    #[test]
    fn long_reasons_are_cut() {
        let short = response(&request("Create", None), Err("a migration failed"));
        let long = response(&request("Create", None), Err(&"é".repeat(5000)));

        assert_eq!((&short["Status"], &short["Reason"]), (&json!("FAILED"), &json!("a migration failed")));
        assert!(long.to_string().len() < 4096);
    }

    #[test]
    fn debug_prints_no_url() {
        let request = request("Delete", Some("Schema"));

        assert_eq!(format!("{request:?}"), "CustomResourceRequest { request_type: Delete, .. }");
    }

    #[tokio::test]
    async fn errors_hold_no_url() {
        let mut request = request("Create", None);
        for url in ["http://127.0.0.1:9/answer?X-Amz-Signature=hunter2", "no url, hunter2"] {
            request.response_url = url.into();

            let error = request.respond(Ok::<_, &str>(())).await.unwrap_err().to_string();

            assert!(error.starts_with("the response to CloudFormation cannot be delivered: "), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
