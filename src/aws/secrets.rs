//! What is asked of AWS: the salt and the database credentials, from Secrets Manager, and what a token
//! for the database is signed with.

use std::error::Error;
use std::fmt;
use std::time::{Duration, SystemTime};

use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, SdkConfig};
use aws_sdk_secretsmanager::Client;
use aws_sdk_secretsmanager::config::ProvideCredentials;
use aws_sdk_secretsmanager::error::{ProvideErrorMetadata, SdkError};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::Value;

use crate::aws::rds_auth_token;
use crate::config::{DATABASE_AUTHENTICATION, IamLogin, SALT_SECRET_ID};

/// One try, and all of them: a cold start has [10 seconds][init] before Lambda starts it over.
///
/// [init]: https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtime-environment.html#runtimes-lifecycle-ib
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(3);
const OPERATION_TIMEOUT: Duration = Duration::from_secs(8);

/// A client of Secrets Manager, and whom it is for.
#[derive(Clone)]
pub struct Secrets {
    client: Client,
    /// Holds the credentials' provider and the region.
    sdk: SdkConfig,
}

/// The database's credentials, and its address as far as the secret has it: the [JSON that RDS
/// keeps][rds].
///
/// [rds]: https://docs.aws.amazon.com/secretsmanager/latest/userguide/reference_secret_json_structure.html
#[derive(Debug, Deserialize)]
pub struct Credentials {
    /// Whom to log in as.
    pub username: String,
    /// The password.
    #[serde(deserialize_with = "secret_string")]
    pub password: SecretString,
    /// The host's name.
    pub host: Option<String>,
    /// The port: a number, or the digits of one.
    #[serde(default, deserialize_with = "port")]
    pub port: Option<u16>,
    /// The database's name.
    pub dbname: Option<String>,
}

/// Why a secret is of no use. It names the setting that names the secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// Secrets Manager refused, or could not be asked.
    #[error("{setting}: Secrets Manager did not give the secret: {cause}")]
    Unavailable {
        /// The setting.
        setting: &'static str,
        /// Why. Nothing of a secret is in it, since none was given.
        cause: String,
    },
    /// The secret is not what the setting is for.
    #[error("{setting}: {problem}")]
    WrongShape {
        /// The setting.
        setting: &'static str,
        /// What is wrong, in words that hold nothing of the secret.
        problem: &'static str,
    },
    /// There is nothing to sign a token for the database with.
    #[error("{DATABASE_AUTHENTICATION}: no token can be signed: {cause}")]
    NoToken {
        /// Why.
        cause: String,
    },
}

impl Secrets {
    /// Makes a client from the AWS SDK's own variables.
    pub async fn from_env() -> Self {
        let timeouts = TimeoutConfig::builder()
            .operation_attempt_timeout(ATTEMPT_TIMEOUT)
            .operation_timeout(OPERATION_TIMEOUT)
            .build();
        let config = aws_config::defaults(BehaviorVersion::latest()).timeout_config(timeouts);
        let sdk = config.load().await;
        Self { client: Client::new(&sdk), sdk }
    }

    /// Fetches the salt: the secret's text, or the value of the key `salt` if that text is a JSON
    /// object.
    ///
    /// # Errors
    ///
    /// [`SecretError`], naming `SALT_SECRET_ID`.
    pub async fn salt(&self, id: &str) -> Result<SecretString, SecretError> {
        let text = self.text(SALT_SECRET_ID, id).await?;
        match serde_json::from_str(text.expose_secret()) {
            Ok(Value::Object(mut object)) => match object.remove("salt") {
                Some(Value::String(salt)) => Ok(salt.into()),
                _ => Err(SecretError::WrongShape {
                    setting: SALT_SECRET_ID,
                    problem: "the secret is a JSON object without a text under the key salt",
                }),
            },
            _ => Ok(text),
        }
    }

    /// Fetches credentials of the database, from the secret that this setting names.
    ///
    /// # Errors
    ///
    /// [`SecretError`], naming the setting.
    pub async fn credentials(&self, setting: &'static str, id: &str) -> Result<Credentials, SecretError> {
        let text = self.text(setting, id).await?;
        // The parser's error would quote what it refuses.
        serde_json::from_str(text.expose_secret()).map_err(|_| SecretError::WrongShape {
            setting,
            problem: "the secret is not a JSON object with username, password and, where it has them, \
                      host, port and dbname",
        })
    }

    /// Signs a token that lets this user in for as long as [`rds_auth_token::VALIDITY`], with the credentials and
    /// in the region of the AWS SDK.
    ///
    /// # Errors
    ///
    /// [`SecretError::NoToken`].
    pub async fn token(&self, login: &IamLogin) -> Result<SecretString, SecretError> {
        let none = |cause: &str| SecretError::NoToken { cause: cause.to_owned() };
        let region = self.sdk.region().ok_or_else(|| none("the AWS SDK finds no region"))?;
        let provider =
            self.sdk.credentials_provider().ok_or_else(|| none("the AWS SDK finds no credentials"))?;
        let credentials = Box::pin(provider.provide_credentials()).await;
        let credentials = credentials.map_err(|error| SecretError::NoToken { cause: causes(&error) })?;
        rds_auth_token::token(credentials, region.as_ref(), login, SystemTime::now())
            .map_err(|error| none(&error.to_string()))
    }

    async fn text(&self, setting: &'static str, id: &str) -> Result<SecretString, SecretError> {
        // Boxed, since the SDK's future is tens of kilobytes large.
        let answer = Box::pin(self.client.get_secret_value().secret_id(id).send()).await;
        let answer = answer.map_err(|error| SecretError::Unavailable { setting, cause: cause(&error) })?;
        answer
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

/// What went wrong, as far as it is known: the service's own words, or the way to it.
fn cause<E: ProvideErrorMetadata + Error + 'static>(error: &SdkError<E>) -> String {
    if let Some(refusal) = error.as_service_error() {
        let code = refusal.code().unwrap_or("an error without a code");
        return match refusal.message() {
            Some(message) => format!("{code}: {message}"),
            None => code.to_owned(),
        };
    }
    causes(error)
}

/// An error's own words and those of what caused it.
fn causes(error: &(dyn Error + 'static)) -> String {
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

fn port<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<u16>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Port {
        Number(u16),
        Digits(String),
    }
    match Option::deserialize(deserializer)? {
        None => Ok(None),
        Some(Port::Number(port)) => Ok(Some(port)),
        Some(Port::Digits(digits)) => digits.parse().map(Some).map_err(serde::de::Error::custom),
    }
}
