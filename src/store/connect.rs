//! Connects to Postgres: credentials, TLS, and one connection that is kept.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use deadpool::managed::{Manager, Metrics, RecycleError, RecycleResult};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::Mutex;
use tokio_postgres::config::SslMode;
use tokio_postgres::{Client, Config, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{StoreError, tls};
use crate::aws::secrets::{Credentials, SecretError, Secrets};
use crate::config::{
    DATABASE_SECRET_ID, DEFAULT_PORT, DatabaseSettings, DatabaseSource, IamLogin, SettingError, with_timeouts,
};

/// Makes connections.
pub struct Connector {
    source: DatabaseSource,
    secrets: Secrets,
    tls: Tls,
    /// The address with the credentials that were fetched last.
    fetched: Mutex<Option<Config>>,
}

/// A connection to Postgres.
pub struct Connection {
    client: Client,
    tls: Tls,
}

#[derive(Clone)]
enum Tls {
    Off,
    Verified(MakeRustlsConnect),
}

impl Connector {
    /// Reads the certificates to trust; nothing is sent yet.
    ///
    /// # Errors
    ///
    /// [`SettingError`] if `DATABASE_CA_BUNDLE` is not a file of certificates.
    pub fn new(settings: DatabaseSettings, secrets: Secrets) -> Result<Self, SettingError> {
        let off = matches!(&settings.source, DatabaseSource::Url(config) if config.get_ssl_mode() == SslMode::Disable);
        let tls = if off { Tls::Off } else { Tls::Verified(tls::verified(settings.ca_bundle.as_deref())?) };
        Ok(Self { source: settings.source, secrets, tls, fetched: Mutex::new(None) })
    }

    /// The address with the credentials: those at hand, or if there are none or `anew` is asked for,
    /// those that the secret holds now. By IAM it is a new token each time: one is valid for minutes,
    /// and a connection that it let in stays.
    ///
    /// # Errors
    ///
    /// [`SecretError`] if the credentials cannot be had, or do not say where the database is.
    pub async fn config(&self, anew: bool) -> Result<Config, SecretError> {
        let (id, host, port, name) = match &self.source {
            DatabaseSource::Url(config) => return Ok((**config).clone()),
            DatabaseSource::Iam(login) => return Ok(with_token(login, &self.secrets.token(login).await?)),
            DatabaseSource::Secret { id, host, port, name } => (id, host, port, name),
        };
        let mut fetched = self.fetched.lock().await;
        if let Some(config) = fetched.as_ref().filter(|_| !anew) {
            return Ok(config.clone());
        }
        let secret = self.secrets.credentials(DATABASE_SECRET_ID, id).await?;
        let config = address(&secret, host.as_deref(), *port, name.as_deref())?;
        *fetched = Some(config.clone());
        Ok(config)
    }

    /// Connects.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn connect(&self, config: &Config) -> Result<Connection, StoreError> {
        // Boxed, since the handshake would make every future above it many kilobytes large.
        let connected = match &self.tls {
            Tls::Off => Box::pin(config.connect(NoTls)).await.map(|(client, connection)| {
                tokio::spawn(connection);
                client
            }),
            Tls::Verified(tls) => Box::pin(config.connect(tls.clone())).await.map(|(client, connection)| {
                tokio::spawn(connection);
                client
            }),
        };
        Ok(Connection { client: connected.map_err(|error| self.refusal(&error))?, tls: self.tls.clone() })
    }

    /// Why no connection was made. What is wrong with a token is elsewhere than what is wrong with a
    /// password.
    fn refusal(&self, error: &tokio_postgres::Error) -> StoreError {
        match (StoreError::from(error), &self.source) {
            (StoreError::LoginRefused { sqlstate, .. }, DatabaseSource::Iam(_)) => {
                StoreError::LoginRefused { sqlstate, by_token: true }
            }
            (refusal, _) => refusal,
        }
    }
}

impl Manager for Connector {
    type Type = Connection;
    type Error = StoreError;

    /// Connects, with credentials fetched again if Postgres refuses the login: they may have been
    /// rotated.
    async fn create(&self) -> Result<Connection, StoreError> {
        match (self.connect(&self.config(false).await?).await, &self.source) {
            (Err(StoreError::LoginRefused { .. }), DatabaseSource::Secret { .. }) => {
                self.connect(&self.config(true).await?).await
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
    /// What statements are sent with.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// What transactions are begun with.
    #[must_use]
    pub fn client_mut(&mut self) -> &mut Client {
        &mut self.client
    }

    /// Asks Postgres to give up the statement that runs, so that it does not hold its locks while
    /// the batch is tried again. Best effort, for as long as `grace`: where Postgres does not answer
    /// it may not answer this either.
    pub(super) async fn cancel(&self, grace: Duration) {
        let token = self.client.cancel_token();
        let cancelled = tokio::time::timeout(grace, async {
            match &self.tls {
                Tls::Off => token.cancel_query(NoTls).await,
                Tls::Verified(tls) => token.cancel_query(tls.clone()).await,
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

/// What broke a connection or kept it from being made: the kind of the I/O error or the TLS
/// library's words. Neither sees what is sent.
pub(crate) fn cause(error: &tokio_postgres::Error) -> String {
    let mut next: Option<&(dyn Error + 'static)> = error.source();
    while let Some(cause) = next {
        if let Some(io) = cause.downcast_ref::<std::io::Error>() {
            let tls = io.get_ref().and_then(|inside| inside.downcast_ref::<rustls::Error>());
            return tls.map_or_else(|| io.kind().to_string(), ToString::to_string);
        }
        next = cause.source();
    }
    if error.is_closed() { "the connection is closed".to_owned() } else { "the connection failed".to_owned() }
}

/// The secret and the settings put together, the settings first.
fn address(
    secret: &Credentials,
    host: Option<&str>,
    port: Option<u16>,
    name: Option<&str>,
) -> Result<Config, SecretError> {
    let lacks = |problem| SecretError::WrongShape { setting: DATABASE_SECRET_ID, problem };
    let host = host.or(secret.host.as_deref());
    let name = name.or(secret.dbname.as_deref());
    let host = host.ok_or_else(|| lacks("the secret has no host, and DATABASE_HOST is not set"))?;
    let name = name.ok_or_else(|| lacks("the secret has no dbname, and DATABASE_NAME is not set"))?;
    let port = port.or(secret.port).unwrap_or(DEFAULT_PORT);
    Ok(verified(host, port, name, &secret.username, &secret.password))
}

fn with_token(login: &IamLogin, token: &SecretString) -> Config {
    verified(&login.host, login.port, &login.name, &login.user, token)
}

/// An address with credentials, which are sent nowhere but through TLS.
fn verified(host: &str, port: u16, name: &str, user: &str, password: &SecretString) -> Config {
    let mut config = Config::new();
    config.host(host).port(port).dbname(name).user(user).password(password.expose_secret());
    config.ssl_mode(SslMode::Require);
    with_timeouts(config)
}
