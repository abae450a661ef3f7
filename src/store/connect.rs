//! Connects to Postgres: credentials, TLS, and one connection in a pool.

use std::fmt;
use std::pin::pin;
use std::sync::{Arc, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use deadpool::managed::{Manager, Metrics, Object, Pool, PoolError, RecycleError, RecycleResult};
use postgres_protocol::escape::escape_identifier;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Mutex;
use tokio_postgres::config::SslMode;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{Client, Config, NoTls, Socket};

use super::auth_guard::GuardedTls;
use super::error::{StoreError, server_may_start};
use super::tls::PendingTls;
use crate::aws::secrets::{DatabaseCredentials, SecretError, Secrets};
use crate::config::{
    DATABASE_SECRET_ID, DEFAULT_PORT, DatabaseSettings, DatabaseSource, HostProblem, SecretSettings,
    with_defaults,
};
use crate::deadline::{Deadline, DeadlinePassed};

/// The shortest time between two fetches of the secret after errors that may mean a refused login. While the
/// database is away, 1,000 functions then send at most 100 requests a second; [Secrets Manager allows
/// 10,000][quota].
///
/// [quota]: https://docs.aws.amazon.com/secretsmanager/latest/userguide/reference_limits.html
const REFETCH_INTERVAL: Duration = Duration::from_secs(10);

/// The pause between two attempts to connect to a server that may be about to start.
const RETRY_PAUSE: Duration = Duration::from_secs(2);

/// The pool's manager: connects, and keeps the credentials that it fetched.
pub struct Connector {
    source: DatabaseSource,
    schema: String,
    secrets: Secrets,
    tls: PendingTls,
    /// The configuration with the credentials that were fetched last. Unused without a secret.
    fetched: Mutex<Option<Config>>,
    /// When the secret was last fetched after an error that may mean a refused login.
    refetched_at: std::sync::Mutex<Option<Instant>>,
    /// Why the newest connection ended.
    last_end: std::sync::Mutex<ConnectionEnd>,
}

/// Why a connection ended. Empty while the connection is open.
type ConnectionEnd = Arc<OnceLock<StoreError>>;

/// A client, the schema of its statements, and the TLS settings with which they are cancelled.
pub struct Connection {
    client: Client,
    schema: String,
    quoted_schema: String,
    tls: Option<GuardedTls>,
    end: ConnectionEnd,
}

impl Connector {
    /// Prepares to connect, and sends nothing yet.
    #[must_use]
    pub fn new(settings: DatabaseSettings, tls: PendingTls, secrets: Secrets) -> Self {
        let DatabaseSettings { source, schema, .. } = settings;
        Self {
            source,
            schema,
            secrets,
            tls,
            fetched: Mutex::default(),
            refetched_at: std::sync::Mutex::default(),
            last_end: std::sync::Mutex::default(),
        }
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
        let tls = self.tls.ready().await?;
        self.connect_once(config, tls).await.map_err(|error| self.connect_error(&error))
    }

    /// Connects, and tries again for this long if the server may be about to start: a paused Aurora database starts
    /// within about 15 s of the first attempt.
    ///
    /// # Errors
    ///
    /// [`StoreError`] of the last attempt.
    pub async fn connect_within(
        &self,
        config: &Config,
        patience: Duration,
    ) -> Result<Connection, StoreError> {
        let started = Instant::now();
        let tls = self.tls.ready().await?;
        loop {
            let error = match self.connect_once(config, tls.clone()).await {
                Ok(connection) => return Ok(connection),
                Err(error) => error,
            };
            let store_error = self.connect_error(&error);
            if !server_may_start(&error) || started.elapsed() + RETRY_PAUSE > patience {
                return Err(store_error);
            }
            tracing::warn!(error = %store_error, "waiting for Postgres to start");
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    async fn connect_once(
        &self,
        config: &Config,
        tls: Option<GuardedTls>,
    ) -> Result<Connection, tokio_postgres::Error> {
        let end = ConnectionEnd::default();
        // Boxed: the handshake would make every future that awaits it many kilobytes large.
        let client = match &tls {
            None => Box::pin(open(config, NoTls, Arc::clone(&end))).await,
            Some(tls) => Box::pin(open(config, tls.clone(), Arc::clone(&end))).await,
        }?;
        *self.last_end.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&end);
        let quoted_schema = escape_identifier(&self.schema);
        Ok(Connection { client, schema: self.schema.clone(), quoted_schema, tls, end })
    }

    async fn fetch_config(&self, settings: &SecretSettings) -> Result<Config, SecretError> {
        let secret = self.secrets.credentials(DATABASE_SECRET_ID, &settings.id).await?;
        let config = merge_config(&secret, settings)?;
        *self.fetched.lock().await = Some(config.clone());
        Ok(config)
    }

    /// Connects with the credentials that the secret had before its last change, if they were not tried yet.
    async fn connect_as_before(&self, settings: &SecretSettings, tried: &[Config]) -> Option<Connection> {
        let secret = self.secrets.previous_credentials(DATABASE_SECRET_ID, &settings.id).await.ok()?;
        let previous = merge_config(&secret, settings).ok().filter(|config| !tried.contains(config))?;
        let connection = self.connect(&previous).await.ok()?;
        *self.fetched.lock().await = Some(previous);
        Some(connection)
    }

    /// Converts the client's error. A refused token has other causes than a refused password. If the previous
    /// connection ended with an error, the text names that error too: it often shows the real cause.
    fn connect_error(&self, error: &tokio_postgres::Error) -> StoreError {
        match (StoreError::from(error), &self.source) {
            (StoreError::LoginRefused { sqlstate, .. }, DatabaseSource::Iam(_)) => {
                StoreError::LoginRefused { sqlstate, by_token: true }
            }
            (StoreError::Unreachable { cause, sqlstate }, _) => {
                let last_end = self.last_end.lock().unwrap_or_else(PoisonError::into_inner);
                let cause = match last_end.get() {
                    Some(StoreError::Unreachable { cause: end, .. }) => {
                        format!("{cause}; the previous connection ended: {end}")
                    }
                    _ => cause,
                };
                StoreError::Unreachable { cause, sqlstate }
            }
            (other, _) => other,
        }
    }

    /// Whether to fetch the secret again after this error: always if the login was refused, and once in
    /// [`REFETCH_INTERVAL`] if the login may have been refused.
    fn may_need_other_credentials(&self, error: &StoreError) -> bool {
        if matches!(error, StoreError::LoginRefused { .. }) {
            return true;
        }
        if !error.may_be_refused_login() {
            return false;
        }
        let mut refetched_at = self.refetched_at.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = refetched_at.is_none_or(|at| at.elapsed() >= REFETCH_INTERVAL);
        if is_due {
            *refetched_at = Some(Instant::now());
        }
        is_due
    }
}

impl Manager for Connector {
    type Type = Connection;
    type Error = StoreError;

    /// Connects. If the credentials may have been rotated, this fetches them again. If they have changed, this
    /// connects once more. If the login is still refused, this connects with the credentials before: a rotation changes
    /// the secret first and the database later.
    async fn create(&self) -> Result<Connection, StoreError> {
        let config = self.config().await?;
        let error = match self.connect(&config).await {
            Ok(connection) => return Ok(connection),
            Err(error) => error,
        };
        let DatabaseSource::Secret(secret) = &self.source else { return Err(error) };
        if !self.may_need_other_credentials(&error) {
            return Err(error);
        }
        let fetched = match (self.fetch_config(secret).await, &error) {
            (Ok(fetched), _) => fetched,
            (Err(unavailable), StoreError::LoginRefused { .. }) => return Err(unavailable.into()),
            (Err(_), _) => return Err(error),
        };
        let error = if fetched == config {
            error
        } else {
            match self.connect(&fetched).await {
                Ok(connection) => return Ok(connection),
                Err(error) => error,
            }
        };
        if !matches!(error, StoreError::LoginRefused { .. }) {
            return Err(error);
        }
        self.connect_as_before(secret, &[config, fetched]).await.ok_or(error)
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

    /// Returns the client alone. Its task drives the connection until the client is dropped.
    #[must_use]
    pub fn into_client(self) -> Client {
        self.client
    }

    /// Converts the client's error on this connection. If the connection ended between two statements, the client
    /// only reports that it is closed; the connection's own error has the reason.
    #[must_use]
    pub fn store_error(&self, error: &tokio_postgres::Error) -> StoreError {
        match self.end.get() {
            Some(end) if error.is_closed() => end.clone(),
            _ => StoreError::from(error),
        }
    }

    /// Returns the name of the schema whose functions write rows.
    pub(super) fn schema(&self) -> &str {
        &self.schema
    }

    /// Returns the quoted name of the schema. Statements name the schema, so that they do not depend on the
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
                None => token.cancel_query(NoTls).await,
                Some(tls) => token.cancel_query(tls.clone()).await,
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

/// Opens a connection, and spawns the task that drives it.
async fn open<T>(config: &Config, tls: T, end: ConnectionEnd) -> Result<Client, tokio_postgres::Error>
where
    T: MakeTlsConnect<Socket>,
    T::Stream: Send + 'static,
{
    let (client, connection) = config.connect(tls).await?;
    tokio::spawn(drive(connection, end));
    Ok(client)
}

/// Drives the connection until it ends, and keeps the reason.
async fn drive<T>(connection: tokio_postgres::Connection<Socket, T>, end: ConnectionEnd)
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let mut connection = pin!(connection);
    if let Err(error) = connection.as_mut().await {
        // The reason must be stored before the connection is dropped: the client's statements fail at the drop.
        let _ = end.set(StoreError::end_of_connection(&error));
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
    let wrong = |problem| SecretError::WrongShape { setting: DATABASE_SECRET_ID, problem };
    let host = match &settings.host {
        Some(host) => host,
        None => host_in_secret(secret).map_err(wrong)?,
    };
    let port = match settings.port {
        Some(port) => port,
        None => port_in_secret(secret).map_err(wrong)?,
    };
    let name = settings.name.as_deref().or(secret.dbname.as_deref()).filter(|name| !name.is_empty());
    let name = name.ok_or_else(|| wrong("the secret has no dbname, and DATABASE_NAME is not set"))?;
    Ok(with_tls(host, port, name, &secret.username, &secret.password))
}

fn host_in_secret(secret: &DatabaseCredentials) -> Result<&str, &'static str> {
    let host = secret.host.as_deref().map(str::trim).filter(|host| !host.is_empty());
    let host = host.ok_or("the secret has no host, and DATABASE_HOST is not set")?;
    match HostProblem::find(host) {
        None => Ok(host),
        Some(HostProblem::Port) => Err("the host in the secret contains a port; move it to the key port"),
        Some(HostProblem::Url) => Err("the host in the secret is a URL; write the name of the host in it"),
        Some(HostProblem::UnixSocket | HostProblem::NotAHost) => {
            Err("the host in the secret is not the name or the address of a host")
        }
    }
}

fn port_in_secret(secret: &DatabaseCredentials) -> Result<u16, &'static str> {
    let port = match &secret.port {
        None => Some(DEFAULT_PORT),
        Some(Value::String(digits)) => digits.trim().parse().ok(),
        Some(port) => port.as_u64().and_then(|number| number.try_into().ok()),
    };
    port.filter(|port| *port != 0).ok_or("the port in the secret is not a number from 1 to 65535")
}

/// Makes a configuration whose credentials are sent only through TLS.
fn with_tls(host: &str, port: u16, name: &str, user: &str, password: &SecretString) -> Config {
    let mut config = Config::new();
    config.host(host).port(port).dbname(name).user(user).password(password.expose_secret());
    config.ssl_mode(SslMode::Require);
    with_defaults(config)
}
