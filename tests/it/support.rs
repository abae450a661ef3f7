//! What the tests stand on: a database each, the function wired to it, and what it logs.

use std::cell::RefCell;
use std::io::Write;
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use lambda_runtime::{Context, Diagnostic};
use login::pii::Masker;
use login_etl::aws::secrets::Secrets;
use login_etl::config::Settings;
use login_etl::deadline::Deadline;
use login_etl::handler::Ingest;
use login_etl::store::Store;
use login_etl::{schema, telemetry};
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio_postgres::{Client, Config, NoTls};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

pub(crate) const SALT: &str = "0123456789abcdef0123456789abcdef";

/// Held by whoever changes how `login_writer` logs in: the role is the whole server's.
pub(crate) static WRITERS_LOGIN: Mutex<()> = Mutex::const_new(());

/// The time that an invocation has unless a test says otherwise.
pub(crate) const INVOCATION: Duration = Duration::from_secs(30);

/// A database of the test's own, migrated, with a role in it that can do what `login_writer` can.
pub(crate) struct Database {
    pub(crate) name: String,
    /// The superuser's session in this database.
    pub(crate) admin: Client,
}

impl Database {
    pub(crate) async fn create() -> Self {
        let name = unique_name();
        let cluster = connect(&superuser()).await;
        cluster.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
        let mut admin = connect(superuser().dbname(&name)).await;
        schema::migrate(&mut admin).await.unwrap();
        let role = format!("CREATE ROLE {name} LOGIN PASSWORD '{name}' IN ROLE login_writer");
        admin.batch_execute(&role).await.unwrap();
        Self { name, admin }
    }

    /// The URL of the writer, to which a test may add parameters.
    pub(crate) fn url(&self) -> String {
        let name = &self.name;
        format!("postgresql://{name}:{name}@{}/{name}?sslmode=disable", address())
    }

    pub(crate) async fn ingest(&self) -> Ingest {
        let url = self.url();
        ingest_with(&[("DATABASE_URL", &url)]).await
    }

    /// The rows of the table as JSON texts, sorted.
    pub(crate) async fn rows(&self) -> Vec<String> {
        let sql = "SELECT to_json(l)::text FROM user_logins l ORDER BY 1";
        self.admin.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
    }

    /// The user ids in the table, sorted.
    pub(crate) async fn user_ids(&self) -> Vec<String> {
        let sql = "SELECT user_id FROM user_logins ORDER BY user_id COLLATE \"C\"";
        self.admin.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
    }

    pub(crate) async fn ledger_entries(&self) -> i64 {
        self.admin.query_one("SELECT count(*) FROM processed_messages", &[]).await.unwrap().get(0)
    }

    /// Ends the sessions of the writer, as a failover or an idle timeout does.
    pub(crate) async fn end_sessions(&self) -> u64 {
        let sql = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = $1";
        self.admin.query(sql, &[&self.name]).await.unwrap().len() as u64
    }
}

/// A name that no other test takes, neither of this run nor of one beside it.
pub(crate) fn unique_name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("it_{}_{count}", std::process::id())
}

/// The function, configured by these variables and nothing else.
pub(crate) async fn ingest_with(variables: &[(&str, &str)]) -> Ingest {
    let store = store_with(variables).await;
    store.warm_up(Deadline::within(Duration::from_secs(4))).await.unwrap();
    Ingest::new(masker(), store)
}

pub(crate) async fn store_with(variables: &[(&str, &str)]) -> Store {
    let variable = |name: &str| {
        let set = variables.iter().find(|(variable, _)| *variable == name);
        set.map(|(_, value)| (*value).to_owned()).or((name == "SALT_SECRET_ID").then(|| "salt".to_owned()))
    };
    let settings = Settings::read(variable).unwrap();
    Store::new(settings.database, Secrets::from_env().await).unwrap()
}

pub(crate) fn masker() -> Masker {
    Masker::new(&SALT.into()).unwrap()
}

/// Host and port of the server, the host by its name.
pub(crate) fn address() -> String {
    format!("localhost:{}", superuser().get_ports()[0])
}

/// The superuser's configuration, as the environment gives it.
pub(crate) fn superuser() -> Config {
    let url = std::env::var("TEST_DATABASE_URL").expect("TEST_DATABASE_URL is set, as `make test` does");
    url.parse().unwrap()
}

pub(crate) async fn connect(config: &Config) -> Client {
    let (client, connection) = config.connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// Invokes the function as Lambda does, and gives back its whole answer.
pub(crate) async fn invoke(ingest: &Ingest, event: &Value) -> Result<Value, Diagnostic> {
    invoke_within(ingest, &event.to_string(), INVOCATION).await
}

pub(crate) async fn invoke_within(
    ingest: &Ingest,
    event: impl AsRef<[u8]>,
    time: Duration,
) -> Result<Value, Diagnostic> {
    invoke_traced(ingest, event, time, None).await
}

/// Invokes the function with the tracing header that Lambda sends along.
pub(crate) async fn invoke_traced(
    ingest: &Ingest,
    event: impl AsRef<[u8]>,
    time: Duration,
    header: Option<&str>,
) -> Result<Value, Diagnostic> {
    let mut context = Context::default();
    context.xray_trace_id = header.map(ToOwned::to_owned);
    "request".clone_into(&mut context.request_id);
    let end = SystemTime::now() + time;
    context.deadline =
        u64::try_from(end.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis()).unwrap();
    let answer = ingest.handle(event.as_ref(), &context).await?;
    Ok(serde_json::to_value(answer).unwrap())
}

/// The answer that reports these ids.
#[expect(clippy::unnecessary_wraps, reason = "it is compared with an outcome")]
pub(crate) fn failures(ids: &[&str]) -> Result<Value, Diagnostic> {
    let failures: Vec<_> = ids.iter().map(|id| json!({ "itemIdentifier": id })).collect();
    Ok(json!({ "batchItemFailures": failures }))
}

pub(crate) fn error_type(outcome: &Result<Value, Diagnostic>) -> &str {
    &outcome.as_ref().expect_err("the batch fails").error_type
}

/// An event of these records.
pub(crate) fn batch(records: impl IntoIterator<Item = Value>) -> Value {
    json!({ "Records": records.into_iter().collect::<Vec<_>>() })
}

/// A record with this id and body, sent on 14 November 2026.
pub(crate) fn record(id: &str, body: impl Into<Value>) -> Value {
    json!({
        "messageId": id,
        "body": body.into(),
        "attributes": { "SentTimestamp": "1794614400000", "ApproximateReceiveCount": "1" },
        "eventSource": "aws:sqs",
        "eventSourceARN": "arn:aws:sqs:eu-central-1:123456789012:logins",
    })
}

/// A record whose body is a good login of `user`.
pub(crate) fn login(id: &str, user: &str) -> Value {
    record(id, body(user).to_string())
}

/// A record of a FIFO queue.
pub(crate) fn fifo(id: &str, group: &str, body: impl Into<Value>) -> Value {
    let mut record = record(id, body);
    record["eventSourceARN"] = "arn:aws:sqs:eu-central-1:123456789012:logins.fifo".into();
    record["attributes"]["MessageGroupId"] = group.into();
    record
}

/// The body of a good login.
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

/// Everything that the function logs in this test's thread while the capture lives, unfiltered.
///
/// There is one subscriber for all threads: with one for each, `tracing` can miss a line at the
/// moment when another thread's comes or goes.
pub(crate) struct Logs(());

thread_local! {
    static LOGGED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

#[expect(clippy::unused_self, reason = "nothing is logged before there is a capture")]
impl Logs {
    pub(crate) fn capture() -> Self {
        static SUBSCRIBER: Once = Once::new();
        SUBSCRIBER.call_once(|| {
            let everything = Targets::new().with_default(tracing::Level::TRACE);
            let lines = telemetry::log_layer(everything, telemetry::Format::Json, || ThisThread);
            tracing_subscriber::registry().with(lines).init();
        });
        LOGGED.take();
        Self(())
    }

    pub(crate) fn text(&self) -> String {
        LOGGED.with_borrow(|logged| String::from_utf8(logged.clone()).unwrap())
    }

    /// The logged lines with this message.
    pub(crate) fn lines(&self, message: &str) -> Vec<Value> {
        let text = self.text();
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.filter(|line| line["message"] == message).collect()
    }
}

struct ThisThread;

impl Write for ThisThread {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        LOGGED.with_borrow_mut(|logged| logged.write(bytes))
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
