//! Fixtures: a database with rollups, the API over it, and requests.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use login_etl::analytics::LOGINS_PER_STEP;
use login_etl::aws::secrets::Secrets;
use login_etl::config::DatabaseSettings;
use login_etl::deadline::Deadline;
use login_etl::schema::WriterLogin;
use login_etl::store::tls::PendingTls;
use login_etl::{analytics, schema};
use login_etl_api::authenticator::Authenticator;
use login_etl_api::database::Database as ApiDatabase;
use login_etl_api::router::router;
use serde_json::Value;
use tokio_postgres::{Client, Config, NoTls};
use tower::ServiceExt;

/// The day of the latest logins.
pub(crate) const TODAY: &str = "2026-11-14";

/// Logins of a small world on three days. Two users share the device `d1`, and one of them shares `d2` with a third: a
/// ring. All share the address `i1`; 60 users share the hub.
const LOGINS: &str = "
    INSERT INTO user_logins (user_id, device_type, masked_device_id, masked_ip, locale, app_version, create_date)
    SELECT user_id, device_type, repeat(device, 64), repeat(ip, 64), locale, app_version, day::date
    FROM (VALUES
        ('ann', 'ios', 'd', '1', 'RU', 2003000, '2026-11-14'),
        ('ann', 'ios', 'd', '1', 'RU', 2003000, '2026-11-14'),
        ('ann', 'ios', 'd', '1', 'RU', 2003000, '2026-11-10'),
        ('bob', 'android', 'd', '1', NULL, 2003000, '2026-11-14'),
        ('bob', 'android', 'e', '1', '=1+1', NULL, '2026-11-14'),
        ('=cmd', NULL, 'e', '1', '<script>', 2003001, '2026-11-01'),
        ('eve\"''\\,', NULL, 'f', '1', NULL, -1, '2026-11-14')
    ) AS login (user_id, device_type, device, ip, locale, app_version, day);
    INSERT INTO user_logins (user_id, masked_device_id, masked_ip, create_date)
    SELECT 'hub ' || number, encode(sha256(number::text::bytea), 'hex'), repeat('9', 64), date '2026-11-13'
    FROM generate_series(1, 60) AS number;
    INSERT INTO user_logins (user_id, create_date) VALUES ('no day', NULL)";

/// A migrated database for one test, with a login role of the same name that has the rights of `login_api`.
pub(crate) struct Database {
    pub(crate) name: String,
    /// A session of the superuser in this database.
    pub(crate) admin: Client,
}

/// An answer of the API.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Database {
    /// Creates a database whose logins are not rolled up.
    pub(crate) async fn create() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("api_{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let server = connect(&superuser()).await;
        server.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
        let mut admin = connect(superuser().dbname(&name)).await;
        schema::migrate(&mut admin, "public", &WriterLogin::Unchanged).await.unwrap();
        let role = format!(
            "CREATE ROLE {name} LOGIN PASSWORD '{name}' IN ROLE login_reader;
             ALTER ROLE {name} SET statement_timeout = '2s';
             ALTER ROLE {name} SET default_transaction_read_only = on"
        );
        admin.batch_execute(&role).await.unwrap();
        admin.batch_execute(LOGINS).await.unwrap();
        Self { name, admin }
    }

    /// Creates a database whose logins are rolled up.
    pub(crate) async fn rolled_up() -> Self {
        let mut database = Self::create().await;
        database.roll_up().await;
        database
    }

    pub(crate) async fn roll_up(&mut self) {
        // Noon of 14 November 2026.
        let now = SystemTime::UNIX_EPOCH + Duration::from_hours(498_516);
        analytics::create(&mut self.admin, "public").await.unwrap();
        let deadline = Deadline::within(Duration::from_mins(1));
        analytics::roll_up(&mut self.admin, "public", now, LOGINS_PER_STEP, deadline).await.unwrap();
    }

    pub(crate) async fn execute(&self, statements: &str) {
        self.admin.batch_execute(statements).await.unwrap();
    }

    pub(crate) fn url(&self) -> String {
        let (name, port) = (&self.name, superuser().get_ports()[0]);
        format!("postgresql://{name}:{name}@localhost:{port}/{name}?sslmode=disable")
    }

    pub(crate) async fn api(&self) -> Router {
        router(self.connected().await, Authenticator::new(None))
    }

    /// Returns the API's own access to the database.
    pub(crate) async fn connected(&self) -> ApiDatabase {
        database_at(&self.url()).await
    }

    /// Ends the API's sessions, as a failover does.
    pub(crate) async fn end_sessions(&self) -> u64 {
        let sql = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = $1";
        self.admin.query(sql, &[&self.name]).await.unwrap().len() as u64
    }
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("{} {}", self.status, self.body))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        Some(self.headers.get(name)?.to_str().unwrap())
    }

    /// Returns the status and the detail of a problem document.
    pub(crate) fn problem(&self) -> (u16, String) {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{}", self.body);
        let problem = self.json();
        assert_eq!(problem["status"], self.status.as_u16());
        (self.status.as_u16(), problem["detail"].as_str().unwrap().to_owned())
    }
}

/// Returns the API's access to the database at this address.
pub(crate) async fn database_at(url: &str) -> ApiDatabase {
    let environment = |name: &str| (name == "DATABASE_URL").then(|| url.to_owned());
    let settings = DatabaseSettings::read(environment).unwrap();
    let tls = PendingTls::start(&settings).unwrap();
    ApiDatabase::new(settings, tls, Secrets::from_env().await, 2)
}

pub(crate) async fn send(api: &Router, request: Request<Body>) -> Answer {
    let response = api.clone().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes().to_vec();
    Answer { status: parts.status, headers: parts.headers, body: String::from_utf8(body).unwrap() }
}

pub(crate) async fn get(api: &Router, uri: &str) -> Answer {
    send(api, Request::get(uri).body(Body::empty()).unwrap()).await
}

pub(crate) async fn get_with(api: &Router, uri: &str, header: (&str, &str)) -> Answer {
    send(api, Request::get(uri).header(header.0, header.1).body(Body::empty()).unwrap()).await
}

pub(crate) async fn post(api: &Router, uri: &str, body: impl Into<Body>) -> Answer {
    let request = Request::post(uri).header("content-type", "application/json");
    send(api, request.body(body.into()).unwrap()).await
}

/// Returns a token of the small world.
pub(crate) fn token(digit: &str) -> String {
    digit.repeat(64)
}

pub(crate) fn superuser() -> Config {
    variable("TEST_DATABASE_URL").parse().unwrap()
}

/// Returns an environment variable that `make test` sets.
pub(crate) fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set; `make test` sets it"))
}

async fn connect(config: &Config) -> Client {
    let (client, connection) = config.connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}
