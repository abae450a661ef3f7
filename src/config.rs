//! The settings, read once from environment variables. Errors name the variable, never its value.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

pub use self::database_url::UrlError;
pub(crate) use self::host::{DEFAULT_PORT, HostProblem};

mod database_url;
mod host;

/// The name or ARN of the salt's secret.
pub const SALT_SECRET_ID: &str = "SALT_SECRET_ID";
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
/// A PEM file of certificates to trust in addition to the system's.
pub const DATABASE_CA_BUNDLE: &str = "DATABASE_CA_BUNDLE";
/// The name or ARN of the secret with the password that `migrate` sets for `login_writer`.
pub const WRITER_SECRET_ID: &str = "WRITER_SECRET_ID";
/// The name or ARN of the secret with the password that `migrate` sets for `login_analyst`.
pub const READER_SECRET_ID: &str = "READER_SECRET_ID";
/// How `login_writer` may log in after `migrate`: with a `password`, or by `iam`.
pub const WRITER_AUTHENTICATION: &str = "WRITER_AUTHENTICATION";

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
    /// The database.
    pub database: DatabaseSettings,
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
    /// A PEM bundle to trust in addition to the system's certificates.
    pub ca_bundle: Option<PathBuf>,
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
        let source = match authentication(environment, DATABASE_AUTHENTICATION)? {
            Some(Authentication::Iam) => DatabaseSource::Iam(IamSettings::read(environment)?),
            Some(Authentication::Password) | None => DatabaseSource::with_password(environment)?,
        };
        let schema = environment(DATABASE_SCHEMA).as_deref().map_or(DEFAULT_SCHEMA, str::trim).to_owned();
        Ok(Self { source, schema, ca_bundle: environment(DATABASE_CA_BUNDLE).map(PathBuf::from) })
    }
}

impl DatabaseSource {
    fn with_password(environment: impl Fn(&'static str) -> Option<String>) -> Result<Self, SettingError> {
        if environment(DATABASE_USER).is_some() {
            let problem = "is set, but without DATABASE_AUTHENTICATION=iam the user comes with the password";
            return Err(SettingError::Invalid { variable: DATABASE_USER, problem });
        }
        match (environment(DATABASE_URL), environment(DATABASE_SECRET_ID)) {
            (None, None) => Err(SettingError::MissingBoth(DATABASE_SECRET_ID, DATABASE_URL)),
            (Some(_), Some(_)) => Err(SettingError::Conflict(DATABASE_SECRET_ID, DATABASE_URL)),
            (Some(url), None) => Ok(Self::Url(Box::new(with_defaults(database_url::parse(&url)?)))),
            (None, Some(id)) => Ok(Self::Secret(SecretSettings {
                id,
                host: host(&environment)?,
                port: port(&environment)?,
                name: environment(DATABASE_NAME),
            })),
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
