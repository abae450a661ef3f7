//! The client of the vault's API.

use std::fmt;
use std::time::Duration;

use axum::http::StatusCode;
use clap::{Args, ValueEnum};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::time::{sleep, timeout};

use crate::error::Error;
use crate::signed_api::{Answer, NoAnswer, SignedApi, Site, TIME_LIMIT, UnsignedRequest};
use crate::stack::StackOptions;

const HEADERS: [(&str, &str); 2] =
    [("accept", "application/json, application/problem+json"), ("content-type", "application/json")];
/// How often a request is sent that API Gateway did not pass on, because there were too many.
const ATTEMPTS: usize = 30;
/// How long to wait before the next attempt.
const PAUSE: Duration = Duration::from_secs(1);

/// The masked fields.
#[derive(Clone, Copy, Debug, Serialize, ValueEnum)]
#[value(rename_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub(crate) enum Field {
    Ip,
    DeviceId,
}

/// Where the vault is.
#[derive(Debug, Args)]
pub(crate) struct VaultOptions {
    /// Address to use instead of the stack's output VaultUrl; needs no right to describe the stack
    #[arg(long, value_name = "URL", conflicts_with_all = ["env", "stack"])]
    pub url: Option<Site>,
}

/// Why somebody reveals or erases a value.
#[derive(Debug, Serialize, Args)]
pub(crate) struct Purpose {
    /// Kind of reason; the audit keeps it
    #[arg(long, value_name = "REASON")]
    reason: Reason,
    /// Number of the ticket that says more, such as SEC-1; the audit keeps it
    #[arg(long, value_name = "TICKET")]
    ticket: String,
}

#[derive(Clone, Copy, Debug, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
enum Reason {
    Incident,
    Fraud,
    Legal,
    DataSubject,
    Support,
    Test,
}

/// The vault.
#[derive(Debug)]
pub(crate) struct Vault {
    api: SignedApi,
}

/// An error of the vault, as RFC 9457 describes it. Its texts never repeat what was sent.
#[derive(Deserialize)]
struct Problem {
    #[serde(rename = "type")]
    kind: String,
    title: String,
    detail: Option<String>,
    audit_entry: Option<i64>,
}

impl Field {
    /// Says that a value of this field is to be typed.
    pub(crate) fn value(self) -> &'static str {
        match self {
            Self::Ip => "an address",
            Self::DeviceId => "a device id",
        }
    }
}

impl Vault {
    /// Finds the vault of a stack.
    ///
    /// # Errors
    ///
    /// [`Error::Forbidden`] if the caller may not look for it, and as [`SignedApi::find`].
    pub(crate) async fn find(options: &StackOptions, vault: VaultOptions) -> Result<Self, Error> {
        let absent = "no vault: deploy it with the parameter Vault=true";
        let api = SignedApi::find(options, vault.url, "VaultUrl", absent).await;
        let api = api.map_err(|error| match error {
            Error::Denied(text) => Error::Forbidden(text),
            other => other,
        })?;
        Ok(Self { api })
    }

    /// Sends a request and reads the answer.
    ///
    /// # Errors
    ///
    /// The variant says which status the vault answered with, or [`Error::Failed`].
    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        path: &'static str,
        body: &impl Serialize,
    ) -> Result<T, Error> {
        let body = serde_json::to_vec(body)
            .map_err(|_| Error::Failed("the request cannot be written as JSON".to_owned()))?;
        let answer = self.send(path, &body).await?;
        if answer.status == StatusCode::OK {
            // The parser's error is dropped: it may quote a value.
            return serde_json::from_slice(&answer.body).map_err(|_| {
                Error::Failed(
                    "the vault gave an unexpected answer; use the program of its version".to_owned(),
                )
            });
        }
        Err(refusal(answer.status, serde_json::from_slice(&answer.body).ok()))
    }

    async fn send(&self, path: &'static str, body: &[u8]) -> Result<Answer, Error> {
        for _ in 1..ATTEMPTS {
            let answer = self.send_once(path, body).await?;
            if answer.status != StatusCode::TOO_MANY_REQUESTS {
                return Ok(answer);
            }
            sleep(PAUSE).await;
        }
        self.send_once(path, body).await
    }

    async fn send_once(&self, path: &'static str, body: &[u8]) -> Result<Answer, Error> {
        let (method, body) = ("POST", body.to_vec().into());
        let request = UnsignedRequest { method, path, query: None, headers: &HEADERS, body };
        let answer = timeout(TIME_LIMIT, self.api.send(request)).await;
        let answer = answer.map_err(|_| Error::Failed("the vault did not answer in time".to_owned()))?;
        answer.map_err(|reason| match reason {
            NoAnswer::Denied(_) => Error::Forbidden(reason.to_string()),
            NoAnswer::Unreachable(causes) => Error::Failed(format!("no answer from the vault: {causes}")),
            _ => Error::Failed(reason.to_string()),
        })
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.title)?;
        if let Some(detail) = &self.detail {
            write!(f, ": {detail}")?;
        }
        if let Some(entry) = self.audit_entry {
            write!(f, " (audit entry {entry})")?;
        }
        Ok(())
    }
}

fn refusal(status: StatusCode, problem: Option<Problem>) -> Error {
    let text = match &problem {
        Some(problem) => problem.to_string(),
        None => format!("the vault answered with the status {}", status.as_u16()),
    };
    let is_of_a_token = problem.is_some_and(|problem| problem.kind == "urn:login-etl:unknown-token");
    match status {
        StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE => Error::Usage(text),
        StatusCode::FORBIDDEN => Error::Forbidden(text),
        StatusCode::NOT_FOUND if is_of_a_token => Error::Unknown(text),
        StatusCode::GONE => Error::Erased(text),
        _ => Error::Failed(text),
    }
}

/// Returns the token that a text is.
///
/// # Errors
///
/// [`Error::Usage`], which does not repeat the text: it may be the value.
pub(crate) fn parse_token(text: &str) -> Result<&str, Error> {
    let is_digit = |digit: u8| matches!(digit, b'0'..=b'9' | b'a'..=b'f');
    if text.len() == 64 && text.bytes().all(is_digit) {
        return Ok(text);
    }
    Err(Error::Usage("TOKEN is not a token, which has 64 lowercase hexadecimal digits".to_owned()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const TOKEN: &str = "fadc60fe27578c94ae3481d3cf8f232ae63d3e3880d9c5ac1a481ef6ea51a5a3";

    fn refused(status: u16, kind: &str) -> Error {
        let problem = json!({ "type": kind, "title": "Title", "detail": "detail", "audit_entry": 7 });
        let problem = serde_json::from_value(problem).unwrap();
        refusal(StatusCode::from_u16(status).unwrap(), Some(problem))
    }

    #[test]
    fn statuses_become_exit_statuses() {
        let text = "Title: detail (audit entry 7)".to_owned();
        for (status, kind, expected) in [
            (400, "urn:login-etl:bad-request", Error::Usage(text.clone())),
            (403, "urn:login-etl:unidentified-caller", Error::Forbidden(text.clone())),
            (404, "urn:login-etl:unknown-token", Error::Unknown(text.clone())),
            (404, "urn:login-etl:not-found", Error::Failed(text.clone())),
            (410, "urn:login-etl:erased", Error::Erased(text.clone())),
            (503, "urn:login-etl:kms-unavailable", Error::Failed(text.clone())),
        ] {
            let error = refused(status, kind);

            assert_eq!(error.to_string(), expected.to_string());
            assert_eq!(error.exit_code(), expected.exit_code(), "{status} {kind}");
        }
    }

    #[test]
    fn answers_without_problem_show_the_status() {
        let error = refusal(StatusCode::NOT_FOUND, None);

        assert_eq!(error.to_string(), "the vault answered with the status 404");
        assert_eq!(error.exit_code(), Error::Failed(String::new()).exit_code());
    }

    #[test]
    fn other_texts_are_no_tokens_and_not_repeated() {
        assert_eq!(parse_token(TOKEN).unwrap(), TOKEN);
        for text in ["203.0.113.7", "", &TOKEN[1..], &TOKEN.to_uppercase(), &format!("{TOKEN} ")] {
            let error = parse_token(text).unwrap_err().to_string();

            assert_eq!(error, "TOKEN is not a token, which has 64 lowercase hexadecimal digits");
        }
    }
}
