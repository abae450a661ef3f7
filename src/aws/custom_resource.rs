//! CloudFormation's custom resources: a request that comes as an event, and an answer that goes to
//! the URL in it, after the [reference].
//!
//! [reference]: https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/crpg-ref.html

use std::error::Error;
use std::fmt;

use aws_smithy_http_client::Connector;
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_runtime_api::client::http::HttpConnector;
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use serde::{Deserialize, Serialize};

/// The answer may have 4096 bytes; this leaves room for its other fields.
const REASON_CHARS: usize = 1000;

/// A change that CloudFormation asks for. (`aws_lambda_events` has a type for each kind of request; of what
/// they hold these fields are enough, and they print the URL.)
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Change {
    /// What is to become of the resource.
    #[serde(rename = "RequestType")]
    pub kind: ChangeKind,
    request_id: String,
    stack_id: String,
    logical_resource_id: String,
    /// None before the resource is created.
    physical_resource_id: Option<String>,
    /// Signed: whoever has it can answer in our place.
    #[serde(rename = "ResponseURL")]
    response_url: String,
}

/// What is to become of a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum ChangeKind {
    /// It is new in the stack.
    Create,
    /// Its properties changed.
    Update,
    /// It leaves the stack.
    Delete,
}

/// The answer could not be delivered.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    /// The URL is none, or there is no way to it.
    #[error("CloudFormation cannot be answered: {0}")]
    Undeliverable(String),
    /// The other side does not take it.
    #[error("CloudFormation cannot be answered: HTTP status {0}")]
    Refused(u16),
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Answer<'r> {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    physical_resource_id: &'r str,
    stack_id: &'r str,
    request_id: &'r str,
    logical_resource_id: &'r str,
}

impl Change {
    /// Answers with the outcome. A failure fails the deployment, with the error's text as its reason.
    ///
    /// # Errors
    ///
    /// [`AnswerError`]; the answer may be sent again.
    pub async fn answer<E: fmt::Display>(&self, outcome: Result<(), E>) -> Result<(), AnswerError> {
        let body = serde_json::to_string(&self.answer_to(outcome)).map_err(undeliverable)?;
        let mut request = HttpRequest::new(body.into());
        request.set_method("PUT").map_err(undeliverable)?;
        // Said without the error, which might quote the URL. It is signed for no content type.
        request.set_uri(&*self.response_url).map_err(|_| undeliverable("its address is not a URL"))?;
        let connector = Connector::builder().tls_provider(Provider::Rustls(CryptoMode::AwsLc)).build();
        let response = connector.call(request).await.map_err(undeliverable)?;
        if response.status().is_success() {
            return Ok(());
        }
        Err(AnswerError::Refused(response.status().as_u16()))
    }

    fn answer_to<E: fmt::Display>(&self, outcome: Result<(), E>) -> Answer<'_> {
        Answer {
            status: if outcome.is_ok() { "SUCCESS" } else { "FAILED" },
            reason: outcome.err().map(|error| error.to_string().chars().take(REASON_CHARS).collect()),
            // The same for ever: another one would tell CloudFormation to delete the old resource.
            physical_resource_id: self.physical_resource_id.as_deref().unwrap_or(&self.logical_resource_id),
            stack_id: &self.stack_id,
            request_id: &self.request_id,
            logical_resource_id: &self.logical_resource_id,
        }
    }
}

impl fmt::Debug for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Change").field("kind", &self.kind).finish_non_exhaustive()
    }
}

fn undeliverable(error: impl Into<Box<dyn Error + Send + Sync>>) -> AnswerError {
    AnswerError::Undeliverable(error.into().to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// A change as the reference shows it.
    fn change(kind: &str, physical_id: Option<&str>) -> Change {
        let mut event = json!({
            "RequestType": kind,
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

    fn answer(change: &Change, outcome: Result<(), &str>) -> Value {
        serde_json::to_value(change.answer_to(outcome)).unwrap()
    }

    #[test]
    fn a_success_names_the_resource_as_it_was_named_before() {
        let created = answer(&change("Create", None), Ok(()));
        let updated = answer(&change("Update", Some("Older")), Ok(()));

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
    fn a_failure_says_why_in_no_more_than_the_answer_can_hold() {
        let short = answer(&change("Create", None), Err("a migration failed"));
        let long = answer(&change("Create", None), Err(&"é".repeat(5000)));

        assert_eq!((&short["Status"], &short["Reason"]), (&json!("FAILED"), &json!("a migration failed")));
        assert!(long.to_string().len() < 4096);
    }

    #[test]
    fn the_url_is_not_printed() {
        let change = change("Delete", Some("Schema"));

        assert_eq!(format!("{change:?}"), "Change { kind: Delete, .. }");
    }

    #[tokio::test]
    async fn an_answer_that_nobody_takes_is_an_error_without_the_url() {
        let mut change = change("Create", None);
        for url in ["http://127.0.0.1:9/answer?X-Amz-Signature=hunter2", "no url, hunter2"] {
            change.response_url = url.into();

            let error = change.answer(Ok::<_, &str>(())).await.unwrap_err().to_string();

            assert!(error.starts_with("CloudFormation cannot be answered: "), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
