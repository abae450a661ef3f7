//! The protocol of CloudFormation's custom resources: the request arrives as an event, and the response is
//! sent to the URL in the request. See the [reference].
//!
//! [reference]: https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/crpg-ref.html

use std::collections::BTreeMap;
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

/// The attributes of a resource, which a template reads with `Fn::GetAtt`.
pub type ResourceData = BTreeMap<&'static str, String>;

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
    /// The URL does not lead to CloudFormation: somebody else made the request.
    #[error("the ResponseURL is not in the bucket of CloudFormation")]
    ForeignUrl,
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
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    data: ResourceData,
}

impl CustomResourceRequest {
    /// Sends the outcome to CloudFormation, in the region of the environment variable `AWS_REGION`. A failure fails
    /// the deployment, and the error's text becomes its reason.
    ///
    /// Sends nothing to a host that is not CloudFormation's, so that nobody receives the reason, or makes the
    /// function send requests into its network. The variable `AWS_ENDPOINT_URL` names the host of an emulator.
    ///
    /// # Errors
    ///
    /// [`ResponseError`]: the response may be sent again.
    pub async fn respond<E: fmt::Display>(
        &self,
        outcome: Result<ResourceData, E>,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<(), ResponseError> {
        let mut origins = environment("AWS_REGION").map(response_origins).unwrap_or_default();
        origins.extend(environment("AWS_ENDPOINT_URL"));
        if !origins.iter().any(|origin| is_at(&self.response_url, origin)) {
            return Err(ResponseError::ForeignUrl);
        }
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

    fn response<E: fmt::Display>(&self, outcome: Result<ResourceData, E>) -> Response<'_> {
        let (status, reason, data) = match outcome {
            Ok(data) => ("SUCCESS", None, data),
            Err(error) => {
                let reason = error.to_string().chars().take(REASON_CHARS).collect();
                ("FAILED", Some(reason), ResourceData::new())
            }
        };
        Response {
            status,
            reason,
            data,
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

/// Returns the origins of the [bucket] in which CloudFormation expects the responses of a region. The documents show
/// a URL of each form, depending on the age and the partition of the region.
///
/// [bucket]: https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/vpc-interface-endpoints.html
#[expect(clippy::needless_pass_by_value, reason = "`Option<String>::map` passes a `String`")]
fn response_origins(region: String) -> Vec<String> {
    let bucket = format!("cloudformation-custom-resource-response-{}", region.replace('-', ""));
    [
        "s3.amazonaws.com".to_owned(),
        format!("s3-{region}.amazonaws.com"),
        format!("s3.{region}.amazonaws.com"),
        format!("s3.{region}.amazonaws.com.cn"),
        format!("s3.{region}.amazonaws.eu"),
    ]
    .map(|endpoint| format!("https://{bucket}.{endpoint}"))
    .to_vec()
}

/// Whether a URL has this scheme, host and port. The slash ends the host: without it, the host could be longer.
fn is_at(url: &str, origin: &str) -> bool {
    url.strip_prefix(origin.trim_end_matches('/')).is_some_and(|path| path.starts_with('/'))
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
            "ResponseURL": "https://cloudformation-custom-resource-response-useast2.s3.us-east-2.amazonaws.com/answer?X-Amz-Signature=hunter2",
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

    fn response(request: &CustomResourceRequest, outcome: Result<ResourceData, &str>) -> Value {
        serde_json::to_value(request.response(outcome)).unwrap()
    }

    #[test]
    fn physical_id_never_changes() {
        let created = response(&request("Create", None), Ok(ResourceData::new()));
        let updated = response(&request("Update", Some("Older")), Ok(ResourceData::new()));

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
    fn attributes_are_in_the_response() {
        let data = ResourceData::from([("PublicKey", "MFkw".to_owned())]);

        let response = response(&request("Create", None), Ok(data));

        assert_eq!(
            (&response["Status"], &response["Data"]),
            (&json!("SUCCESS"), &json!({ "PublicKey": "MFkw" }))
        );
    }

    #[test]
    fn debug_prints_no_url() {
        let request = request("Delete", Some("Schema"));

        assert_eq!(format!("{request:?}"), "CustomResourceRequest { request_type: Delete, .. }");
    }

    #[tokio::test]
    async fn errors_hold_no_url() {
        let mut request = request("Create", None);
        for (url, endpoint) in [
            ("http://127.0.0.1:9/answer?X-Amz-Signature=hunter2", "http://127.0.0.1:9"),
            ("no url/hunter2", "no url"),
        ] {
            request.response_url = url.into();

            let error = request
                .respond(Ok::<_, &str>(ResourceData::new()), |_| Some(endpoint.into()))
                .await
                .unwrap_err();

            let error = error.to_string();
            assert!(error.starts_with("the response to CloudFormation cannot be delivered: "), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    /// URLs in the documents of Lambda, for two partitions, and in the events of other regions.
    #[test]
    fn urls_of_cloudformation_are_accepted() {
        for (region, host) in [
            ("us-east-1", "useast1.s3-us-east-1.amazonaws.com"),
            ("us-east-1", "useast1.s3.amazonaws.com"),
            ("eu-central-1", "eucentral1.s3.eu-central-1.amazonaws.com"),
            ("ap-southeast-2", "apsoutheast2.s3-ap-southeast-2.amazonaws.com"),
            ("cn-north-1", "cnnorth1.s3.cn-north-1.amazonaws.com.cn"),
        ] {
            let url =
                format!("https://cloudformation-custom-resource-response-{host}/arn%3Aaws?X-Amz-Date=1");

            assert!(response_origins(region.into()).iter().any(|origin| is_at(&url, origin)), "{url}");
        }
    }

    /// Nothing listens on port 9, so a request that is sent fails with another error.
    #[tokio::test]
    async fn foreign_urls_get_no_response() {
        let bucket = "cloudformation-custom-resource-response-useast2";
        let mut request = request("Create", None);
        for url in [
            "https://127.0.0.1:9/answer".to_owned(),
            "http://127.0.0.1:9/2018-06-01/runtime".to_owned(),
            format!("http://{bucket}.s3.us-east-2.amazonaws.com/answer"),
            format!("https://{bucket}.s3.us-east-2.amazonaws.com:9/answer"),
            format!("https://{bucket}.s3.us-east-2.amazonaws.com@127.0.0.1:9/answer"),
            format!("https://{bucket}.s3.us-east-2.amazonaws.com.127.0.0.1:9/answer"),
            format!("https://{bucket}.s3.us-east-2.amazonaws.com"),
            format!("https://{bucket}.s3.mine.s3.amazonaws.com/answer"),
            format!("https://{bucket}-mine.s3.us-east-2.amazonaws.com/answer"),
            format!("https://s3.us-east-2.amazonaws.com/{bucket}/answer"),
            "https://cloudformation-custom-resource-response-useast1.s3.amazonaws.com/answer".to_owned(),
            String::new(),
        ] {
            request.response_url.clone_from(&url);
            let environment = |name: &str| (name == "AWS_REGION").then(|| "us-east-2".to_owned());

            let outcome = request.respond(Ok::<_, &str>(ResourceData::new()), environment).await;

            assert!(matches!(outcome, Err(ResponseError::ForeignUrl)), "{url}: {outcome:?}");
        }
    }
}
