//! How often the writer tries a batch, and on which connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};

use crate::support::{
    Database, batch, error_type, failures, ingest_with, invoke, invoke_within, login, record, server_address,
};

/// Lets each INSERT fail with this SQLSTATE. A sequence counts the attempts, because it keeps its value when
/// a transaction is rolled back.
async fn refuse_inserts(database: &Database, sqlstate: &str) {
    let sql = format!(
        "CREATE SEQUENCE IF NOT EXISTS attempts;
         CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
         BEGIN
             PERFORM nextval('attempts');
             RAISE EXCEPTION USING ERRCODE = '{sqlstate}';
         END $$;
         CREATE OR REPLACE TRIGGER refuse BEFORE INSERT ON user_logins EXECUTE FUNCTION refuse()"
    );
    database.admin.batch_execute(&sql).await.unwrap();
}

/// Returns the number of attempts since the last call.
async fn attempts(database: &Database) -> i64 {
    let next: i64 = database.admin.query_one("SELECT nextval('attempts')", &[]).await.unwrap().get(0);
    database.admin.batch_execute("ALTER SEQUENCE attempts RESTART").await.unwrap();
    next - 1
}

#[tokio::test]
async fn refused_batch_is_tried_only_once() {
    let database = Database::create().await;
    let ingest = database.ingest().await;
    assert_eq!(invoke(&ingest, &batch([login("a", "a")])).await, failures(&[]));
    refuse_inserts(&database, "40001").await;

    for connection in ["kept", "new"] {
        let outcome = invoke(&ingest, &batch([login("b", "b")])).await;

        assert_eq!(error_type(&outcome), "DatabaseDeadlock", "{connection}");
        assert_eq!(attempts(&database).await, 1, "{connection}");
    }
}

#[tokio::test]
async fn broken_connection_is_tried_once_more() {
    let database = Database::create().await;
    let ingest = database.ingest().await;
    for sqlstate in ["08006", "57P01"] {
        refuse_inserts(&database, sqlstate).await;

        let outcome = invoke(&ingest, &batch([login("a", "a")])).await;

        assert_eq!(error_type(&outcome), "DatabaseUnreachable", "{sqlstate}");
        assert_eq!(attempts(&database).await, 2, "{sqlstate}");
    }
}

/// A failover can turn the server of a kept connection into a standby, which is read-only.
#[tokio::test]
async fn read_only_connection_is_replaced() {
    let database = Database::create().await;
    let set = format!("ALTER ROLE {} SET default_transaction_read_only = on", database.name);
    database.admin.batch_execute(&set).await.unwrap();
    let ingest = database.ingest().await;
    let reset = format!("ALTER ROLE {} RESET default_transaction_read_only", database.name);
    database.admin.batch_execute(&reset).await.unwrap();

    let answer = invoke(&ingest, &batch([login("a", "a")])).await;

    assert_eq!(answer, failures(&[]));
    assert_eq!(database.user_ids().await, ["a"]);
}

#[tokio::test]
async fn sqlstate_decides_the_error_type() {
    let database = Database::create().await;
    let ingest = database.ingest().await;
    for (sqlstate, expected) in [
        ("57P02", "DatabaseUnreachable"),
        ("57P03", "DatabaseUnreachable"),
        ("57P05", "DatabaseUnreachable"),
        ("28000", "DatabaseLoginRefused"),
        ("53300", "DatabaseOutOfConnections"),
        ("40P01", "DatabaseDeadlock"),
        ("55P03", "DatabaseDeadlock"),
        ("57014", "DatabaseTimedOut"),
        ("25P04", "DatabaseTimedOut"),
        ("LE001", "SaltChanged"),
        ("LE003", "VaultKeyChanged"),
    ] {
        refuse_inserts(&database, sqlstate).await;

        let outcome = invoke(&ingest, &batch([login("a", "a")])).await;

        assert_eq!(error_type(&outcome), expected, "{sqlstate}");
    }
}

#[tokio::test]
async fn failed_batch_leaves_no_session() {
    let database = Database::create().await;
    let ingest = database.ingest().await;
    refuse_inserts(&database, "40001").await;

    let outcome = invoke(&ingest, &batch([login("a", "a")])).await;

    assert_eq!(error_type(&outcome), "DatabaseDeadlock");
    let sessions = "SELECT FROM pg_stat_activity WHERE usename = $1";
    let no_session = async {
        while !database.admin.query(sessions, &[&database.name]).await.unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), no_session).await.expect("a session stays");
}

/// While the sandbox was frozen, the network forgot the connection, so Postgres receives nothing.
#[tokio::test]
async fn silent_connection_is_replaced_in_time() {
    let database = Database::create().await;
    let network = Network::start().await;
    let url = database.url().replace(&server_address(), &network.address);
    let ingest = ingest_with(&[("DATABASE_URL", &url)]).await;
    assert_eq!(invoke(&ingest, &batch([login("a", "a")])).await, failures(&[]));
    network.forget_connections();

    let event = batch([login("b", "b")]).to_string();
    let answer = invoke_within(&ingest, &event, Duration::from_secs(4)).await;

    assert_eq!(answer, failures(&[]));
    assert_eq!(database.user_ids().await, ["a", "b"]);
}

/// The messages after the last full statement are all bad, so no rows are left for another statement.
#[tokio::test]
async fn full_statement_before_bad_message_is_committed() {
    let database = Database::create().await;
    let ingest = database.ingest().await;
    let good = (0..256).map(|number| login(&number.to_string(), "x"));

    let mut last = record("last", "not JSON");
    last["attributes"]["SentTimestamp"] = "1794614400001".into();
    let answer = invoke(&ingest, &batch(good.chain([last]))).await;

    assert_eq!(answer, failures(&["last"]));
    assert_eq!(database.ledger_entries().await, 256);
}

#[tokio::test]
async fn small_batch_needs_no_transaction_block() {
    let database = Database::create().await;
    let ingest = database.ingest().await;
    // Only the transaction of several statements sets this timeout.
    let refuse = "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF current_setting('idle_in_transaction_session_timeout') <> '0' THEN
                RAISE EXCEPTION USING ERRCODE = '40001';
            END IF;
            RETURN NULL;
        END $$;
        CREATE TRIGGER refuse BEFORE INSERT ON user_logins EXECUTE FUNCTION refuse()";
    database.admin.batch_execute(refuse).await.unwrap();

    let one_statement = invoke(&ingest, &batch((0..256).map(|number| login(&number.to_string(), "x")))).await;
    let two_statements =
        invoke(&ingest, &batch((0..257).map(|number| login(&format!("n{number}"), "x")))).await;

    assert_eq!(one_statement, failures(&[]));
    assert_eq!(error_type(&two_statements), "DatabaseDeadlock");
}

/// A proxy in front of Postgres that can forget its connections: they stay open, but carry nothing.
struct Network {
    address: String,
    forgotten: Arc<AtomicUsize>,
}

impl Network {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let forgotten = Arc::new(AtomicUsize::new(0));
        let generation = Arc::clone(&forgotten);
        tokio::spawn(async move {
            loop {
                let (mut function, _) = listener.accept().await.unwrap();
                let mut postgres = TcpStream::connect(server_address()).await.unwrap();
                let generation = Arc::clone(&generation);
                let accepted = generation.load(Ordering::Relaxed);
                tokio::spawn(async move {
                    tokio::select! {
                        _ = copy_bidirectional(&mut function, &mut postgres) => {}
                        () = changed(&generation, accepted) => std::future::pending().await,
                    }
                });
            }
        });
        Self { address, forgotten }
    }

    fn forget_connections(&self) {
        self.forgotten.fetch_add(1, Ordering::Relaxed);
    }
}

/// Waits until the number has changed.
async fn changed(number: &AtomicUsize, before: usize) {
    while number.load(Ordering::Relaxed) == before {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
