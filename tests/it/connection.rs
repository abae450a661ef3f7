//! The connection to Postgres: failures, timeouts, TLS and credentials.

use std::time::{Duration, Instant};

use aws_sdk_secretsmanager::Client as SecretsManager;
use login_etl::deadline::Deadline;
use login_etl::handler::Ingest;
use login_etl::store::{Fingerprints, Rows, Written};
use serde_json::json;

use crate::support::{
    Database, Logs, Proxy, batch, connect, credentials, error_type, failures, ingest_with, invoke,
    invoke_within, login, masker, secrets_manager, server_address, server_ca, store_with, superuser,
};

#[tokio::test]
async fn dead_connection_is_replaced() {
    let database = Database::create().await;
    let ingest = database.ingest().await;
    assert_eq!(invoke(&ingest, &batch([login("a", "a")])).await, failures(&[]));
    assert_eq!(database.end_sessions().await, 1);

    let answer = invoke(&ingest, &batch([login("b", "b")])).await;

    assert_eq!(answer, failures(&[]));
    assert_eq!(database.user_ids().await, ["a", "b"]);
}

#[tokio::test]
async fn locked_table_times_out_and_leaves_no_session() {
    let database = Database::create().await;
    let ingest = database.ingest().await;
    let locker = connect(superuser().dbname(&database.name)).await;
    locker.batch_execute("BEGIN; LOCK TABLE user_logins").await.unwrap();
    let active = "SELECT FROM pg_stat_activity WHERE usename = $1 AND state = 'active'";
    let started = Instant::now();

    let outcome = invoke_within(&ingest, &batch([login("a", "a")]).to_string(), Duration::from_secs(2)).await;
    let elapsed = started.elapsed();
    // The function requests the cancellation and does not wait until Postgres has cancelled the statement.
    while !database.admin.query(active, &[&database.name]).await.unwrap().is_empty() {
        assert!(started.elapsed() < Duration::from_secs(9), "the statement is not cancelled");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    locker.batch_execute("ROLLBACK").await.unwrap();
    let repeated = invoke(&ingest, &batch([login("a", "a")])).await;

    assert_eq!(error_type(&outcome), "DatabaseTimedOut");
    assert!(elapsed < Duration::from_secs(2));
    assert_eq!(repeated, failures(&[]));
    assert_eq!(database.user_ids().await, ["a"]);
}

/// Postgres ends the transaction of a function that falls silent, and so releases the transaction's locks.
/// A transaction of several statements must set the timeout for this. A single statement is never idle.
#[tokio::test]
async fn transactions_of_a_silent_function_end() {
    let database = Database::create().await;
    let ingest = database.ingest().await;
    let record_timeouts = "CREATE TABLE timeouts (timeout text);
        CREATE FUNCTION record_timeout() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
        BEGIN
            INSERT INTO timeouts VALUES (current_setting('idle_in_transaction_session_timeout'));
            RETURN NULL;
        END $$;
        CREATE TRIGGER record_timeout AFTER INSERT ON user_logins EXECUTE FUNCTION record_timeout()";
    database.admin.batch_execute(record_timeouts).await.unwrap();
    let take_timeouts = async || -> Vec<String> {
        let rows = database.admin.query("DELETE FROM timeouts RETURNING timeout", &[]).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    };
    let two_statements = batch((0..300).map(|number| login(&number.to_string(), "x")));
    // The ledger holds message 0 after the first batch, so this batch is written row by row.
    let repeated = batch([login("0", "0"), login("a", "a")]);

    let answer = invoke(&ingest, &two_statements).await;
    let of_two_statements = take_timeouts().await;
    let repeated_answer = invoke(&ingest, &repeated).await;
    let of_row_by_row = take_timeouts().await;

    assert_eq!([answer, repeated_answer], [failures(&[]), failures(&[])]);
    assert_eq!(of_two_statements, ["1min", "1min"]);
    // Once for the statement that checks the privileges, and once for the rows.
    assert_eq!(of_row_by_row, ["0", "0"]);
}

#[tokio::test]
async fn invocation_without_time_fails_and_can_be_repeated() {
    let database = Database::create().await;
    let ingest = database.ingest().await;
    let event = batch([login("a", "a")]);

    let outcome = invoke_within(&ingest, &event.to_string(), Duration::ZERO).await;
    let repeated = invoke(&ingest, &event).await;

    // Postgres may have committed the statement that the first invocation sent.
    assert_eq!(error_type(&outcome), "DatabaseTimedOut");
    assert_eq!(repeated, failures(&[]));
    assert_eq!(database.user_ids().await, ["a"]);
}

#[tokio::test]
async fn unreachable_postgres_fails_the_batch_only() {
    let logs = Logs::capture();
    // Nothing listens on port 9.
    let ingest = ingest_with(&[("DATABASE_URL", "postgresql://u:p@127.0.0.1:9/d?sslmode=disable")]).await;

    let outcome = invoke(&ingest, &batch([login("a", "a")])).await;

    assert_eq!(error_type(&outcome), "DatabaseUnreachable");
    assert_eq!(outcome.unwrap_err().error_message, "Postgres cannot be reached: connection refused");
    assert_eq!(logs.lines("batch failed")[0]["error_type"], "DatabaseUnreachable");
}

#[tokio::test]
async fn unusable_address_is_explained() {
    let database = Database::create().await;
    let name = &database.name;
    let port = superuser().get_ports()[0];
    // `.invalid` is a domain that DNS never has.
    let no_name = format!("postgresql://{name}:{name}@host.invalid/{name}");
    let no_password = format!("postgresql://{name}@localhost:{port}/{name}?sslmode=disable");
    let no_socket = format!("postgresql://{name}:{name}@%2Fnowhere/{name}");
    let standby = format!("{}&target_session_attrs=read-write", database.url());
    // Without TLS there is nothing to bind to.
    let no_binding = format!("{}&channel_binding=require", database.url());
    database
        .admin
        .batch_execute(&format!("ALTER ROLE {name} SET default_transaction_read_only = on"))
        .await
        .unwrap();
    for (url, cause) in [
        (no_name, "the name of the host cannot be resolved (DNS)"),
        (no_password, "the server requires a password, and DATABASE_URL has none"),
        (no_socket, "entity not found"),
        (standby, "the server is read-only, and target_session_attrs is read-write"),
        (no_binding, "the server does not offer channel binding, which is required"),
    ] {
        let ingest = ingest_with(&[("DATABASE_URL", &url)]).await;

        let error = invoke(&ingest, &batch([login("a", "a")])).await.unwrap_err();

        assert_eq!(error.error_type, "DatabaseUnreachable");
        assert_eq!(error.error_message, format!("Postgres cannot be reached: {cause}"));
    }
}

#[tokio::test]
async fn end_of_last_connection_is_in_next_error() {
    let database = Database::create().await;
    let mut proxy = Proxy::start().await;
    let url = database.url().replace(&server_address(), &proxy.address());
    let ingest = ingest_with(&[("DATABASE_URL", &url)]).await;
    assert_eq!(invoke(&ingest, &batch([login("a", "a")])).await, failures(&[]));
    let message_of = async |id: &str| {
        let outcome = invoke(&ingest, &batch([login(id, id)])).await;
        outcome.map_err(|error| error.error_message)
    };

    proxy.close();
    database.end_sessions().await;
    let after_the_end = message_of("b").await;
    let once_more = message_of("b").await;
    proxy.open().await;
    let connected = message_of("b").await;
    // The connection breaks, and Postgres sends no error.
    proxy.close();
    proxy.cut();
    let after_the_cut = message_of("c").await;

    let ended =
        "Postgres cannot be reached: connection refused; the previous connection ended: SQLSTATE 57P01";
    let cut = "Postgres cannot be reached: connection refused; the previous connection ended: \
               the server closed the connection and sent no reason";
    assert_eq!([after_the_end, once_more], [Err(ended.to_owned()), Err(ended.to_owned())]);
    assert_eq!(connected.unwrap(), failures(&[]).unwrap());
    assert_eq!(after_the_cut, Err(cut.to_owned()));
}

/// Postgres ends the connection inside each attempt, and the second attempt's error is the answer.
#[tokio::test]
async fn connection_that_ends_mid_batch_is_explained() {
    let database = Database::create().await;
    let end_own_session = "CREATE FUNCTION end_session() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
        AS $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NEW; END $$;
        CREATE TRIGGER end_session BEFORE INSERT ON user_logins EXECUTE FUNCTION end_session()";
    database.admin.batch_execute(end_own_session).await.unwrap();
    let ingest = database.ingest().await;
    let logs = Logs::capture();

    for rows in [1, 300] {
        let outcome = invoke(&ingest, &batch((0..rows).map(|row| login(&row.to_string(), "a")))).await;

        let expected = "Postgres cannot be reached: SQLSTATE 57P01";
        assert_eq!(outcome.unwrap_err().error_message, expected, "{rows}");
    }
    assert_eq!(logs.lines("batch failed")[1]["sqlstate"], "57P01");
}

#[tokio::test]
async fn each_batch_failure_has_its_error_type() {
    let database = Database::create().await;
    let name = &database.name;
    let cases = [
        (vec![format!("ALTER ROLE {name} CONNECTION LIMIT 0")], "DatabaseOutOfConnections"),
        (vec![format!("ALTER ROLE {name} CONNECTION LIMIT -1 PASSWORD 'other'")], "DatabaseLoginRefused"),
        (
            vec![
                format!("ALTER ROLE {name} PASSWORD '{name}'"),
                format!("ALTER ROLE {name} SET default_transaction_read_only = on"),
            ],
            "DatabaseRefused",
        ),
        (
            vec![
                format!("ALTER ROLE {name} RESET ALL"),
                "REVOKE INSERT ON user_logins FROM login_writer".to_owned(),
            ],
            "DatabaseRefused",
        ),
        (
            vec![
                "GRANT INSERT ON user_logins TO login_writer".to_owned(),
                format!("ALTER ROLE {name} SET lock_timeout = '50ms'"),
                "BEGIN".to_owned(),
                "LOCK user_logins".to_owned(),
            ],
            "DatabaseDeadlock",
        ),
        // As `transaction_timeout` does from Postgres 17 on.
        (
            vec![
                "CREATE FUNCTION time_out() RETURNS trigger LANGUAGE plpgsql
                 AS $$ BEGIN RAISE EXCEPTION USING ERRCODE = '25P04'; END $$"
                    .to_owned(),
                "CREATE TRIGGER time_out BEFORE INSERT ON user_logins EXECUTE FUNCTION time_out()".to_owned(),
            ],
            "DatabaseTimedOut",
        ),
        (
            vec![
                "DROP TRIGGER time_out ON user_logins".to_owned(),
                "ALTER TABLE user_logins RENAME TO elsewhere".to_owned(),
            ],
            "DatabaseRefused",
        ),
    ];
    for (statements, expected) in cases {
        for statement in &statements {
            database.admin.batch_execute(statement).await.unwrap();
        }
        let ingest = database.ingest().await;

        let outcome = invoke(&ingest, &batch([login("a", "a")])).await;

        assert_eq!(error_type(&outcome), expected, "{statements:?}");
        // The lock of this case would block the next case.
        database.admin.batch_execute("ROLLBACK").await.unwrap();
    }

    database.admin.batch_execute("ALTER TABLE elsewhere RENAME TO user_logins").await.unwrap();
    database.admin.batch_execute(&format!("ALTER ROLE {name} RESET ALL")).await.unwrap();
    let ingest = database.ingest().await;
    assert_eq!(invoke(&ingest, &batch([login("a", "a")])).await, failures(&[]));
    assert_eq!(database.user_ids().await, ["a"]);
}

#[tokio::test]
async fn tls_verifies_authority_and_name() {
    let database = Database::create().await;
    let bundle = server_ca();
    let url = database.url();
    let event = batch([login("a", "a")]);

    // The server is verified in every mode but `disable`, and also without a mode.
    for mode in ["sslmode=verify-full", "sslmode=require", "sslmode=prefer", ""] {
        let url = url.replace("sslmode=disable", mode);
        let ingest = ingest_with(&[("DATABASE_URL", &url), ("DATABASE_CA_BUNDLE", &bundle)]).await;
        assert_eq!(invoke(&ingest, &event).await, failures(&[]), "{mode}");

        let ingest = ingest_with(&[("DATABASE_URL", &url)]).await;
        assert_eq!(error_type(&invoke(&ingest, &event).await), "DatabaseUnreachable", "{mode}");
    }
    let encrypted_sessions =
        "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE usename = $1 AND ssl";
    let ingest = ingest_with(&[
        ("DATABASE_URL", &url.replace("sslmode=disable", "sslmode=verify-full")),
        ("DATABASE_CA_BUNDLE", &bundle),
    ])
    .await;
    let sessions: i64 = database.admin.query_one(encrypted_sessions, &[&database.name]).await.unwrap().get(0);
    assert_eq!(sessions, 1);
    drop(ingest);

    // The certificate names localhost and 127.0.0.1, but not this host.
    let url = url.replace("sslmode=disable", "hostaddr=127.0.0.1").replace("localhost", "other.example");
    let ingest = ingest_with(&[("DATABASE_URL", &url), ("DATABASE_CA_BUNDLE", &bundle)]).await;
    let refused = invoke(&ingest, &event).await.unwrap_err();
    assert_eq!(refused.error_type, "DatabaseUnreachable");
    assert!(refused.error_message.ends_with("(hostname mismatch)"), "{}", refused.error_message);
}

#[tokio::test]
async fn a_bundle_may_hold_many_certificates() {
    let database = Database::create().await;
    let server_ca = std::fs::read_to_string(server_ca()).unwrap();
    let other_ca = include_str!("other_ca.pem");
    let path = std::env::temp_dir().join(format!("{}.pem", database.name));
    std::fs::write(&path, format!("# a comment\n{other_ca}\n{server_ca}")).unwrap();
    let url = database.url().replace("disable", "verify-full");

    let ingest = ingest_with(&[("DATABASE_URL", &url), ("DATABASE_CA_BUNDLE", path.to_str().unwrap())]).await;

    assert_eq!(invoke(&ingest, &batch([login("a", "a")])).await, failures(&[]));
    std::fs::remove_file(path).unwrap();
}

#[tokio::test]
async fn rotated_credentials_are_fetched_again() {
    let database = Database::create().await;
    let name = &database.name;
    let secrets = secrets_manager().await;
    secrets.create_secret().name(name).secret_string(credentials(name, name)).send().await.unwrap();
    let ingest = ingest_with_managed_secret(name).await;
    assert_eq!(invoke(&ingest, &batch([login("a", "a")])).await, failures(&[]));

    let rotate = format!("ALTER ROLE {name} PASSWORD 'rotated'");
    database.admin.batch_execute(&rotate).await.unwrap();
    secrets
        .put_secret_value()
        .secret_id(name)
        .secret_string(credentials(name, "rotated"))
        .send()
        .await
        .unwrap();
    database.end_sessions().await;
    let answer = invoke(&ingest, &batch([login("b", "b")])).await;

    assert_eq!(answer, failures(&[]));
    assert_eq!(database.user_ids().await, ["a", "b"]);
}

/// A rotation changes the secret first. Until `migrate` runs, the database has the old password.
#[tokio::test]
async fn interrupted_rotation_leaves_a_password_that_works() {
    let database = Database::create().await;
    let name = &database.name;
    let secrets = secrets_manager().await;
    secrets.create_secret().name(name).secret_string(credentials(name, name)).send().await.unwrap();
    secrets.put_secret_value().secret_id(name).secret_string(credentials(name, "new")).send().await.unwrap();
    let ingest = ingest_with_managed_secret(name).await;

    let interrupted = invoke(&ingest, &batch([login("a", "a")])).await;
    database.execute(&format!("ALTER ROLE {name} PASSWORD 'new'")).await;
    database.end_sessions().await;
    let complete = invoke(&ingest, &batch([login("b", "b")])).await;
    database.execute(&format!("ALTER ROLE {name} PASSWORD 'unknown'")).await;
    database.end_sessions().await;
    let unknown = invoke(&ingest, &batch([login("c", "c")])).await;

    assert_eq!([interrupted, complete], [failures(&[]), failures(&[])]);
    assert_eq!(error_type(&unknown), "DatabaseLoginRefused");
}

/// Starts a function that reads its user and password from such a secret. The secret is named like the database.
async fn ingest_with_managed_secret(name: &str) -> Ingest {
    let address = server_address();
    let (host, port) = address.split_once(':').unwrap();
    ingest_with(&[
        ("DATABASE_SECRET_ID", name),
        ("DATABASE_HOST", host),
        ("DATABASE_PORT", port),
        ("DATABASE_NAME", name),
        ("DATABASE_CA_BUNDLE", &server_ca()),
    ])
    .await
}

#[tokio::test]
async fn empty_batch_sends_nothing() {
    let store = store_with(&[("DATABASE_URL", "postgresql://u:p@127.0.0.1:9/d?sslmode=disable")]).await;
    let fingerprints = Fingerprints { salt: masker().salt_fingerprint(), vault_key: None };
    let mut connecting = Duration::ZERO;

    let writer = store.writer(&fingerprints, Deadline::within(Duration::from_secs(1)), &mut connecting);
    let written = writer.finish(Rows::default()).await;

    assert_eq!(written, Ok(Written::default()));
    assert_eq!(connecting, Duration::ZERO);
}

#[tokio::test]
async fn refused_login_without_secret_names_the_secret() {
    let database = Database::create().await;
    let name = &database.name;
    let secrets = secrets_manager().await;
    create_database_secret(&secrets, name, name).await;
    let ingest = ingest_with(&[("DATABASE_SECRET_ID", name), ("DATABASE_CA_BUNDLE", &server_ca())]).await;
    assert_eq!(invoke(&ingest, &batch([login("a", "a")])).await, failures(&[]));

    database.execute(&format!("ALTER ROLE {name} PASSWORD 'rotated'")).await;
    secrets.delete_secret().secret_id(name).force_delete_without_recovery(true).send().await.unwrap();
    database.end_sessions().await;
    let outcome = invoke(&ingest, &batch([login("b", "b")])).await;

    assert_eq!(error_type(&outcome), "SecretsUnavailable");
}

/// Postgres does not refuse the login to a database that does not exist: it refuses a statement, by its SQLSTATE.
#[tokio::test]
async fn renamed_database_is_found_in_the_secret() {
    let database = Database::create().await;
    let name = &database.name;
    let renamed = format!("{name}_renamed");
    let secrets = secrets_manager().await;
    create_database_secret(&secrets, name, name).await;
    let ingest = ingest_with(&[("DATABASE_SECRET_ID", name), ("DATABASE_CA_BUNDLE", &server_ca())]).await;
    assert_eq!(invoke(&ingest, &batch([login("a", "a")])).await, failures(&[]));

    let new_secret = database_secret(name, &renamed);
    secrets.put_secret_value().secret_id(name).secret_string(new_secret).send().await.unwrap();
    database.end_sessions().await;
    drop(database.admin);
    let server = connect(&superuser()).await;
    server.batch_execute(&format!("ALTER DATABASE {name} RENAME TO {renamed}")).await.unwrap();
    let answer = invoke(&ingest, &batch([login("b", "b")])).await;

    assert_eq!(answer, failures(&[]));
}

#[tokio::test]
async fn missing_privilege_is_no_missing_function() {
    let database = Database::create().await;
    database.execute("REVOKE INSERT ON user_logins FROM login_writer").await;
    let ingest = database.ingest().await;

    let error = invoke(&ingest, &batch([login("a", "a")])).await.unwrap_err();

    assert_eq!(error.error_message, "Postgres refused the statement, SQLSTATE 42501");
}

/// Creates a secret with all parts of the address, as RDS does for a user of its own. The secret has the name of the user.
async fn create_database_secret(secrets: &SecretsManager, user: &str, database: &str) {
    secrets.create_secret().name(user).secret_string(database_secret(user, database)).send().await.unwrap();
}

fn database_secret(user: &str, database: &str) -> String {
    let address = server_address();
    let (host, port) = address.split_once(':').unwrap();
    json!({ "username": user, "password": user, "host": host, "port": port, "dbname": database }).to_string()
}
