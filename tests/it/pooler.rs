//! The function behind pgbouncer, which sends the same SQLSTATE for most errors.

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use aws_sdk_secretsmanager::Client as SecretsManager;
use lambda_runtime::Diagnostic;
use login_etl::handler::Ingest;
use serde_json::{Value, json};

use crate::support::{
    Database, batch, credentials, failures, ingest_with, invoke, login, secrets_manager, server_ca,
    superuser, unique_name,
};

const POOL_MODES: [&str; 3] = ["session", "transaction", "statement"];

/// pgbouncer in front of the test's Postgres, with TLS on both sides. It reads passwords from Postgres, so that a
/// rotated password is valid at once.
struct Pooler {
    folder: PathBuf,
    port: u16,
    process: Option<Child>,
}

impl Pooler {
    /// Starts pgbouncer with these settings, in addition to the settings that each test needs.
    fn start(database: &Database, settings: &[&str]) -> Self {
        let port = superuser().get_ports()[0];
        Self::start_for(&database.name, port, settings)
    }

    /// Starts pgbouncer for a database of the server on this port.
    fn start_for(database: &str, server_port: u16, settings: &[&str]) -> Self {
        let folder = std::env::temp_dir().join(unique_name());
        fs::create_dir(&folder).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
        let port = free_port();
        let authority = PathBuf::from(server_ca());
        let data = authority.parent().unwrap().join("data");
        let file = |name: &str| folder.join(name).to_str().unwrap().to_owned();
        copy(&authority, &file("ca.pem"));
        copy(&data.join("server.pem"), &file("server.pem"));
        copy(&data.join("server.key"), &file("server.key"));
        let password = String::from_utf8(superuser().get_password().unwrap().to_vec()).unwrap();
        fs::write(file("users"), format!("\"postgres\" \"{password}\"\n")).unwrap();
        let lines = [
            "[databases]",
            &format!("{database} = host=localhost port={server_port} auth_user=postgres"),
            "[pgbouncer]",
            "listen_addr = 127.0.0.1",
            &format!("listen_port = {port}"),
            "unix_socket_dir =",
            &format!("logfile = {}", file("log")),
            "auth_type = scram-sha-256",
            &format!("auth_file = {}", file("users")),
            "auth_query = SELECT usename, passwd FROM pg_shadow WHERE usename = $1",
            "client_tls_sslmode = require",
            &format!("client_tls_cert_file = {}", file("server.pem")),
            &format!("client_tls_key_file = {}", file("server.key")),
            "server_tls_sslmode = verify-full",
            &format!("server_tls_ca_file = {}", file("ca.pem")),
            // The default, 15 s, is longer than some tests run.
            "server_login_retry = 1",
        ];
        fs::write(file("pgbouncer.ini"), [&lines[..], settings].concat().join("\n")).unwrap();
        let mut pooler = Self { folder, port, process: None };
        pooler.run();
        pooler
    }

    fn run(&mut self) {
        let mut command = Command::new("pgbouncer");
        // Debian installs pgbouncer in a folder that is only on the path of root.
        command.env("PATH", format!("{}:/usr/sbin", std::env::var("PATH").unwrap()));
        if rustix::process::geteuid().is_root() {
            // pgbouncer refuses to run as root.
            command.args(["-u", "nobody"]);
        }
        command.arg("-q").arg(self.folder.join("pgbouncer.ini"));
        let child = command.spawn().expect("pgbouncer is not installed; see CONTRIBUTING.md");
        self.process = Some(child);
        let started = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            let log = || fs::read_to_string(self.folder.join("log")).unwrap_or_default();
            assert!(started.elapsed() < Duration::from_secs(10), "pgbouncer does not start: {}", log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn stop(&mut self) {
        if let Some(mut child) = self.process.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Returns the URL with which the function logs in through the pooler.
    fn url(&self, name: &str) -> String {
        format!("postgresql://{name}:{name}@localhost:{}/{name}", self.port)
    }

    async fn ingest(&self, url: &str) -> Ingest {
        ingest_with(&[("DATABASE_URL", url), ("DATABASE_CA_BUNDLE", &server_ca())]).await
    }

    async fn ingest_with_secret(&self, secret: &str, database: &str) -> Ingest {
        ingest_with(&[
            ("DATABASE_SECRET_ID", secret),
            ("DATABASE_HOST", "localhost"),
            ("DATABASE_PORT", &self.port.to_string()),
            ("DATABASE_NAME", database),
            ("DATABASE_CA_BUNDLE", &server_ca()),
        ])
        .await
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        self.stop();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Copies a file so that the user who runs pgbouncer can read the copy.
fn copy(from: &Path, to: &str) {
    fs::write(to, fs::read(from).unwrap()).unwrap();
}

/// Returns a free port below the range of outgoing connections, so that the pooler can be restarted on the same
/// port.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = 20_000 + u16::try_from(std::process::id() % 100).unwrap() * 120;
    loop {
        let port = first + NEXT.fetch_add(1, Ordering::Relaxed) % 12_000;
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

fn refused(error_type: &str, error_message: &str) -> Result<Value, Diagnostic> {
    Err(Diagnostic { error_type: error_type.to_owned(), error_message: error_message.to_owned() })
}

#[tokio::test]
async fn each_pool_mode_writes_every_batch() {
    for mode in POOL_MODES {
        let database = Database::create().await;
        // In statement mode with server_reset_query_always, pgbouncer 1.18 sometimes stops reading from the
        // function.
        let resets = mode != "statement";
        let settings =
            [format!("pool_mode = {mode}"), format!("server_reset_query_always = {}", u8::from(resets))];
        let pooler = Pooler::start(&database, &settings.each_ref().map(String::as_str));
        let ingest = pooler.ingest(&pooler.url(&database.name)).await;
        // The batch needs several statements, and so a transaction, which a pooler in statement mode refuses.
        let large = batch((0..300).map(|number| login(&number.to_string(), "large")));
        let partly_repeated = batch([login("0", "large"), login("a", "small")]);

        let one_row = invoke(&ingest, &batch([login("b", "small")])).await;
        let answer = invoke(&ingest, &large).await;
        let repeated = invoke(&ingest, &partly_repeated).await;
        let again = invoke(&ingest, &large).await;

        assert_eq!([one_row, answer, repeated, again], std::array::from_fn(|_| failures(&[])), "{mode}");
        assert_eq!(database.user_ids().await.len(), 302, "{mode}");
        let sessions =
            "SELECT DISTINCT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE usename = $1";
        let encrypted = database.admin.query(sessions, &[&database.name]).await.unwrap();
        assert_eq!(encrypted.iter().map(|row| row.get(0)).collect::<Vec<bool>>(), [true], "{mode}");
    }
}

/// Changes the password in the database and in the secret.
async fn rotate(database: &Database, secrets: &SecretsManager) {
    let name = &database.name;
    database.admin.batch_execute(&format!("ALTER ROLE {name} PASSWORD 'rotated'")).await.unwrap();
    let rotated = credentials(name, "rotated");
    secrets.put_secret_value().secret_id(name).secret_string(rotated).send().await.unwrap();
}

#[tokio::test]
async fn rotated_password_is_fetched_behind_pooler() {
    for mode in POOL_MODES {
        let database = Database::create().await;
        let name = &database.name;
        let mut pooler = Pooler::start(&database, &[&format!("pool_mode = {mode}")]);
        let secrets = secrets_manager().await;
        secrets.create_secret().name(name).secret_string(credentials(name, name)).send().await.unwrap();
        let ingest = pooler.ingest_with_secret(name, name).await;
        assert_eq!(invoke(&ingest, &batch([login("a", "a")])).await, failures(&[]), "{mode}");

        rotate(&database, &secrets).await;
        pooler.stop();
        pooler.run();
        let answer = invoke(&ingest, &batch([login("b", "b")])).await;

        assert_eq!(answer, failures(&[]), "{mode}");
        assert_eq!(database.user_ids().await, ["a", "b"], "{mode}");
    }
}

/// Only the pooler's connections to Postgres end. The pooler then logs in to Postgres with the keys of the old
/// password, and refuses every client for as long as `server_login_retry` says.
#[tokio::test]
async fn pooler_with_old_password_recovers() {
    for mode in POOL_MODES {
        let database = Database::create().await;
        let name = &database.name;
        let pooler = Pooler::start(&database, &[&format!("pool_mode = {mode}"), "query_wait_timeout = 2"]);
        let secrets = secrets_manager().await;
        secrets.create_secret().name(name).secret_string(credentials(name, name)).send().await.unwrap();
        let ingest = pooler.ingest_with_secret(name, name).await;
        assert_eq!(invoke(&ingest, &batch([login("a", "a")])).await, failures(&[]), "{mode}");

        rotate(&database, &secrets).await;
        database.end_sessions().await;
        let started = Instant::now();
        let mut answer = invoke(&ingest, &batch([login("b", "b")])).await;
        let mut failed = Vec::new();
        while started.elapsed() < Duration::from_secs(15)
            && let Err(error) = answer
        {
            failed.push(error.error_message);
            answer = invoke(&ingest, &batch([login("b", "b")])).await;
        }

        // pgbouncer 1.18 lets the batch wait; later versions pass on the error of Postgres.
        let expected = [
            "Postgres is out of connections, SQLSTATE 08P01",
            "Postgres cannot be reached: the connection pooler cannot connect to Postgres, SQLSTATE 08P01",
            "Postgres refused the login, SQLSTATE 08P01",
            "Postgres refused the login, SQLSTATE 28P01",
        ];
        assert!(failed.iter().all(|error| expected.contains(&error.as_str())), "{mode}: {failed:?}");
        // In session mode, the pooler closes the function's connection together with its own.
        assert!(mode != "session" || failed.is_empty(), "{failed:?}");
        assert_eq!(answer, failures(&[]), "{mode}");
        assert_eq!(database.user_ids().await, ["a", "b"], "{mode}");
    }
}

#[tokio::test]
async fn refusal_of_the_pooler_is_named() {
    let database = Database::create().await;
    let name = &database.name;
    let pooler = Pooler::start(&database, &[]);
    let url = pooler.url(name);
    let wrong_password = url.replace(&format!(":{name}@"), ":hunter2@");
    let unknown_user = url.replace(&format!("//{name}:"), "//hunter2:");
    // The pooler names an unknown database only to a user of its own list.
    let password = String::from_utf8(superuser().get_password().unwrap().to_vec()).unwrap();
    let unknown_database = format!("postgresql://postgres:{password}@localhost:{}/hunter2", pooler.port);

    for (url, expected) in [
        (wrong_password, refused("DatabaseLoginRefused", "Postgres refused the login, SQLSTATE 08P01")),
        (unknown_user, refused("DatabaseLoginRefused", "Postgres refused the login, SQLSTATE 08P01")),
        (
            unknown_database,
            refused(
                "DatabaseUnreachable",
                "Postgres cannot be reached: the connection pooler does not serve the database, SQLSTATE 08P01",
            ),
        ),
        (
            format!("{url}?options=-csearch_path%3Dhunter2"),
            refused(
                "DatabaseUnreachable",
                "Postgres cannot be reached: the connection pooler refuses a startup parameter, such as options in \
                 DATABASE_URL, SQLSTATE 08P01",
            ),
        ),
    ] {
        let ingest = pooler.ingest(&url).await;
        assert_eq!(invoke(&ingest, &batch([login("a", "a")])).await, expected);
    }
}

#[tokio::test]
async fn tls_that_the_pooler_refuses_is_explained() {
    let database = Database::create().await;
    let without_tls = Pooler::start(&database, &["client_tls_sslmode = disable"]);
    let authority = format!("client_tls_ca_file = {}", server_ca());
    let with_client_certificates =
        Pooler::start(&database, &["client_tls_sslmode = verify-full", &authority]);
    let event = batch([login("a", "a")]);

    let ingest = without_tls.ingest(&without_tls.url(&database.name)).await;
    let not_offered = invoke(&ingest, &event).await;
    let ingest = with_client_certificates.ingest(&with_client_certificates.url(&database.name)).await;
    let alert = invoke(&ingest, &event).await.unwrap_err();

    let expected = "Postgres cannot be reached: the server does not offer TLS, which is required";
    assert_eq!(not_offered, refused("DatabaseUnreachable", expected));
    assert_eq!(alert.error_type, "DatabaseUnreachable");
    // With TLS 1.3 the server refuses the certificate after the client's handshake. If the server has already
    // closed the connection, the client's next write fails before it reads the alert.
    let causes = ["tlsv13 alert certificate required", "connection reset", "broken pipe"];
    let expected = causes.map(|cause| format!("Postgres cannot be reached: {cause}"));
    assert!(expected.contains(&alert.error_message), "{}", alert.error_message);
}

/// The pooler itself lets clients in, so its method counts and not the method of Postgres.
#[tokio::test]
async fn weak_auth_type_needs_require_auth() {
    let database = Database::create().await;
    let name = &database.name;
    let users = std::env::temp_dir().join(unique_name());
    fs::write(&users, format!("\"{name}\" \"{name}\"\n")).unwrap();
    let auth_file = format!("auth_file = {}", users.display());
    for (auth_type, permitted, requires) in [
        ("plain", "password", "requires the password in clear text"),
        ("md5", "md5", "requires the password as an MD5 hash"),
        ("trust", "none", "requires no password"),
    ] {
        let pooler = Pooler::start(&database, &[&format!("auth_type = {auth_type}"), &auth_file]);
        let url = pooler.url(name);
        let event = batch([login(auth_type, auth_type)]);

        let by_default = invoke(&pooler.ingest(&url).await, &event).await.unwrap_err();
        let url = format!("{url}?require_auth={permitted}");
        let when_permitted = invoke(&pooler.ingest(&url).await, &event).await;

        assert_eq!(by_default.error_type, "DatabaseUnreachable");
        let expected = format!("Postgres cannot be reached: the server {requires}: ");
        assert!(by_default.error_message.starts_with(&expected), "{}", by_default.error_message);
        assert_eq!(when_permitted, failures(&[]), "{auth_type}");
    }
    fs::remove_file(users).unwrap();
    assert_eq!(database.user_ids().await, ["md5", "plain", "trust"]);
}

#[tokio::test]
async fn unix_socket_needs_no_sslmode() {
    let database = Database::create().await;
    let name = &database.name;
    let folder = std::env::temp_dir().join(unique_name());
    fs::create_dir(&folder).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
    let pooler = Pooler::start(&database, &[&format!("unix_socket_dir = {}", folder.display())]);
    let encoded = folder.to_str().unwrap().replace('/', "%2F");
    let url = format!("postgresql://{name}:{name}@{encoded}:{}/{name}", pooler.port);

    let ingest = pooler.ingest(&url).await;
    let answer = invoke(&ingest, &batch([login("a", "a")])).await;

    drop(pooler);
    fs::remove_dir_all(folder).unwrap();
    assert_eq!(answer, failures(&[]));
    assert_eq!(database.user_ids().await, ["a"]);
}

#[tokio::test]
async fn full_pool_is_out_of_connections() {
    let database = Database::create().await;
    let pool_of_one = ["pool_mode = session", "default_pool_size = 1", "query_wait_timeout = 1"];
    for settings in [&["max_client_conn = 1"][..], &pool_of_one] {
        let pooler = Pooler::start(&database, settings);
        let url = pooler.url(&database.name);
        let holder = pooler.ingest(&url).await;
        invoke(&holder, &batch([login("a", "a")])).await.unwrap();
        let ingest = pooler.ingest(&url).await;

        let answer = invoke(&ingest, &batch([login("b", "b")])).await;
        drop(holder);
        let mut repeated = invoke(&ingest, &batch([login("b", "b")])).await;
        let dropped = Instant::now();
        // The pooler needs a moment to notice that the other client is gone.
        while repeated.is_err() && dropped.elapsed() < Duration::from_secs(5) {
            repeated = invoke(&ingest, &batch([login("b", "b")])).await;
        }

        let expected = "Postgres is out of connections, SQLSTATE 08P01";
        assert_eq!(answer, refused("DatabaseOutOfConnections", expected), "{settings:?}");
        assert_eq!(repeated, failures(&[]), "{settings:?}");
    }
}

#[tokio::test]
async fn server_behind_the_pooler_is_away() {
    // Nothing listens on port 9.
    let settings = ["server_connect_timeout = 1", "query_wait_timeout = 2"];
    let pooler = Pooler::start_for("away", 9, &settings);
    let ingest = pooler.ingest(&pooler.url("away")).await;

    let answer = invoke(&ingest, &batch([login("a", "a")])).await;

    let expected =
        "Postgres cannot be reached: the connection pooler cannot connect to Postgres, SQLSTATE 08P01";
    assert_eq!(answer, refused("DatabaseUnreachable", expected));
}

#[tokio::test]
async fn restarted_pooler_causes_no_failure() {
    for mode in POOL_MODES {
        let database = Database::create().await;
        let mut pooler = Pooler::start(&database, &[&format!("pool_mode = {mode}")]);
        let ingest = pooler.ingest(&pooler.url(&database.name)).await;
        assert_eq!(invoke(&ingest, &batch([login("a", "a")])).await, failures(&[]), "{mode}");

        pooler.stop();
        let while_away = invoke(&ingest, &batch([login("b", "b")])).await;
        pooler.run();
        let answer = invoke(&ingest, &batch([login("b", "b")])).await;
        pooler.stop();
        pooler.run();
        let after_restart = invoke(&ingest, &batch([login("c", "c")])).await;

        let expected = "Postgres cannot be reached: connection refused; the previous connection ended: \
            the server closed the connection and sent no reason";
        assert_eq!(while_away, refused("DatabaseUnreachable", expected), "{mode}");
        assert_eq!([answer, after_restart], [failures(&[]), failures(&[])], "{mode}");
        assert_eq!(database.user_ids().await, ["a", "b", "c"], "{mode}");
    }
}

/// If the login only may have been refused, the secret is fetched at most once in 10 s: a pooler sends the same
/// SQLSTATE while Postgres is away.
#[tokio::test]
async fn suspected_secret_is_fetched_rarely() {
    let database = Database::create().await;
    let name = &database.name;
    let pooler = Pooler::start(&database, &[]);
    let secrets = secrets_manager().await;
    // The pooler names an unknown database only to a user of its own list.
    let password = String::from_utf8(superuser().get_password().unwrap().to_vec()).unwrap();
    let secret = |database: &str| {
        let port = pooler.port;
        json!({ "username": "postgres", "password": password, "host": "localhost", "port": port, "dbname": database })
            .to_string()
    };
    secrets.create_secret().name(name).secret_string(secret("unknown")).send().await.unwrap();
    let settings = [("DATABASE_SECRET_ID", &**name), ("DATABASE_CA_BUNDLE", &server_ca())];
    let event = batch([login("a", "a")]);

    // The start fetches the secret, and once more after the first error of the pooler.
    let ingest = ingest_with(&settings).await;
    let started = Instant::now();
    secrets.put_secret_value().secret_id(name).secret_string(secret(name)).send().await.unwrap();
    let soon = invoke(&ingest, &event).await;
    let soon_after = started.elapsed();
    let mut later = invoke(&ingest, &event).await;
    while later.is_err() && started.elapsed() < Duration::from_secs(20) {
        tokio::time::sleep(Duration::from_millis(200)).await;
        later = invoke(&ingest, &event).await;
    }

    assert!(soon_after < Duration::from_secs(9), "the machine is too slow for this test");
    let expected =
        "Postgres cannot be reached: the connection pooler does not serve the database, SQLSTATE 08P01";
    assert_eq!(soon, refused("DatabaseUnreachable", expected));
    assert_eq!(later, failures(&[]));
    assert!(started.elapsed() > Duration::from_secs(9), "the secret is fetched too often");
}
