//! The settings, read once from environment variables. Errors name the variable, never its value.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use login::envelope::ExpectedEnvelopes;

pub use self::auth_method::AuthMethod;
pub use self::database_url::UrlError;
pub(crate) use self::host::{DEFAULT_PORT, HostProblem};
pub use self::vault_key::{NotAVaultKey, VaultPublicKey};

mod auth_method;
mod database_url;
mod host;
mod vault_key;

/// The name or ARN of the salt's secret.
pub const SALT_SECRET_ID: &str = "SALT_SECRET_ID";
/// The URL of the queue that delivers the logins. With it, hopeless messages soon leave the queue.
pub const QUEUE_URL: &str = "QUEUE_URL";
/// The kinds of envelope that are unwrapped: a list, or `none`.
pub const EXPECTED_ENVELOPES: &str = "EXPECTED_ENVELOPES";
/// The name or ARN of the secret with the database's credentials.
pub const DATABASE_SECRET_ID: &str = "DATABASE_SECRET_ID";
/// How to log in to the database: with a `password` (the default), or by `iam`.
pub const DATABASE_AUTHENTICATION: &str = "DATABASE_AUTHENTICATION";
/// The database's host. It overrides the secret.
pub const DATABASE_HOST: &str = "DATABASE_HOST";
/// The database's port. It overrides the secret.
pub const DATABASE_PORT: &str = "DATABASE_PORT";
/// The database's name. It overrides the secret.
pub const DATABASE_NAME: &str = "DATABASE_NAME";
/// The user to log in as by IAM. (With a password, the user is in the secret or the URL.)
pub const DATABASE_USER: &str = "DATABASE_USER";
/// A libpq URL that replaces the settings above.
pub const DATABASE_URL: &str = "DATABASE_URL";
/// The schema of the tables and functions.
pub const DATABASE_SCHEMA: &str = "DATABASE_SCHEMA";
/// A PEM file of certificates to trust in addition to the system's and those of RDS.
pub const DATABASE_CA_BUNDLE: &str = "DATABASE_CA_BUNDLE";
/// Whether to trust only the certificates in the PEM file: `true`, or `false` (the default).
pub const DATABASE_CA_BUNDLE_ONLY: &str = "DATABASE_CA_BUNDLE_ONLY";
/// The name or ARN of the secret with the password that `migrate` sets for `login_writer`.
pub const WRITER_SECRET_ID: &str = "WRITER_SECRET_ID";
/// The name or ARN of the secret with the password that `migrate` sets for `login_analyst`.
pub const READER_SECRET_ID: &str = "READER_SECRET_ID";
/// Whether `migrate` keeps up the analysts' schema: `true`, or `false` (the default).
pub const ANALYSTS: &str = "ANALYSTS";
/// The name or ARN of the secret with the password that `migrate` sets for `login_api`.
pub const API_SECRET_ID: &str = "API_SECRET_ID";
/// Whether `migrate` keeps up the schema of the export: `true`, or `false` (the default).
pub const EXPORT: &str = "EXPORT";
/// The name or ARN of the secret with the password that `migrate` sets for `login_export`.
pub const EXPORT_SECRET_ID: &str = "EXPORT_SECRET_ID";
/// The public key to which masked values are sealed, in base64; without it, the vault is off.
pub const VAULT_PUBLIC_KEY: &str = "VAULT_PUBLIC_KEY";
/// The ARN or id of the KMS key that [`VAULT_PUBLIC_KEY`] belongs to.
pub const VAULT_KMS_KEY: &str = "VAULT_KMS_KEY";
/// The name or ARN of the secret with the password that `migrate` sets for `login_vault`.
pub const VAULT_SECRET_ID: &str = "VAULT_SECRET_ID";
/// The bucket with the erasure list of the vault; without it, a restored backup brings erased values back.
pub const VAULT_ERASURE_BUCKET: &str = "VAULT_ERASURE_BUCKET";
/// After how many days `migrate` drops logins, at least 16; without it, logins stay.
pub const LOGIN_RETENTION_DAYS: &str = "LOGIN_RETENTION_DAYS";
/// How `login_writer` may log in after `migrate`: with a `password`, or by `iam`.
pub const WRITER_AUTHENTICATION: &str = "WRITER_AUTHENTICATION";

/// The AWS SDK's own variable for the address of S3. Emulators have one.
const S3_ENDPOINT: &str = "AWS_ENDPOINT_URL_S3";

/// The log filter: a level, or pairs of a module path and a level. It overrides `AWS_LAMBDA_LOG_LEVEL`.
pub const RUST_LOG: &str = "RUST_LOG";
/// The log level of the function's [logging configuration][controls]: `TRACE` to `FATAL`.
///
/// [controls]: https://docs.aws.amazon.com/lambda/latest/dg/monitoring-cloudwatchlogs-advanced.html
pub const AWS_LAMBDA_LOG_LEVEL: &str = "AWS_LAMBDA_LOG_LEVEL";
/// The log format of the same configuration: `JSON` or `Text`.
pub const AWS_LAMBDA_LOG_FORMAT: &str = "AWS_LAMBDA_LOG_FORMAT";
/// The address and port of the X-Ray daemon. Lambda sets it where tracing is on.
pub const AWS_XRAY_DAEMON_ADDRESS: &str = "AWS_XRAY_DAEMON_ADDRESS";

/// The schema, unless [`DATABASE_SCHEMA`] names another schema.
const DEFAULT_SCHEMA: &str = "public";

/// How long a connection to one address of the database may take, unless the URL sets a timeout.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The settings of the ingest function.
#[derive(Debug)]
pub struct Settings {
    /// The name or ARN of the salt's secret.
    pub salt_secret_id: String,
    /// The URL of the queue that delivers the logins; without it, hopeless messages leave the queue late.
    pub queue_url: Option<String>,
    /// The kinds of envelope that are unwrapped.
    pub expected_envelopes: ExpectedEnvelopes,
    /// The database.
    pub database: DatabaseSettings,
    /// The public key to which masked values are sealed; without it, there is no vault.
    pub vault_public_key: Option<VaultPublicKey>,
    /// The X-Ray daemon; without it no traces are sent.
    pub xray_daemon: Option<String>,
}

/// The database's address and credentials, its schema, and the certificates to trust.
#[derive(Debug)]
pub struct DatabaseSettings {
    /// The address and the credentials, or the secret that holds them.
    pub source: DatabaseSource,
    /// The schema of the tables and functions, as Postgres writes its name without quotes around it.
    pub schema: String,
    /// The methods by which the server may let the program log in. Only a server with TLS is restricted to them.
    pub auth_methods: Vec<AuthMethod>,
    /// Certificates to trust. Without a bundle these are the system's and those of RDS.
    pub ca_bundle: Option<CaBundle>,
}

/// A PEM file of certificates to trust.
#[derive(Debug)]
pub struct CaBundle {
    /// The file.
    pub path: PathBuf,
    /// Whether the system's certificates and those of RDS are not trusted.
    pub only: bool,
}

/// The source of the database's address and credentials.
pub enum DatabaseSource {
    /// `DATABASE_URL`.
    Url(Box<tokio_postgres::Config>),
    /// A secret, parts of which the environment may override.
    Secret(SecretSettings),
    /// The environment, with an IAM token for each connection instead of a password.
    Iam(IamSettings),
}

/// The secret with the database's credentials, and the settings that override it.
pub struct SecretSettings {
    /// The secret's name or ARN.
    pub id: String,
    /// Overrides the secret's `host`.
    pub host: Option<String>,
    /// Overrides the secret's `port`.
    pub port: Option<u16>,
    /// Overrides the secret's `dbname`.
    pub name: Option<String>,
}

/// The address of the database, and the user that logs in with a token.
#[expect(missing_docs, reason = "each is named for its setting")]
pub struct IamSettings {
    /// The name that RDS gave the host: the token is signed for this name.
    pub host: String,
    pub port: u16,
    pub name: String,
    pub user: String,
}

/// How `login_writer` may log in after `migrate`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WriterRoleLogin {
    /// As before.
    Unchanged,
    /// With a password.
    Password {
        /// The name or ARN of the secret with the password.
        secret_id: String,
    },
    /// By IAM.
    Iam,
}

/// A variable that is missing or wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingError {
    /// A variable is not set, or blank.
    #[error("{0} is not set")]
    Missing(&'static str),
    /// Neither of two variables is set.
    #[error("neither {0} nor {1} is set")]
    MissingBoth(&'static str, &'static str),
    /// Two variables are set that exclude each other.
    #[error("{0} and {1} are both set; set only one")]
    Conflict(&'static str, &'static str),
    /// A variable has a value that cannot be used.
    #[error("{variable} {problem}")]
    Invalid {
        /// The variable.
        variable: &'static str,
        /// What is wrong with the value.
        problem: &'static str,
    },
    /// `DATABASE_URL` cannot be used.
    #[error("{DATABASE_URL} {0}")]
    Url(#[from] UrlError),
    /// `VAULT_PUBLIC_KEY` cannot be used.
    #[error("{VAULT_PUBLIC_KEY} {0}")]
    VaultKey(#[from] NotAVaultKey),
}

/// The bucket with the erasure list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErasureBucket {
    /// The name.
    pub name: String,
    /// Replaces the address of S3, and `AWS_ENDPOINT_URL`.
    pub endpoint: Option<String>,
}

/// How a role logs in.
enum Authentication {
    Password,
    Iam,
}

impl Settings {
    /// Reads the settings. `environment` returns the value of an environment variable, if it is set.
    ///
    /// # Errors
    ///
    /// The first setting that is missing or wrong.
    pub fn read(environment: impl Fn(&str) -> Option<String>) -> Result<Self, SettingError> {
        let environment = |name: &str| environment(name).and_then(not_blank);
        let salt_secret_id = environment(SALT_SECRET_ID);
        Ok(Self {
            salt_secret_id: salt_secret_id.ok_or(SettingError::Missing(SALT_SECRET_ID))?,
            queue_url: environment(QUEUE_URL),
            expected_envelopes: expected_envelopes(environment)?,
            vault_public_key: vault_public_key(environment)?,
            xray_daemon: environment(AWS_XRAY_DAEMON_ADDRESS),
            database: DatabaseSettings::read(environment)?,
        })
    }
}

impl DatabaseSettings {
    /// Reads the settings of the database, the only ones that `migrate` needs.
    ///
    /// # Errors
    ///
    /// The first setting that is missing or wrong.
    pub fn read(environment: impl Fn(&str) -> Option<String>) -> Result<Self, SettingError> {
        let environment = |name: &str| environment(name).and_then(not_blank);
        let (source, auth_methods) = match authentication(environment, DATABASE_AUTHENTICATION)? {
            Some(Authentication::Iam) => {
                // A token is sent in clear text. If the user is not in `rds_iam`, RDS requires SCRAM and refuses the
                // token: this refusal explains more than the refusal of a method.
                let methods = vec![AuthMethod::Password, AuthMethod::ScramSha256];
                (DatabaseSource::Iam(IamSettings::read(environment)?), methods)
            }
            Some(Authentication::Password) | None => DatabaseSource::with_password(environment)?,
        };
        let schema = environment(DATABASE_SCHEMA).as_deref().map_or(DEFAULT_SCHEMA, str::trim).to_owned();
        Ok(Self { source, schema, auth_methods, ca_bundle: CaBundle::read(environment)? })
    }
}

impl CaBundle {
    fn read(environment: impl Fn(&'static str) -> Option<String>) -> Result<Option<Self>, SettingError> {
        let only = is_true(&environment, DATABASE_CA_BUNDLE_ONLY)?;
        match environment(DATABASE_CA_BUNDLE) {
            None if only => {
                let problem = "is true, but DATABASE_CA_BUNDLE is not set";
                Err(SettingError::Invalid { variable: DATABASE_CA_BUNDLE_ONLY, problem })
            }
            path => Ok(path.map(|path| Self { path: path.into(), only })),
        }
    }
}

impl DatabaseSource {
    fn with_password(
        environment: impl Fn(&'static str) -> Option<String>,
    ) -> Result<(Self, Vec<AuthMethod>), SettingError> {
        if environment(DATABASE_USER).is_some() {
            let problem = "is set, but without DATABASE_AUTHENTICATION=iam the user comes with the password";
            return Err(SettingError::Invalid { variable: DATABASE_USER, problem });
        }
        match (environment(DATABASE_URL), environment(DATABASE_SECRET_ID)) {
            (None, None) => Err(SettingError::MissingBoth(DATABASE_SECRET_ID, DATABASE_URL)),
            (Some(_), Some(_)) => Err(SettingError::Conflict(DATABASE_SECRET_ID, DATABASE_URL)),
            (Some(url), None) => {
                let (config, auth_methods) = database_url::parse(&url)?;
                Ok((Self::Url(Box::new(with_defaults(config))), auth_methods))
            }
            (None, Some(id)) => {
                let host = host(&environment)?;
                let port = port(&environment)?;
                let secret = SecretSettings { id, host, port, name: environment(DATABASE_NAME) };
                Ok((Self::Secret(secret), vec![AuthMethod::ScramSha256]))
            }
        }
    }
}

impl IamSettings {
    fn read(environment: impl Fn(&'static str) -> Option<String>) -> Result<Self, SettingError> {
        if let Some(set) =
            [DATABASE_URL, DATABASE_SECRET_ID].into_iter().find(|name| environment(name).is_some())
        {
            let problem = "is set, but DATABASE_AUTHENTICATION=iam uses no password";
            return Err(SettingError::Invalid { variable: set, problem });
        }
        let required = |name| environment(name).ok_or(SettingError::Missing(name));
        Ok(Self {
            host: host(&environment)?.ok_or(SettingError::Missing(DATABASE_HOST))?,
            port: port(&environment)?.unwrap_or(DEFAULT_PORT),
            name: required(DATABASE_NAME)?,
            user: required(DATABASE_USER)?,
        })
    }
}

impl WriterRoleLogin {
    /// Reads the settings of the writer's login.
    ///
    /// # Errors
    ///
    /// The setting that is missing or wrong.
    pub fn read(environment: impl Fn(&str) -> Option<String>) -> Result<Self, SettingError> {
        let environment = |name: &str| environment(name).and_then(not_blank);
        match (authentication(environment, WRITER_AUTHENTICATION)?, environment(WRITER_SECRET_ID)) {
            (Some(Authentication::Iam), None) => Ok(Self::Iam),
            (Some(Authentication::Iam), Some(_)) => Err(SettingError::Invalid {
                variable: WRITER_SECRET_ID,
                problem: "is set, but WRITER_AUTHENTICATION=iam uses no password",
            }),
            (_, Some(secret_id)) => Ok(Self::Password { secret_id }),
            (Some(Authentication::Password), None) => Err(SettingError::Missing(WRITER_SECRET_ID)),
            (None, None) => Ok(Self::Unchanged),
        }
    }
}

/// Returns the name or ARN of the secret that a setting names: [`READER_SECRET_ID`], [`API_SECRET_ID`],
/// [`EXPORT_SECRET_ID`] or [`VAULT_SECRET_ID`]. With `None`, `migrate` sets no password for the role.
pub fn secret_id(environment: impl Fn(&str) -> Option<String>, setting: &str) -> Option<String> {
    environment(setting).and_then(not_blank)
}

/// Whether `migrate` keeps up the analysts' schema.
///
/// # Errors
///
/// [`SettingError::Invalid`] if [`ANALYSTS`] is neither `true` nor `false`.
pub fn analysts(environment: impl Fn(&str) -> Option<String>) -> Result<bool, SettingError> {
    is_true(|name| environment(name).and_then(not_blank), ANALYSTS)
}

/// Whether `migrate` keeps up the schema of the export.
///
/// # Errors
///
/// [`SettingError::Invalid`] if [`EXPORT`] is neither `true` nor `false`.
pub fn export(environment: impl Fn(&str) -> Option<String>) -> Result<bool, SettingError> {
    is_true(|name| environment(name).and_then(not_blank), EXPORT)
}

/// Returns the key in [`VAULT_PUBLIC_KEY`]; `None` if the vault is off.
///
/// # Errors
///
/// [`SettingError::VaultKey`] if the setting is not a public key of the curve P-256.
pub fn vault_public_key(
    environment: impl Fn(&str) -> Option<String>,
) -> Result<Option<VaultPublicKey>, SettingError> {
    Ok(environment(VAULT_PUBLIC_KEY).and_then(not_blank).map(|key| key.parse()).transpose()?)
}

/// Returns the ARN or id in [`VAULT_KMS_KEY`].
///
/// # Errors
///
/// [`SettingError::Missing`].
pub fn vault_kms_key(environment: impl Fn(&str) -> Option<String>) -> Result<String, SettingError> {
    environment(VAULT_KMS_KEY).and_then(not_blank).ok_or(SettingError::Missing(VAULT_KMS_KEY))
}

/// Returns the bucket in [`VAULT_ERASURE_BUCKET`]; `None` if there is no erasure list.
pub fn erasure_bucket(environment: impl Fn(&str) -> Option<String>) -> Option<ErasureBucket> {
    let name = environment(VAULT_ERASURE_BUCKET).and_then(not_blank)?;
    Some(ErasureBucket { name, endpoint: environment(S3_ENDPOINT).and_then(not_blank) })
}

/// Returns the number of days in [`LOGIN_RETENTION_DAYS`]; `None` if `migrate` drops no logins.
///
/// SQS delivers messages of the last 14 days. One day later a roll-up is closed and an export is final, and another day
/// is left for both to run.
///
/// # Errors
///
/// [`SettingError::Invalid`] if the setting is no number, or less than 16.
pub fn login_retention_days(
    environment: impl Fn(&str) -> Option<String>,
) -> Result<Option<u16>, SettingError> {
    let Some(text) = environment(LOGIN_RETENTION_DAYS).and_then(not_blank) else { return Ok(None) };
    let problem = "is not a number of days from 16 to 65535";
    let days = text.parse().ok().filter(|days| *days >= 16);
    days.map(Some).ok_or(SettingError::Invalid { variable: LOGIN_RETENTION_DAYS, problem })
}

/// Sets the connect timeout and the application name, where the URL does not.
pub(crate) fn with_defaults(mut config: tokio_postgres::Config) -> tokio_postgres::Config {
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(CONNECT_TIMEOUT);
    }
    if config.get_application_name().is_none() {
        config.application_name("login-etl");
    }
    config
}

/// Returns a variable's value without the blanks and line breaks around it, or `None` if nothing is left: a
/// template leaves unused variables empty.
#[expect(clippy::needless_pass_by_value, reason = "`Option<String>::and_then` passes a `String`")]
pub(crate) fn not_blank(value: String) -> Option<String> {
    let value = value.trim();
    (!value.is_empty()).then(|| value.to_owned())
}

impl fmt::Debug for SecretSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretSettings").finish_non_exhaustive()
    }
}

impl fmt::Debug for IamSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IamSettings").finish_non_exhaustive()
    }
}

impl fmt::Debug for DatabaseSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Url(_) => "Url",
            Self::Secret(_) => "Secret",
            Self::Iam(_) => "Iam",
        })
    }
}

fn expected_envelopes(
    environment: impl Fn(&'static str) -> Option<String>,
) -> Result<ExpectedEnvelopes, SettingError> {
    let problem = "is neither none nor a list of sns, eventbridge, sqs and http";
    let invalid = SettingError::Invalid { variable: EXPECTED_ENVELOPES, problem };
    environment(EXPECTED_ENVELOPES)
        .map_or(Ok(ExpectedEnvelopes::default()), |list| list.parse().map_err(|_| invalid))
}

fn authentication(
    environment: impl Fn(&'static str) -> Option<String>,
    setting: &'static str,
) -> Result<Option<Authentication>, SettingError> {
    match environment(setting).as_deref() {
        None => Ok(None),
        Some("password") => Ok(Some(Authentication::Password)),
        Some("iam") => Ok(Some(Authentication::Iam)),
        Some(_) => Err(SettingError::Invalid { variable: setting, problem: "is neither password nor iam" }),
    }
}

fn is_true(
    environment: impl Fn(&'static str) -> Option<String>,
    setting: &'static str,
) -> Result<bool, SettingError> {
    match environment(setting).as_deref() {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(_) => Err(SettingError::Invalid { variable: setting, problem: "is neither true nor false" }),
    }
}

fn host(environment: impl Fn(&'static str) -> Option<String>) -> Result<Option<String>, SettingError> {
    let Some(host) = environment(DATABASE_HOST) else { return Ok(None) };
    let problem = match HostProblem::find(&host) {
        None => return Ok(Some(host)),
        Some(HostProblem::Port) => "contains a port; set DATABASE_PORT instead",
        Some(HostProblem::Url) => "is a URL; set it to the name of the host in it",
        Some(HostProblem::UnixSocket) => "is a Unix socket, which has no TLS; use DATABASE_URL",
        Some(HostProblem::NotAHost) => "is not the name or the address of a host",
    };
    Err(SettingError::Invalid { variable: DATABASE_HOST, problem })
}

fn port(environment: impl Fn(&'static str) -> Option<String>) -> Result<Option<u16>, SettingError> {
    let Some(port) = environment(DATABASE_PORT) else { return Ok(None) };
    let number = port.parse().ok().filter(|number| *number != 0);
    number.map(Some).ok_or(SettingError::Invalid { variable: DATABASE_PORT, problem: "is not a port number" })
}
