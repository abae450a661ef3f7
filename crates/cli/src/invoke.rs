//! Invokes the functions of the stack with events that are no batch.

use aws_sdk_lambda::Client;
use aws_sdk_lambda::primitives::Blob;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::aws::{self, Aws};
use crate::error::Error;
use crate::stack::Stack;

/// The error with which an invocation failed. The functions' own texts hold no personal value.
#[derive(Deserialize)]
struct InvocationError {
    #[serde(rename = "errorType")]
    error_type: Option<String>,
    #[serde(rename = "errorMessage")]
    message: Option<String>,
}

/// Invokes functions, and waits for their answers.
#[derive(Clone, Debug)]
pub(crate) struct Invoker(Client);

impl Invoker {
    pub(crate) fn new(aws: &Aws) -> Self {
        Self(aws.invoking_lambda())
    }

    /// Returns the answer of the migrate function to an event.
    ///
    /// # Errors
    ///
    /// As [`invoke`](Self::invoke).
    pub(crate) async fn migrate<A: DeserializeOwned>(
        &self,
        stack: &Stack,
        event: &Value,
    ) -> Result<A, Error> {
        self.invoke(stack.output("MigrateFunctionName")?, event).await
    }

    /// Returns the answer to an event.
    ///
    /// # Errors
    ///
    /// [`Error::Failed`] with the function's own reason.
    pub(crate) async fn invoke<A: DeserializeOwned>(
        &self,
        function: &str,
        event: &Value,
    ) -> Result<A, Error> {
        let payload = Blob::new(event.to_string());
        let answer = self.0.invoke().function_name(function).payload(payload).send().await;
        let answer = answer.map_err(|error| aws::failure("Invoke", &error))?;
        let payload = answer.payload().map(Blob::as_ref).unwrap_or_default();
        if answer.function_error().is_some() {
            return Err(Error::Failed(reason(payload)));
        }
        serde_json::from_slice(payload).map_err(|_| {
            Error::Failed(format!("{function} gave an unexpected answer; deploy this version first"))
        })
    }
}

fn reason(payload: &[u8]) -> String {
    match serde_json::from_slice(payload) {
        Ok(InvocationError { message: Some(message), .. }) if !message.is_empty() => message,
        Ok(InvocationError { error_type: Some(error_type), .. }) => error_type,
        _ => "the function failed without a reason".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reason_is_the_functions_message() {
        let reasons = [
            r#"{"errorType": "E", "errorMessage": "Postgres cannot be reached"}"#,
            r#"{"errorType": "Runtime.ExitError", "errorMessage": ""}"#,
            "no JSON",
        ]
        .map(|payload| reason(payload.as_bytes()));

        assert_eq!(
            reasons,
            ["Postgres cannot be reached", "Runtime.ExitError", "the function failed without a reason"]
        );
    }
}
