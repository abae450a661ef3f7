//! Fixtures: a database for each test, the function connected to it, and the captured log.

use std::cell::RefCell;
use std::io::Write;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Once};
use std::time::{Duration, SystemTime};

use aws_config::BehaviorVersion;
use aws_sdk_secretsmanager::Client as SecretsManager;
use lambda_runtime::{Context, Diagnostic};
use login::pii::Masker;
use login_etl::aws::secrets::Secrets;
use login_etl::config::Settings;
use login_etl::deadline::Deadline;
use login_etl::handler::Ingest;
use login_etl::schema::WriterLogin;
use login_etl::store::Store;
use login_etl::store::tls::PendingTls;
use login_etl::{schema, telemetry};
use serde_json::{Value, json};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, Config, NoTls};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

pub(crate) const SALT: &str = "0123456789abcdef0123456789abcdef";

/// Serialises the tests that change how `login_writer` logs in: a role belongs to the whole server, not to a
/// database.
pub(crate) static WRITER_LOGIN_LOCK: Mutex<()> = Mutex::const_new(());

/// How long an invocation may take, unless a test sets another limit.
pub(crate) const TIME_LIMIT: Duration = Duration::from_secs(30);

/// A migrated database for one test, with a login role of the same name that has the rights of
/// `login_writer`.
pub(crate) struct Database {
    pub(crate) name: String,
    /// A session of the superuser in this database.
    pub(crate) admin: Client,
}

impl Database {
    pub(crate) async fn create() -> Self {
        let name = unique_name();
        let server = connect(&superuser()).await;
        server.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
        let mut admin = connect(superuser().dbname(&name)).await;
        schema::migrate(&mut admin, "public", &WriterLogin::Unchanged).await.unwrap();
        let role = format!("CREATE ROLE {name} LOGIN PASSWORD '{name}' IN ROLE login_writer");
        admin.batch_execute(&role).await.unwrap();
        Self { name, admin }
    }

    /// Returns the URL with which the function logs in. A test may add parameters.
    pub(crate) fn url(&self) -> String {
        let name = &self.name;
        format!("postgresql://{name}:{name}@{}/{name}?sslmode=disable", server_address())
    }

    pub(crate) async fn ingest(&self) -> Ingest {
        let url = self.url();
        ingest_with(&[("DATABASE_URL", &url)]).await
    }

    /// Returns the rows of the table as JSON texts, sorted.
    pub(crate) async fn rows(&self) -> Vec<String> {
        let sql = "SELECT to_json(l)::text FROM user_logins l ORDER BY 1";
        self.admin.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
    }

    /// Returns the user ids in the table, sorted.
    pub(crate) async fn user_ids(&self) -> Vec<String> {
        let sql = "SELECT user_id FROM user_logins ORDER BY user_id COLLATE \"C\"";
        self.admin.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
    }

    /// Executes statements as the superuser.
    pub(crate) async fn execute(&self, statements: &str) {
        self.admin.batch_execute(statements).await.unwrap();
    }

    pub(crate) async fn ledger_entries(&self) -> i64 {
        self.admin.query_one("SELECT count(*) FROM processed_messages", &[]).await.unwrap().get(0)
    }

    pub(crate) async fn fifo_ledger_entries(&self) -> i64 {
        self.admin.query_one("SELECT count(*) FROM processed_fifo_messages", &[]).await.unwrap().get(0)
    }

    /// Ends the function's sessions, as a failover or an idle timeout does, and returns their number.
    pub(crate) async fn end_sessions(&self) -> u64 {
        let sql = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = $1";
        self.admin.query(sql, &[&self.name]).await.unwrap().len() as u64
    }
}

/// A TCP proxy in front of the server, which a test can close and cut.
pub(crate) struct Proxy {
    port: u16,
    listener: Option<JoinHandle<()>>,
    connections: Arc<std::sync::Mutex<Vec<JoinHandle<()>>>>,
}

impl Proxy {
    pub(crate) async fn start() -> Self {
        let port = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
        let mut proxy = Self { port, listener: None, connections: Arc::default() };
        proxy.open().await;
        proxy
    }

    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Accepts connections.
    pub(crate) async fn open(&mut self) {
        let listener = TcpListener::bind(("127.0.0.1", self.port)).await.unwrap();
        let connections = Arc::clone(&self.connections);
        self.listener = Some(tokio::spawn(async move {
            loop {
                let (mut client, _) = listener.accept().await.unwrap();
                let mut server = TcpStream::connect(server_address()).await.unwrap();
                let copy = async move { drop(copy_bidirectional(&mut client, &mut server).await) };
                connections.lock().unwrap().push(tokio::spawn(copy));
            }
        }));
    }

    /// Refuses further connections.
    pub(crate) fn close(&mut self) {
        if let Some(listener) = self.listener.take() {
            listener.abort();
        }
    }

    /// Ends all connections.
    pub(crate) fn cut(&self) {
        self.connections.lock().unwrap().drain(..).for_each(|connection| connection.abort());
    }
}

/// Returns a name that no other test uses, also not in a concurrent run.
pub(crate) fn unique_name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("it_{}_{count}", std::process::id())
}

/// Makes the function from these settings only, and connects it to Postgres.
pub(crate) async fn ingest_with(variables: &[(&str, &str)]) -> Ingest {
    let store = store_with(variables).await;
    store.warm_up(Deadline::within(Duration::from_secs(4))).await.unwrap();
    Ingest::new(masker(), store)
}

/// Makes a store from these settings only. It is not connected yet.
pub(crate) async fn store_with(variables: &[(&str, &str)]) -> Store {
    let setting = |name: &str| {
        let set = variables.iter().find(|(variable, _)| *variable == name);
        set.map(|(_, value)| (*value).to_owned()).or((name == "SALT_SECRET_ID").then(|| "salt".to_owned()))
    };
    let settings = Settings::read(setting).unwrap();
    let tls = PendingTls::start(&settings.database).unwrap();
    Store::new(settings.database, tls, Secrets::from_env().await)
}

pub(crate) fn masker() -> Masker {
    Masker::new(&SALT.into()).unwrap()
}

/// Returns the host name and the port of the server, with a colon between.
pub(crate) fn server_address() -> String {
    format!("localhost:{}", superuser().get_ports()[0])
}

/// Returns the address and the login of the server's superuser.
pub(crate) fn superuser() -> Config {
    variable("TEST_DATABASE_URL").parse().unwrap()
}

/// Returns the file with the certificate authority of the server.
pub(crate) fn server_ca() -> String {
    variable("TEST_DATABASE_CA")
}

/// Returns an environment variable that `make test` sets.
pub(crate) fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set; `make test` sets it"))
}

pub(crate) async fn connect(config: &Config) -> Client {
    let (client, connection) = config.connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// Invokes the function as Lambda does, and returns its whole answer.
pub(crate) async fn invoke(ingest: &Ingest, event: &Value) -> Result<Value, Diagnostic> {
    invoke_within(ingest, &event.to_string(), TIME_LIMIT).await
}

pub(crate) async fn invoke_within(
    ingest: &Ingest,
    event: impl AsRef<[u8]>,
    time_limit: Duration,
) -> Result<Value, Diagnostic> {
    invoke_traced(ingest, event, time_limit, None).await
}

/// Invokes the function with a tracing header, as Lambda does where tracing is on.
pub(crate) async fn invoke_traced(
    ingest: &Ingest,
    event: impl AsRef<[u8]>,
    time_limit: Duration,
    tracing_header: Option<&str>,
) -> Result<Value, Diagnostic> {
    let mut context = Context::default();
    context.xray_trace_id = tracing_header.map(ToOwned::to_owned);
    "request".clone_into(&mut context.request_id);
    let end = SystemTime::now() + time_limit;
    context.deadline =
        u64::try_from(end.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis()).unwrap();
    let answer = ingest.handle(event.as_ref(), &context).await?;
    Ok(serde_json::to_value(answer).unwrap())
}

/// Returns the answer that reports these message ids.
#[expect(clippy::unnecessary_wraps, reason = "tests compare it with the result of `invoke`")]
pub(crate) fn failures(ids: &[&str]) -> Result<Value, Diagnostic> {
    let failures: Vec<_> = ids.iter().map(|id| json!({ "itemIdentifier": id })).collect();
    Ok(json!({ "batchItemFailures": failures }))
}

/// Returns the `errorType` of a batch that failed.
pub(crate) fn error_type(outcome: &Result<Value, Diagnostic>) -> &str {
    &outcome.as_ref().expect_err("the batch did not fail").error_type
}

/// Returns an event of these records.
pub(crate) fn batch(records: impl IntoIterator<Item = Value>) -> Value {
    json!({ "Records": records.into_iter().collect::<Vec<_>>() })
}

/// Returns a record with this id and body, sent on 14 November 2026.
pub(crate) fn record(id: &str, body: impl Into<Value>) -> Value {
    json!({
        "messageId": id,
        "body": body.into(),
        "attributes": { "SentTimestamp": "1794614400000", "ApproximateReceiveCount": "1" },
        "eventSource": "aws:sqs",
        "eventSourceARN": "arn:aws:sqs:eu-central-1:123456789012:logins",
    })
}

/// Returns a record whose body is a good login of `user`.
pub(crate) fn login(id: &str, user: &str) -> Value {
    record(id, body(user).to_string())
}

/// Returns a record of a FIFO queue.
pub(crate) fn fifo(id: &str, group: &str, body: impl Into<Value>) -> Value {
    let mut record = record(id, body);
    record["eventSourceARN"] = "arn:aws:sqs:eu-central-1:123456789012:logins.fifo".into();
    record["attributes"]["MessageGroupId"] = group.into();
    record
}

/// Returns the body of a good login.
pub(crate) fn body(user: &str) -> Value {
    json!({
        "user_id": user,
        "app_version": "2.3.0",
        "device_type": "android",
        "ip": "203.0.113.77",
        "locale": "RU",
        "device_id": "593-47-5928",
    })
}

/// All lines that this test's thread has logged since [`Logs::capture`], at every level.
///
/// All threads share one subscriber. If each thread had its own, `tracing` could lose a line while another
/// thread adds or removes a subscriber.
pub(crate) struct Logs(());

thread_local! {
    static LOG: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

#[expect(clippy::unused_self, reason = "before a capture the log holds nothing")]
impl Logs {
    pub(crate) fn capture() -> Self {
        static SUBSCRIBER: Once = Once::new();
        SUBSCRIBER.call_once(|| {
            let everything = Targets::new().with_default(tracing::Level::TRACE);
            let layer = telemetry::log_layer(everything, telemetry::Format::Json, || ThreadLog);
            tracing_subscriber::registry().with(layer).init();
        });
        LOG.take();
        Self(())
    }

    pub(crate) fn text(&self) -> String {
        LOG.with_borrow(|log| String::from_utf8(log.clone()).unwrap())
    }

    /// Returns the lines with this message.
    pub(crate) fn lines(&self, message: &str) -> Vec<Value> {
        let text = self.text();
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.filter(|line| line["message"] == message).collect()
    }
}

/// Writes to the log of the current thread.
struct ThreadLog;

impl Write for ThreadLog {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        LOG.with_borrow_mut(|log| log.write(bytes))
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

pub(crate) async fn secrets_manager() -> SecretsManager {
    SecretsManager::new(&aws_config::load_defaults(BehaviorVersion::latest()).await)
}

/// Returns the text of a secret as RDS manages it: with a user and a password, but without an address.
pub(crate) fn credentials(user: &str, password: &str) -> String {
    json!({ "username": user, "password": password }).to_string()
}
