//! Settings, read once from the environment. Errors name the variable, never its value.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use tokio_postgres::config::SslMode;

use crate::aws::secrets::SecretError;
use login::pii::ShortSalt;

/// Names the salt's secret.
pub const SALT_SECRET_ID: &str = "SALT_SECRET_ID";
/// Names the secret with the database's credentials.
pub const DATABASE_SECRET_ID: &str = "DATABASE_SECRET_ID";
/// How to log in to the database: with a `password`, which is the default, or by `iam`.
pub const DATABASE_AUTHENTICATION: &str = "DATABASE_AUTHENTICATION";
/// The database's host, where the secret does not say or says otherwise.
pub const DATABASE_HOST: &str = "DATABASE_HOST";
/// The database's port, likewise.
pub const DATABASE_PORT: &str = "DATABASE_PORT";
/// The database's name, likewise.
pub const DATABASE_NAME: &str = "DATABASE_NAME";
/// Whom to log in as by IAM; a password's user is where the password is.
pub const DATABASE_USER: &str = "DATABASE_USER";
/// Says all of it in one libpq URL instead.
pub const DATABASE_URL: &str = "DATABASE_URL";
/// A file with certificates to trust beside the system's.
pub const DATABASE_CA_BUNDLE: &str = "DATABASE_CA_BUNDLE";
/// Names the secret with the credentials that `migrate` gives to `login_writer`.
pub const WRITER_SECRET_ID: &str = "WRITER_SECRET_ID";
/// How `migrate` has `login_writer` log in: with a `password`, or by `iam`.
pub const WRITER_AUTHENTICATION: &str = "WRITER_AUTHENTICATION";

/// Where the X-Ray daemon is, an address and a port; Lambda sets it where tracing is on.
pub const AWS_XRAY_DAEMON_ADDRESS: &str = "AWS_XRAY_DAEMON_ADDRESS";

/// Postgres's port where no other is said.
pub(crate) const DEFAULT_PORT: u16 = 5432;

/// How long one address of the database may take to answer, unless the URL says otherwise.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The settings of the ingest function.
#[derive(Debug)]
pub struct Settings {
    /// The name or ARN of the salt's secret.
    pub salt_secret_id: String,
    /// Where the database is.
    pub database: DatabaseSettings,
    /// Where traces are sent; nowhere if it is not set.
    pub xray_daemon: Option<String>,
}

/// Where the database is, and what its certificate is verified with.
#[derive(Debug)]
pub struct DatabaseSettings {
    /// The address and the credentials, or where they are kept.
    pub source: DatabaseSource,
    /// A PEM bundle to trust beside the system's certificates.
    pub ca_bundle: Option<PathBuf>,
}

/// Where the database's address and credentials come from.
pub enum DatabaseSource {
    /// From `DATABASE_URL`.
    Url(Box<tokio_postgres::Config>),
    /// From a secret, of which the environment may override parts.
    Secret {
        /// The secret's name or ARN.
        id: String,
        /// Instead of the secret's `host`.
        host: Option<String>,
        /// Instead of the secret's `port`.
        port: Option<u16>,
        /// Instead of the secret's `dbname`.
        name: Option<String>,
    },
    /// From the environment, with a token for each connection in place of a password.
    Iam(IamLogin),
}

/// Who logs in by IAM, and where.
pub struct IamLogin {
    /// The host, by the name that RDS gave it: the token is for this name.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The database's name.
    pub name: String,
    /// Whom to log in as.
    pub user: String,
}

/// How `migrate` has `login_writer` log in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WriterLogin {
    /// As it did before.
    Unchanged,
    /// With a password.
    Password {
        /// The name or ARN of the secret that holds it.
        secret_id: String,
    },
    /// By IAM.
    Iam,
}

/// A variable that is missing or wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingError {
    /// It is not set, or set to nothing.
    #[error("{0} is not set")]
    Missing(&'static str),
    /// Neither of two is set.
    #[error("neither {0} nor {1} is set")]
    MissingBoth(&'static str, &'static str),
    /// Two are set that exclude each other.
    #[error("{0} and {1} are both set, and which one is meant is a guess")]
    Conflict(&'static str, &'static str),
    /// It is set to something of no use.
    #[error("{variable} {problem}")]
    Invalid {
        /// The variable.
        variable: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
}

/// Why the process cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A setting is missing or wrong.
    #[error(transparent)]
    Setting(#[from] SettingError),
    /// A secret cannot be had, or is not what it should be.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The salt does not protect what it masks.
    #[error("{SALT_SECRET_ID}: {0}")]
    Salt(#[from] ShortSalt),
}

impl Settings {
    /// Reads the settings with `variable`, which gives the value of an environment variable.
    ///
    /// # Errors
    ///
    /// The first setting that is missing or wrong.
    pub fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Self, SettingError> {
        let salt_secret_id = variable(SALT_SECRET_ID).filter(is_set);
        Ok(Self {
            salt_secret_id: salt_secret_id.ok_or(SettingError::Missing(SALT_SECRET_ID))?,
            xray_daemon: variable(AWS_XRAY_DAEMON_ADDRESS).filter(is_set),
            database: DatabaseSettings::read(variable)?,
        })
    }
}

impl DatabaseSettings {
    /// Reads the database's part of the settings, which is all that `migrate` needs.
    ///
    /// # Errors
    ///
    /// The first setting that is missing or wrong.
    pub fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Self, SettingError> {
        let variable = |name| variable(name).filter(is_set);
        let source = match authentication(variable, DATABASE_AUTHENTICATION)? {
            Some(Authentication::Iam) => DatabaseSource::Iam(IamLogin::read(variable)?),
            Some(Authentication::Password) | None => DatabaseSource::with_password(variable)?,
        };
        Ok(Self { source, ca_bundle: variable(DATABASE_CA_BUNDLE).map(PathBuf::from) })
    }
}

impl DatabaseSource {
    fn with_password(variable: impl Fn(&'static str) -> Option<String>) -> Result<Self, SettingError> {
        if variable(DATABASE_USER).is_some() {
            let problem = "is set, and without DATABASE_AUTHENTICATION=iam the user is where the password is";
            return Err(SettingError::Invalid { variable: DATABASE_USER, problem });
        }
        match (variable(DATABASE_URL), variable(DATABASE_SECRET_ID)) {
            (None, None) => Err(SettingError::MissingBoth(DATABASE_SECRET_ID, DATABASE_URL)),
            (Some(_), Some(_)) => Err(SettingError::Conflict(DATABASE_SECRET_ID, DATABASE_URL)),
            (Some(url), None) => Ok(Self::Url(Box::new(parse_url(&url)?))),
            (None, Some(id)) => Ok(Self::Secret {
                id,
                host: variable(DATABASE_HOST),
                port: port(&variable)?,
                name: variable(DATABASE_NAME),
            }),
        }
    }
}

impl IamLogin {
    fn read(variable: impl Fn(&'static str) -> Option<String>) -> Result<Self, SettingError> {
        if let Some(set) =
            [DATABASE_URL, DATABASE_SECRET_ID].into_iter().find(|name| variable(name).is_some())
        {
            let problem = "is set, and DATABASE_AUTHENTICATION=iam takes no password";
            return Err(SettingError::Invalid { variable: set, problem });
        }
        let required = |name| variable(name).ok_or(SettingError::Missing(name));
        Ok(Self {
            host: required(DATABASE_HOST)?,
            port: port(&variable)?.unwrap_or(DEFAULT_PORT),
            name: required(DATABASE_NAME)?,
            user: required(DATABASE_USER)?,
        })
    }
}

impl WriterLogin {
    /// Reads how the writer is to log in.
    ///
    /// # Errors
    ///
    /// The setting that is missing or wrong.
    pub fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Self, SettingError> {
        let variable = |name| variable(name).filter(is_set);
        match (authentication(variable, WRITER_AUTHENTICATION)?, variable(WRITER_SECRET_ID)) {
            (Some(Authentication::Iam), None) => Ok(Self::Iam),
            (Some(Authentication::Iam), Some(_)) => Err(SettingError::Invalid {
                variable: WRITER_SECRET_ID,
                problem: "is set, and WRITER_AUTHENTICATION=iam takes no password",
            }),
            (_, Some(secret_id)) => Ok(Self::Password { secret_id }),
            (Some(Authentication::Password), None) => Err(SettingError::Missing(WRITER_SECRET_ID)),
            (None, None) => Ok(Self::Unchanged),
        }
    }
}

impl fmt::Debug for IamLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IamLogin").finish_non_exhaustive()
    }
}

impl fmt::Debug for DatabaseSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Url(_) => "Url",
            Self::Secret { .. } => "Secret",
            Self::Iam(_) => "Iam",
        })
    }
}

/// Gives a connection the timeouts that every one of ours has.
pub(crate) fn with_timeouts(mut config: tokio_postgres::Config) -> tokio_postgres::Config {
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(CONNECT_TIMEOUT);
    }
    if config.get_application_name().is_none() {
        config.application_name("login-etl");
    }
    config
}

/// Whether a variable is set to something: what a template leaves empty is not set.
#[must_use]
#[expect(clippy::ptr_arg, reason = "`Option<String>::filter` gives a `&String`")]
pub fn is_set(value: &String) -> bool {
    !value.trim().is_empty()
}

/// How somebody logs in.
enum Authentication {
    Password,
    Iam,
}

fn authentication(
    variable: impl Fn(&'static str) -> Option<String>,
    setting: &'static str,
) -> Result<Option<Authentication>, SettingError> {
    match variable(setting).as_deref().map(str::trim) {
        None => Ok(None),
        Some("password") => Ok(Some(Authentication::Password)),
        Some("iam") => Ok(Some(Authentication::Iam)),
        Some(_) => Err(SettingError::Invalid { variable: setting, problem: "is neither password nor iam" }),
    }
}

fn port(variable: impl Fn(&'static str) -> Option<String>) -> Result<Option<u16>, SettingError> {
    let parse = |port: String| port.trim().parse();
    let invalid = |_| SettingError::Invalid { variable: DATABASE_PORT, problem: "is not a port number" };
    variable(DATABASE_PORT).map(parse).transpose().map_err(invalid)
}

/// Parses a libpq URL. The client knows fewer of [libpq's `sslmode`s][modes] than there are, so that
/// parameter is taken out and read here: `disable` is what it says, and every other mode, as well as
/// none, is encrypted and verified.
///
/// [modes]: https://www.postgresql.org/docs/current/libpq-ssl.html#LIBPQ-SSL-PROTECTION
fn parse_url(url: &str) -> Result<tokio_postgres::Config, SettingError> {
    let invalid = |problem| SettingError::Invalid { variable: DATABASE_URL, problem };
    if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
        return Err(invalid("does not start with postgresql://"));
    }
    let (address, query) = url.split_once('?').unwrap_or((url, ""));
    let mut ssl_mode = SslMode::Require;
    let mut parameters = Vec::new();
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        match parameter.split_once('=') {
            Some(("sslmode", "disable")) => ssl_mode = SslMode::Disable,
            Some(("sslmode", "allow" | "prefer" | "require" | "verify-ca" | "verify-full")) => {
                ssl_mode = SslMode::Require;
            }
            Some(("sslmode", _)) => return Err(invalid("has an unknown sslmode")),
            Some(("sslrootcert", _)) => {
                return Err(invalid("has an sslrootcert; set DATABASE_CA_BUNDLE instead"));
            }
            _ => parameters.push(parameter),
        }
    }
    let url = format!("{address}?{}", parameters.join("&"));
    // The parser's error may quote the password.
    let mut config: tokio_postgres::Config =
        url.parse().map_err(|_| invalid("is not a URL that names a Postgres"))?;
    if config.get_hosts().is_empty() {
        return Err(invalid("names no host"));
    }
    config.ssl_mode(ssl_mode);
    Ok(with_timeouts(config))
}
