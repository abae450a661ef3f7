//! Fetches the salt and the database's credentials from Secrets Manager, and signs IAM tokens for the
//! database with the AWS SDK's own credentials.

use std::error::Error;
use std::fmt;
use std::time::{Duration, SystemTime};

use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, SdkConfig};
use aws_sdk_secretsmanager::Client;
use aws_sdk_secretsmanager::config::ProvideCredentials;
use aws_sdk_secretsmanager::error::{ProvideErrorMetadata, SdkError};
use login::pii::Salts;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::Value;

use crate::aws::rds_auth_token;
use crate::config::{DATABASE_AUTHENTICATION, IamSettings, SALT_SECRET_ID};

/// Time limit of one attempt to fetch a secret.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(3);
/// Time limit of all attempts: Lambda ends a cold start after [10 seconds][init].
///
/// [init]: https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtime-environment.html#runtimes-lifecycle-ib
const OPERATION_TIMEOUT: Duration = Duration::from_secs(8);

/// The [labels] of the versions of a secret: Secrets Manager moves them when the secret changes.
///
/// [labels]: https://docs.aws.amazon.com/secretsmanager/latest/userguide/whats-in-a-secret.html#term_version
const CURRENT: &str = "AWSCURRENT";
const PREVIOUS: &str = "AWSPREVIOUS";

/// A client of Secrets Manager, with the AWS credentials.
#[derive(Clone)]
pub struct Secrets {
    client: Client,
    /// The credentials' provider and the region, to sign tokens.
    sdk: SdkConfig,
}

/// The database's credentials, and those parts of its address that the secret holds: the [JSON that RDS
/// keeps][rds].
///
/// [rds]: https://docs.aws.amazon.com/secretsmanager/latest/userguide/reference_secret_json_structure.html
#[derive(Debug, Deserialize)]
#[expect(missing_docs, reason = "each is named for its key")]
pub struct DatabaseCredentials {
    pub username: String,
    #[serde(deserialize_with = "secret_string")]
    pub password: SecretString,
    pub host: Option<String>,
    /// A JSON number, or a string of digits.
    pub port: Option<Value>,
    pub dbname: Option<String>,
}

/// Why a secret cannot be used. The text names the setting that names the secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// Secrets Manager refused, or is out of reach.
    #[error("{setting}: Secrets Manager did not return the secret: {cause}")]
    Unavailable {
        /// Names the secret.
        setting: &'static str,
        /// Why. It holds no secret, because none was returned.
        cause: String,
    },
    /// The secret has the wrong shape for its setting.
    #[error("{setting}: {problem}")]
    WrongShape {
        /// Names the secret.
        setting: &'static str,
        /// What is wrong. It holds nothing of the secret.
        problem: &'static str,
    },
    /// No token for the database can be signed.
    #[error("{DATABASE_AUTHENTICATION}: no token can be signed: {cause}")]
    NoToken {
        /// Why.
        cause: String,
    },
}

impl Secrets {
    /// Makes a client from the AWS SDK's own environment variables.
    pub async fn from_env() -> Self {
        let timeouts = TimeoutConfig::builder()
            .operation_attempt_timeout(ATTEMPT_TIMEOUT)
            .operation_timeout(OPERATION_TIMEOUT)
            .build();
        let config = aws_config::defaults(BehaviorVersion::latest()).timeout_config(timeouts);
        let sdk = config.load().await;
        Self { client: Client::new(&sdk), sdk }
    }

    /// Returns the configuration of the SDK, for the clients of other services.
    #[must_use]
    pub fn sdk_config(&self) -> &SdkConfig {
        &self.sdk
    }

    /// Fetches the salts: the secret's text or, if that text is a JSON object, the value of its key `salt` and those of
    /// the list `later_salts`, if there is one.
    ///
    /// # Errors
    ///
    /// [`SecretError`], naming `SALT_SECRET_ID`.
    pub async fn salts(&self, id: &str) -> Result<Salts, SecretError> {
        let text = self.fetch(SALT_SECRET_ID, id, CURRENT).await?;
        let wrong_shape = |problem| SecretError::WrongShape { setting: SALT_SECRET_ID, problem };
        match serde_json::from_str(text.expose_secret()) {
            Ok(Value::Object(mut object)) => {
                let Some(Value::String(salt)) = object.remove("salt") else {
                    return Err(wrong_shape(
                        "the secret is a JSON object whose key salt is missing or not a string",
                    ));
                };
                let later = match object.remove("later_salts") {
                    None | Some(Value::Null) => Some(Vec::new()),
                    Some(Value::Array(salts)) => salts.into_iter().map(salt_text).collect(),
                    Some(_) => None,
                };
                let not_texts = "the secret is a JSON object whose key later_salts is not a list of strings";
                Ok(Salts::new(salt.into(), later.ok_or(wrong_shape(not_texts))?))
            }
            _ if is_braced(text.expose_secret()) => {
                Err(wrong_shape("the secret is in braces, but is not valid JSON"))
            }
            _ => Ok(Salts::new(text, Vec::new())),
        }
    }

    /// Fetches the database's credentials from the secret `id`, which `setting` names.
    ///
    /// # Errors
    ///
    /// [`SecretError`], naming the setting.
    pub async fn credentials(
        &self,
        setting: &'static str,
        id: &str,
    ) -> Result<DatabaseCredentials, SecretError> {
        self.credentials_at(setting, id, CURRENT).await
    }

    /// Fetches the credentials that the secret had before its last change: a rotation that was interrupted changed the
    /// secret, but not the database.
    ///
    /// # Errors
    ///
    /// [`SecretError`], naming the setting. The secret may never have been changed.
    pub async fn previous_credentials(
        &self,
        setting: &'static str,
        id: &str,
    ) -> Result<DatabaseCredentials, SecretError> {
        self.credentials_at(setting, id, PREVIOUS).await
    }

    async fn credentials_at(
        &self,
        setting: &'static str,
        id: &str,
        stage: &str,
    ) -> Result<DatabaseCredentials, SecretError> {
        let text = self.fetch(setting, id, stage).await?;
        // The parser's error is dropped: it quotes values.
        serde_json::from_str(text.expose_secret()).map_err(|_| SecretError::WrongShape {
            setting,
            problem: "the secret is not a JSON object with username and password, and optionally host, \
                      port and dbname",
        })
    }

    /// Signs a token for this host and user with the credentials and the region of the AWS SDK. The token is
    /// valid for [`rds_auth_token::VALIDITY`].
    ///
    /// # Errors
    ///
    /// [`SecretError::NoToken`].
    pub async fn rds_auth_token(&self, iam: &IamSettings) -> Result<SecretString, SecretError> {
        let no_token = |cause: &str| SecretError::NoToken { cause: cause.to_owned() };
        let region = self.sdk.region().ok_or_else(|| no_token("the AWS SDK finds no region"))?;
        let provider =
            self.sdk.credentials_provider().ok_or_else(|| no_token("the AWS SDK finds no credentials"))?;
        let credentials = Box::pin(provider.provide_credentials()).await;
        let credentials = credentials.map_err(|error| SecretError::NoToken { cause: cause_chain(&error) })?;
        rds_auth_token::sign(credentials, region.as_ref(), iam, SystemTime::now())
            .map_err(|error| no_token(&error.to_string()))
    }

    async fn fetch(&self, setting: &'static str, id: &str, stage: &str) -> Result<SecretString, SecretError> {
        let request = self.client.get_secret_value().secret_id(id).version_stage(stage);
        // Boxed: the SDK's future is tens of kilobytes large.
        let response = Box::pin(request.send()).await;
        let response =
            response.map_err(|error| SecretError::Unavailable { setting, cause: request_failure(&error) })?;
        response
            .secret_string
            .map(SecretString::from)
            .ok_or(SecretError::WrongShape { setting, problem: "the secret is binary, not text" })
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secrets").finish_non_exhaustive()
    }
}

/// Returns why a request failed: the service's own error, or what happened on the way to the service.
pub fn request_failure<E: ProvideErrorMetadata + Error + 'static>(error: &SdkError<E>) -> String {
    if let Some(refusal) = error.as_service_error() {
        let code = refusal.code().unwrap_or("an error without a code");
        return match refusal.message() {
            Some(message) => format!("{code}: {message}"),
            None => code.to_owned(),
        };
    }
    cause_chain(error)
}

/// Joins the texts of an error and its causes.
fn cause_chain(error: &(dyn Error + 'static)) -> String {
    let mut causes = vec![error.to_string()];
    let mut next = error.source();
    while let Some(error) = next {
        causes.push(error.to_string());
        next = error.source();
    }
    causes.dedup();
    causes.join(": ")
}

fn secret_string<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<SecretString, D::Error> {
    String::deserialize(deserializer).map(SecretString::from)
}

fn salt_text(salt: Value) -> Option<SecretString> {
    if let Value::String(salt) = salt { Some(salt.into()) } else { None }
}

/// Returns whether a text was probably meant to be a JSON object: the whole text would be an unexpected salt.
fn is_braced(text: &str) -> bool {
    let text = text.trim_start_matches('\u{feff}').trim();
    text.starts_with('{') && text.ends_with('}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_joined_without_repetition() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot connect")]
        struct Outer(#[source] Middle);
        #[derive(Debug, thiserror::Error)]
        #[error("cannot connect")]
        struct Middle(#[source] Inner);
        #[derive(Debug, thiserror::Error)]
        #[error("connection refused")]
        struct Inner;

        assert_eq!(cause_chain(&Outer(Middle(Inner))), "cannot connect: connection refused");
    }
}
