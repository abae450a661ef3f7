//! Connects to Postgres: credentials, TLS, and one connection in a pool.

use std::fmt;
use std::time::Duration;

use deadpool::managed::{Manager, Metrics, Object, Pool, PoolError, RecycleError, RecycleResult};
use postgres_protocol::escape::escape_identifier;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::Mutex;
use tokio_postgres::config::SslMode;
use tokio_postgres::{Client, Config, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::error::StoreError;
use super::tls::tls_connector;
use crate::aws::secrets::{DatabaseCredentials, SecretError, Secrets};
use crate::config::{
    DATABASE_SECRET_ID, DEFAULT_PORT, DatabaseSettings, DatabaseSource, SecretSettings, SettingError,
    with_defaults,
};
use crate::deadline::{Deadline, DeadlinePassed};

/// The pool's manager: connects, and keeps the credentials that it fetched.
pub struct Connector {
    source: DatabaseSource,
    schema: String,
    secrets: Secrets,
    tls: Tls,
    /// The configuration with the credentials that were fetched last. Unused without a secret.
    fetched: Mutex<Option<Config>>,
}

/// A client, the schema of its statements, and the TLS settings with which they are cancelled.
pub struct Connection {
    client: Client,
    schema: String,
    quoted_schema: String,
    tls: Tls,
}

#[derive(Clone)]
enum Tls {
    Off,
    On(MakeRustlsConnect),
}

impl Connector {
    /// Reads the certificates to trust, and sends nothing yet.
    ///
    /// # Errors
    ///
    /// [`SettingError`] if `DATABASE_CA_BUNDLE` is not a file of certificates.
    pub fn new(settings: DatabaseSettings, secrets: Secrets) -> Result<Self, SettingError> {
        let is_off = matches!(&settings.source, DatabaseSource::Url(config) if config.get_ssl_mode() == SslMode::Disable);
        let tls = if is_off { Tls::Off } else { Tls::On(tls_connector(settings.ca_bundle.as_deref())?) };
        let DatabaseSettings { source, schema, .. } = settings;
        Ok(Self { source, schema, secrets, tls, fetched: Mutex::new(None) })
    }

    /// Returns the configuration of a connection. A secret is fetched only once. An IAM token is new each
    /// time, because it is valid for minutes; a connection outlives its token.
    ///
    /// # Errors
    ///
    /// [`SecretError`] if the credentials are unavailable, or do not say where the database is.
    pub async fn config(&self) -> Result<Config, SecretError> {
        match &self.source {
            DatabaseSource::Url(config) => Ok((**config).clone()),
            DatabaseSource::Iam(iam) => {
                let token = self.secrets.rds_auth_token(iam).await?;
                Ok(with_tls(&iam.host, iam.port, &iam.name, &iam.user, &token))
            }
            DatabaseSource::Secret(secret) => {
                let fetched = self.fetched.lock().await.clone();
                match fetched {
                    Some(config) => Ok(config),
                    None => self.fetch_config(secret).await,
                }
            }
        }
    }

    /// Connects, and spawns the task that drives the connection.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn connect(&self, config: &Config) -> Result<Connection, StoreError> {
        // Boxed: the handshake would make every future that awaits it many kilobytes large.
        let connected = match &self.tls {
            Tls::Off => Box::pin(config.connect(NoTls)).await.map(|(client, connection)| {
                tokio::spawn(connection);
                client
            }),
            Tls::On(tls) => Box::pin(config.connect(tls.clone())).await.map(|(client, connection)| {
                tokio::spawn(connection);
                client
            }),
        };
        Ok(Connection {
            client: connected.map_err(|error| self.connect_error(&error))?,
            schema: self.schema.clone(),
            quoted_schema: escape_identifier(&self.schema),
            tls: self.tls.clone(),
        })
    }

    async fn fetch_config(&self, settings: &SecretSettings) -> Result<Config, SecretError> {
        let secret = self.secrets.credentials(DATABASE_SECRET_ID, &settings.id).await?;
        let config = merge_config(&secret, settings)?;
        *self.fetched.lock().await = Some(config.clone());
        Ok(config)
    }

    /// Converts the client's error. A refused token has other causes than a refused password.
    fn connect_error(&self, error: &tokio_postgres::Error) -> StoreError {
        match (StoreError::from(error), &self.source) {
            (StoreError::LoginRefused { sqlstate, .. }, DatabaseSource::Iam(_)) => {
                StoreError::LoginRefused { sqlstate, by_token: true }
            }
            (other, _) => other,
        }
    }
}

impl Manager for Connector {
    type Type = Connection;
    type Error = StoreError;

    /// Connects. If Postgres refuses the login, the credentials may have been rotated: they are fetched
    /// again, and the login is repeated once.
    async fn create(&self) -> Result<Connection, StoreError> {
        match (self.connect(&self.config().await?).await, &self.source) {
            (Err(StoreError::LoginRefused { .. }), DatabaseSource::Secret(secret)) => {
                self.connect(&self.fetch_config(secret).await?).await
            }
            (outcome, _) => outcome,
        }
    }

    async fn recycle(&self, connection: &mut Connection, _: &Metrics) -> RecycleResult<StoreError> {
        if connection.client.is_closed() {
            return Err(RecycleError::message("the connection is closed"));
        }
        Ok(())
    }
}

impl Connection {
    /// Returns the client, to send statements.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Returns the client, to start transactions.
    #[must_use]
    pub fn client_mut(&mut self) -> &mut Client {
        &mut self.client
    }

    /// Returns the name of the schema whose functions write rows.
    pub(super) fn schema(&self) -> &str {
        &self.schema
    }

    /// Returns this name as statements contain it. They name the schema, so that they do not depend on the
    /// `search_path` of a role, a database or a pooler.
    pub(super) fn quoted_schema(&self) -> &str {
        &self.quoted_schema
    }

    /// Cancels the statement that runs, so that it does not hold its locks while the batch is tried again.
    /// Waits `grace` at most, because Postgres may not respond to the cancellation either.
    pub(super) async fn cancel(&self, grace: Duration) {
        let token = self.client.cancel_token();
        let cancelled = tokio::time::timeout(grace, async {
            match &self.tls {
                Tls::Off => token.cancel_query(NoTls).await,
                Tls::On(tls) => token.cancel_query(tls.clone()).await,
            }
        });
        drop(cancelled.await);
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector").field("source", &self.source).finish_non_exhaustive()
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").finish_non_exhaustive()
    }
}

/// Takes the pool's connection. The pool connects if it has none.
pub(super) async fn checkout(
    pool: &Pool<Connector>,
    deadline: Deadline,
) -> Result<Object<Connector>, StoreError> {
    match deadline.timeout(pool.get()).await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(PoolError::Backend(error))) => Err(error),
        // The pool itself has no timeout and is never closed.
        Ok(Err(_)) | Err(DeadlinePassed) => Err(StoreError::TimedOut),
    }
}

/// Merges the secret and the settings. A setting overrides the secret.
fn merge_config(secret: &DatabaseCredentials, settings: &SecretSettings) -> Result<Config, SecretError> {
    let lacks = |problem| SecretError::WrongShape { setting: DATABASE_SECRET_ID, problem };
    let host = settings.host.as_deref().or(secret.host.as_deref());
    let name = settings.name.as_deref().or(secret.dbname.as_deref());
    let host = host.ok_or_else(|| lacks("the secret has no host, and DATABASE_HOST is not set"))?;
    let name = name.ok_or_else(|| lacks("the secret has no dbname, and DATABASE_NAME is not set"))?;
    let port = settings.port.or(secret.port).unwrap_or(DEFAULT_PORT);
    Ok(with_tls(host, port, name, &secret.username, &secret.password))
}

/// Makes a configuration whose credentials are sent only through TLS.
fn with_tls(host: &str, port: u16, name: &str, user: &str, password: &SecretString) -> Config {
    let mut config = Config::new();
    config.host(host).port(port).dbname(name).user(user).password(password.expose_secret());
    config.ssl_mode(SslMode::Require);
    with_defaults(config)
}
