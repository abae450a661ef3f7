//! The built programs: their settings, the texts of their errors, and their exit codes.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, SystemTime};

use login::pii::{DeviceId, Masker, Pii, Salts};
use login_etl::aws::login_queue::LoginQueue;
use login_etl::aws::secrets::Secrets;
use login_etl::config::{DatabaseSource, Settings};
use login_etl::handler::Ingest;
use login_etl::partitions;
use login_etl::store::Store;
use login_etl::store::tls::PendingTls;
use serde_json::{Value, json};
use tokio_postgres::NoTls;
use tokio_postgres::error::SqlState;

use crate::support::{
    Database, Proxy, SALT, WRITER_LOGIN_LOCK, batch, connect, login, secrets_manager, server_address,
    superuser, unique_name, variable,
};
use crate::vault_support::{KEY, OTHER_KEY};

/// A database out of reach: nothing listens on port 9. `hunter2` stands for every secret in these tests.
const UNREACHABLE: (&str, &str) = ("DATABASE_URL", "postgresql://u:hunter2@127.0.0.1:9/d?sslmode=disable");

/// Runs a program until it ends, with these environment variables and those of the AWS SDK only.
pub(crate) fn run(program: &str, variables: &[(&str, &str)]) -> Output {
    run_with_arguments(program, &[], variables)
}

fn run_with_arguments(executable: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    program(executable, variables).args(arguments).output().unwrap()
}

fn program(executable: &str, variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(executable);
    command.env_clear().env("AWS_MAX_ATTEMPTS", "1");
    if executable == env!("CARGO_BIN_EXE_bootstrap") {
        // Nothing listens on port 9: a function that starts ends with its first request to the Runtime API.
        command.env("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:9").env("AWS_LAMBDA_FUNCTION_NAME", "ingest");
        command.env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128").env("AWS_LAMBDA_FUNCTION_VERSION", "1");
    }
    for name in ["AWS_ENDPOINT_URL", "AWS_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"] {
        command.env(name, variable(name));
    }
    command.envs(variables.iter().copied());
    command
}

/// Returns the error in the last line of the log, or the message of a line without an error.
fn last_log_text(output: &Output) -> String {
    assert_eq!(output.stderr, b"", "programs log on standard output only");
    let lines: Vec<serde_json::Value> = output
        .stdout
        .split(|byte| *byte == b'\n')
        .filter_map(|line| serde_json::from_slice(line).ok())
        .collect();
    let last = lines.last().expect("the program logged nothing");
    last["error"].as_str().unwrap_or_else(|| last["message"].as_str().unwrap()).to_owned()
}

/// Returns the error with which the function fails to start.
fn startup_error(variables: &[(&str, &str)]) -> String {
    let output = run(env!("CARGO_BIN_EXE_bootstrap"), variables);
    assert_eq!(output.status.code(), Some(1));
    last_log_text(&output)
}

/// Creates a secret with this text, and returns its name.
pub(crate) async fn create_secret(text: &str) -> String {
    let name = unique_name();
    secrets_manager().await.create_secret().name(&name).secret_string(text).send().await.unwrap();
    name
}

async fn put_secret(name: &str, text: &str) {
    secrets_manager().await.put_secret_value().secret_id(name).secret_string(text).send().await.unwrap();
}

/// Returns the URL with which the superuser logs in to a database.
pub(crate) fn superuser_url(database: &str) -> String {
    let superuser = variable("TEST_DATABASE_URL");
    let (address, _) = superuser.split_once('?').unwrap();
    let (server, _) = address.rsplit_once('/').unwrap();
    format!("{server}/{database}?sslmode=disable")
}

#[test]
fn bad_setting_is_named() {
    let salt = ("SALT_SECRET_ID", "salt");
    assert_eq!(startup_error(&[UNREACHABLE]), "SALT_SECRET_ID is not set");
    assert_eq!(startup_error(&[UNREACHABLE, ("SALT_SECRET_ID", "")]), "SALT_SECRET_ID is not set");
    assert_eq!(startup_error(&[salt]), "neither DATABASE_SECRET_ID nor DATABASE_URL is set");
    assert_eq!(
        startup_error(&[salt, UNREACHABLE, ("DATABASE_SECRET_ID", "x")]),
        "DATABASE_SECRET_ID and DATABASE_URL are both set; set only one"
    );
    assert_eq!(
        startup_error(&[salt, ("DATABASE_SECRET_ID", "x"), ("DATABASE_PORT", "hunter2")]),
        "DATABASE_PORT is not a port number"
    );
    assert_eq!(startup_error(&[salt, UNREACHABLE, ("RUST_LOG", "a=b=c")]), "RUST_LOG is not a log filter");
    for (url, problem) in [
        ("mysql://u:hunter2@h/d", "does not start with postgresql://"),
        ("postgresql://u:hunter2@h:port/d", "has a port that is not a number from 1 to 65535"),
        (
            "postgresql://u:hunter2@h/d?sslmode=maybe",
            "has the parameter sslmode, which must be disable, require or verify-full",
        ),
        (
            "postgresql://u:hunter2@h/d?sslrootcert=ca.pem",
            "has the parameter sslrootcert, which is not supported; set DATABASE_CA_BUNDLE to the path of the file, \
             and DATABASE_CA_BUNDLE_ONLY to true",
        ),
        ("postgresql://u:hunter2@/d", "names no host"),
        ("postgresql://h/d", "names no user"),
    ] {
        assert_eq!(startup_error(&[salt, ("DATABASE_URL", url)]), format!("DATABASE_URL {problem}"));
    }
    let tls = ("DATABASE_URL", "postgresql://u:hunter2@127.0.0.1:9/d");
    assert_eq!(
        startup_error(&[salt, tls, ("DATABASE_CA_BUNDLE", "/nowhere")]),
        "DATABASE_CA_BUNDLE cannot be read"
    );
    assert_eq!(
        startup_error(&[salt, tls, ("DATABASE_CA_BUNDLE", env!("CARGO_MANIFEST_PATH"))]),
        "DATABASE_CA_BUNDLE is not a file of PEM certificates"
    );
    assert_eq!(
        startup_error(&[salt, tls, ("DATABASE_CA_BUNDLE_ONLY", "true")]),
        "DATABASE_CA_BUNDLE_ONLY is true, but DATABASE_CA_BUNDLE is not set"
    );
    assert_eq!(
        startup_error(&[salt, tls, ("DATABASE_CA_BUNDLE_ONLY", "1")]),
        "DATABASE_CA_BUNDLE_ONLY is neither true nor false"
    );
}

#[test]
fn conflicting_iam_settings_are_named() {
    let iam = [("SALT_SECRET_ID", "salt"), ("DATABASE_AUTHENTICATION", "iam")];
    let [host, name, user] = [("DATABASE_HOST", "h"), ("DATABASE_NAME", "d"), ("DATABASE_USER", "u")];
    let error_with = |more: &[(&'static str, &'static str)]| startup_error(&[&iam[..], more].concat());

    assert_eq!(error_with(&[name, user]), "DATABASE_HOST is not set");
    assert_eq!(error_with(&[host, user]), "DATABASE_NAME is not set");
    assert_eq!(error_with(&[host, name]), "DATABASE_USER is not set");
    assert_eq!(
        error_with(&[host, name, user, ("DATABASE_PORT", "hunter2")]),
        "DATABASE_PORT is not a port number"
    );
    for other in [UNREACHABLE, ("DATABASE_SECRET_ID", "x")] {
        let error = error_with(&[host, name, user, other]);
        assert_eq!(error, format!("{} is set, but DATABASE_AUTHENTICATION=iam uses no password", other.0));
    }
    assert_eq!(
        startup_error(&[iam[0], UNREACHABLE, user]),
        "DATABASE_USER is set, but without DATABASE_AUTHENTICATION=iam the user comes with the password"
    );
    assert_eq!(
        startup_error(&[iam[0], UNREACHABLE, ("DATABASE_AUTHENTICATION", "hunter2")]),
        "DATABASE_AUTHENTICATION is neither password nor iam"
    );
}

#[tokio::test]
async fn function_without_credentials_does_not_start() {
    let salt = create_secret(SALT).await;
    let iam = [
        ("SALT_SECRET_ID", &*salt),
        ("DATABASE_AUTHENTICATION", "iam"),
        ("DATABASE_NAME", "d"),
        ("DATABASE_USER", "u"),
    ];

    // An IPv6 address is a host, but RDS signs for a name.
    let error = startup_error(&[&iam[..], &[("DATABASE_HOST", "::1")]].concat());

    assert_eq!(
        error,
        "DATABASE_AUTHENTICATION: no token can be signed: DATABASE_HOST is not the name of a host"
    );
}

#[test]
fn log_format_text_is_obeyed() {
    let output = run(env!("CARGO_BIN_EXE_bootstrap"), &[UNREACHABLE, ("AWS_LAMBDA_LOG_FORMAT", "Text")]);

    let text = String::from_utf8(output.stdout).unwrap();
    let end = "ERROR login_etl::telemetry: startup failed error=SALT_SECRET_ID is not set";
    assert_eq!(text.trim_end().split_once("Z ").unwrap().1.trim_start(), end);
}

#[tokio::test]
async fn unusable_salt_is_refused() {
    for (text, problem) in [
        ("0123456789abcdef0123456789abcde", "the salt has fewer than 32 bytes"),
        ("", "the salt has fewer than 32 bytes"),
        ("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "the salt has fewer than 8 different bytes"),
        (r#"{"salt":"short"}"#, "the salt has fewer than 32 bytes"),
        (
            r#"{"pepper":"0123456789abcdef0123456789abcdef"}"#,
            "the secret is a JSON object whose key salt is missing or not a string",
        ),
        (
            r#"{"salt":["0123456789abcdef0123456789abcdef"]}"#,
            "the secret is a JSON object whose key salt is missing or not a string",
        ),
        (
            r#"{"salt":"0123456789abcdef0123456789abcdef","later_salts":"fedcba9876543210fedcba9876543210"}"#,
            "the secret is a JSON object whose key later_salts is not a list of strings",
        ),
        (
            r#"{"salt":"0123456789abcdef0123456789abcdef","later_salts":["fedcba9876543210fedcba9876543210",1]}"#,
            "the secret is a JSON object whose key later_salts is not a list of strings",
        ),
        (
            r#"{"salt":"0123456789abcdef0123456789abcdef","later_salts":["short"]}"#,
            "a later salt has fewer than 32 bytes",
        ),
        (r#"{"salt":"0123456789abcdef0123456789abcdef",}"#, "the secret is in braces, but is not valid JSON"),
        (
            "\u{feff}{\"salt\":\"0123456789abcdef0123456789abcdef\"}\n",
            "the secret is in braces, but is not valid JSON",
        ),
    ] {
        let name = create_secret(text).await;
        assert_eq!(
            startup_error(&[("SALT_SECRET_ID", &name), UNREACHABLE]),
            format!("SALT_SECRET_ID: {problem}")
        );
        let settings = [("SALT_SECRET_ID", &*name), UNREACHABLE];
        let output = run_with_arguments(env!("CARGO_BIN_EXE_migrate"), &["accept-salt"], &settings);
        assert_eq!(last_log_text(&output), format!("SALT_SECRET_ID: {problem}"));
    }
    let unknown_secret = startup_error(&[("SALT_SECRET_ID", "unknown"), UNREACHABLE]);
    assert!(
        unknown_secret.starts_with(
            "SALT_SECRET_ID: Secrets Manager did not return the secret: ResourceNotFoundException"
        )
    );
}

#[tokio::test]
async fn credentials_of_the_wrong_shape_are_refused() {
    let salt = create_secret(SALT).await;
    for (text, problem) in [
        (
            "hunter2",
            "the secret is not a JSON object with username and password, and optionally host, port and dbname",
        ),
        (
            r#"{"username":"u"}"#,
            "the secret is not a JSON object with username and password, and optionally host, port and dbname",
        ),
        (r#"{"username":"u","password":"hunter2"}"#, "the secret has no host, and DATABASE_HOST is not set"),
        (
            r#"{"username":"u","password":"hunter2","host":"h"}"#,
            "the secret has no dbname, and DATABASE_NAME is not set",
        ),
        (
            r#"{"username":"u","password":"hunter2","host":" ","dbname":"d"}"#,
            "the secret has no host, and DATABASE_HOST is not set",
        ),
        (
            r#"{"username":"u","password":"hunter2","host":"db:5432","dbname":"d"}"#,
            "the host in the secret contains a port; move it to the key port",
        ),
        (
            r#"{"username":"u","password":"hunter2","host":"postgresql://u:hunter2@db/d","dbname":"d"}"#,
            "the host in the secret is a URL; write the name of the host in it",
        ),
        (
            r#"{"username":"u","password":"hunter2","host":"my db","dbname":"d"}"#,
            "the host in the secret is not the name or the address of a host",
        ),
        (
            r#"{"username":"u","password":"hunter2","host":"/run/postgresql","dbname":"d"}"#,
            "the host in the secret is not the name or the address of a host",
        ),
        (
            r#"{"username":"u","password":"hunter2","host":"h","port":0,"dbname":"d"}"#,
            "the port in the secret is not a number from 1 to 65535",
        ),
        (
            r#"{"username":"u","password":"hunter2","host":"h","port":"99999","dbname":"d"}"#,
            "the port in the secret is not a number from 1 to 65535",
        ),
    ] {
        let name = create_secret(text).await;
        let error = startup_error(&[("SALT_SECRET_ID", &salt), ("DATABASE_SECRET_ID", &name)]);
        assert_eq!(error, format!("DATABASE_SECRET_ID: {problem}"));
    }
}

#[test]
fn unreachable_secrets_manager_error_names_the_setting() {
    let error =
        startup_error(&[("SALT_SECRET_ID", "salt"), UNREACHABLE, ("AWS_ENDPOINT_URL", "http://127.0.0.1:9")]);

    assert!(error.starts_with("SALT_SECRET_ID: Secrets Manager did not return the secret: "), "{error}");
}

#[tokio::test]
async fn either_form_of_the_salt_is_accepted() {
    let with_no_later = format!(r#"{{"salt":"{SALT}","later_salts":[]}}"#);
    for text in [SALT.to_owned(), format!(r#"{{"salt":"{SALT}"}}"#), with_no_later, format!("{{{SALT}")] {
        let name = create_secret(&text).await;
        // The function starts, and then fails because there is no Runtime API.
        let error = startup_error(&[("SALT_SECRET_ID", &name), UNREACHABLE]);
        assert!(!error.contains("SALT_SECRET_ID"), "{error}");
    }
}

#[tokio::test]
async fn migrate_creates_only_what_is_absent() {
    let database = Database::create().await;
    let name = format!("{}_migrated", database.name);
    database.admin.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
    let url = superuser_url(&name);
    let admin = connect(&url.parse().unwrap()).await;
    // The table of a user who had it before the first migration, with a column of their own.
    let existing_table = "CREATE TABLE user_logins (user_id varchar(128), device_type varchar(32), masked_ip varchar(256),
                  masked_device_id varchar(256), locale varchar(32), app_version integer, create_date date, note text);
                  INSERT INTO user_logins (note) VALUES ('kept')";
    admin.batch_execute(existing_table).await.unwrap();

    for _ in 0..2 {
        let output = run(env!("CARGO_BIN_EXE_migrate"), &[("DATABASE_URL", &url)]);
        assert_eq!(last_log_text(&output), "the schema is up to date");
        assert_eq!(output.status.code(), Some(0));
    }

    let notes = admin.query("SELECT note FROM user_logins", &[]).await.unwrap();
    assert_eq!(notes.len(), 1);
    admin.query("SELECT FROM processed_messages", &[]).await.unwrap();
}

#[tokio::test]
async fn migrate_sets_the_writers_password() {
    let _guard = WRITER_LOGIN_LOCK.lock().await;
    let database = Database::create().await;
    let url = superuser_url(&database.name);
    let may_log_in = async |password: &str| {
        let mut writer = superuser();
        writer.user("login_writer").password(password).dbname(&database.name);
        writer.connect(NoTls).await.is_ok()
    };

    for password in ["correct horse", "battery \\ 'staple' é"] {
        let credentials = serde_json::json!({ "username": "login_writer", "password": password });
        let writer = create_secret(&credentials.to_string()).await;
        let settings = [("DATABASE_URL", &*url), ("WRITER_SECRET_ID", &writer)];
        let output = run(env!("CARGO_BIN_EXE_migrate"), &settings);
        assert_eq!(last_log_text(&output), "the schema is up to date");
        assert!(may_log_in(password).await);
    }

    assert!(!may_log_in("correct horse").await, "the old password still works");
    let verifier = "SELECT rolpassword FROM pg_authid WHERE rolname = 'login_writer'";
    let verifier: String = database.admin.query_one(verifier, &[]).await.unwrap().get(0);
    assert!(verifier.starts_with("SCRAM-SHA-256$"));
}

#[tokio::test]
async fn migrate_creates_a_login_that_only_reads() {
    let _guard = WRITER_LOGIN_LOCK.lock().await;
    let database = Database::create().await;
    let url = superuser_url(&database.name);
    let mut analyst = superuser();
    analyst.user("login_analyst").dbname(&database.name);

    for password in ["first", "second"] {
        let credentials = serde_json::json!({ "username": "login_analyst", "password": password });
        let reader = create_secret(&credentials.to_string()).await;
        let settings = [("DATABASE_URL", &*url), ("READER_SECRET_ID", &reader)];
        let output = run(env!("CARGO_BIN_EXE_migrate"), &settings);
        assert_eq!(last_log_text(&output), "the schema is up to date");
    }

    let old = analyst.password("first").connect(NoTls).await;
    let analyst = connect(analyst.password("second")).await;
    assert!(old.is_err(), "the old password still works");
    analyst.query("SELECT FROM user_logins", &[]).await.unwrap();
    for refused in ["INSERT INTO user_logins (user_id) VALUES ('x')", "SELECT FROM processed_messages"] {
        let error = analyst.batch_execute(refused).await.unwrap_err();
        assert_eq!(error.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE), "{refused}");
    }
}

#[tokio::test]
async fn migrate_sets_no_other_roles_password() {
    let database = Database::create().await;
    let other_role = create_secret(r#"{"username":"postgres","password":"hunter2"}"#).await;

    let url = superuser_url(&database.name);
    let output =
        run(env!("CARGO_BIN_EXE_migrate"), &[("DATABASE_URL", &url), ("WRITER_SECRET_ID", &other_role)]);

    assert_eq!(last_log_text(&output), "WRITER_SECRET_ID: the username in the secret is not login_writer");
    assert_eq!(output.status.code(), Some(1));

    let output =
        run(env!("CARGO_BIN_EXE_migrate"), &[("DATABASE_URL", &url), ("READER_SECRET_ID", &other_role)]);

    assert_eq!(last_log_text(&output), "READER_SECRET_ID: the username in the secret is not login_analyst");
    assert_eq!(output.status.code(), Some(1));
}

#[tokio::test]
async fn migrate_names_missing_iam_and_conflicting_settings() {
    let _guard = WRITER_LOGIN_LOCK.lock().await;
    let database = Database::create().await;
    let url = superuser_url(&database.name);
    let error_with = |variables: &[(&str, &str)]| {
        let settings = [&[("DATABASE_URL", &*url)], variables].concat();
        let output = run(env!("CARGO_BIN_EXE_migrate"), &settings);
        assert_eq!(output.status.code(), Some(1));
        last_log_text(&output)
    };

    let without_role = error_with(&[("WRITER_AUTHENTICATION", "iam")]);
    let both = error_with(&[("WRITER_AUTHENTICATION", "iam"), ("WRITER_SECRET_ID", "x")]);
    let without_secret = error_with(&[("WRITER_AUTHENTICATION", "password")]);
    let unknown = error_with(&[("WRITER_AUTHENTICATION", "hunter2")]);

    assert_eq!(
        without_role,
        "there is no role rds_iam: this server is not RDS or Aurora, and has no IAM authentication"
    );
    assert_eq!(both, "WRITER_SECRET_ID is set, but WRITER_AUTHENTICATION=iam uses no password");
    assert_eq!(without_secret, "WRITER_SECRET_ID is not set");
    assert_eq!(unknown, "WRITER_AUTHENTICATION is neither password nor iam");
}

#[tokio::test]
async fn migrate_accepts_a_salt() {
    let database = Database::create().await;
    let url = superuser_url(&database.name);
    let salt = create_secret(SALT).await;

    for changed in [true, false] {
        let settings = [("DATABASE_URL", &*url), ("SALT_SECRET_ID", &salt)];
        let output = run_with_arguments(env!("CARGO_BIN_EXE_migrate"), &["accept-salt"], &settings);
        assert_eq!(last_log_text(&output), "the salt is accepted");
        assert_eq!(output.stdout.windows(14).any(|text| text == b"\"changed\":true"), changed);
    }
}

#[test]
fn migrate_explains_unreachable_database() {
    let output = run(env!("CARGO_BIN_EXE_migrate"), &[UNREACHABLE]);

    assert_eq!(output.status.code(), Some(1));
    assert_eq!(last_log_text(&output), "Postgres cannot be reached: connection refused");
}

#[tokio::test]
async fn table_equals_the_one_users_have() {
    let database = Database::create().await;
    let sql = "SELECT attname::text || ' ' || format_type(atttypid, atttypmod) || CASE WHEN attnotnull THEN ' NOT NULL' ELSE '' END
               FROM pg_attribute WHERE attrelid = 'user_logins'::regclass AND attnum > 0 ORDER BY attnum";

    let columns: Vec<String> =
        database.admin.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();

    let expected = [
        "user_id character varying(128)",
        "device_type character varying(32)",
        "masked_ip character varying(256)",
        "masked_device_id character varying(256)",
        "locale character varying(32)",
        "app_version integer",
        "create_date date",
    ];
    assert_eq!(columns, expected);
    let keys = "SELECT FROM pg_constraint WHERE conrelid = 'user_logins'::regclass";
    assert_eq!(database.admin.query(keys, &[]).await.unwrap().len(), 0);
}

#[tokio::test]
async fn debug_text_holds_no_secret() {
    let salt = create_secret(SALT).await;
    let database =
        create_secret(r#"{"username":"u","password":"hunter2","host":"127.0.0.1","dbname":"d"}"#).await;
    let url = settings(&[("SALT_SECRET_ID", &salt), UNREACHABLE]);
    let by_secret = settings(&[("SALT_SECRET_ID", &salt), ("DATABASE_SECRET_ID", &database)]);
    let by_token = settings(&[
        ("SALT_SECRET_ID", &salt),
        ("DATABASE_AUTHENTICATION", "iam"),
        ("DATABASE_HOST", "127.0.0.1"),
        ("DATABASE_NAME", "d"),
        ("DATABASE_USER", "u"),
    ]);
    let tls = PendingTls::start(&url.database).unwrap();
    let secrets = Secrets::from_env().await;
    let credentials = secrets.credentials("DATABASE_SECRET_ID", &database).await.unwrap();
    let DatabaseSource::Iam(iam) = &by_token.database.source else { panic!("the settings above select IAM") };
    let token = secrets.rds_auth_token(iam).await.unwrap();
    let mut masker = secrets.salts(&salt).await.unwrap().maskers().unwrap().remove(0);
    let device = Pii::<DeviceId>::new("593-47-5928".into()).unwrap();

    let texts = [
        format!("{url:#?}{by_secret:#?}{by_token:#?}{credentials:#?}{token:#?}{secrets:#?}"),
        format!("{device:#?}{masker:#?}{:#?}{:#?}", masker.mask(&device), masker.salt_fingerprint()),
        format!("{:#?}", Store::new(url.database, tls, secrets.clone())),
        format!("{:#?}", Ingest::start(by_secret).await.unwrap()),
    ];

    for text in texts {
        for secret in [SALT, "hunter2", "593-47-5928", "X-Amz-Signature"] {
            assert!(!text.contains(secret), "a debug text holds {secret}");
        }
    }
}

/// An exact text leaves no place for a value.
#[tokio::test]
async fn debug_text_is_only_a_name() {
    let by_secret = settings(&[("SALT_SECRET_ID", "salt"), ("DATABASE_SECRET_ID", "database")]).database;
    let by_token = settings(&[
        ("SALT_SECRET_ID", "salt"),
        ("DATABASE_AUTHENTICATION", "iam"),
        ("DATABASE_HOST", "127.0.0.1"),
        ("DATABASE_NAME", "d"),
        ("DATABASE_USER", "u"),
    ]);
    let tls = PendingTls::start(&by_secret).unwrap();
    let DatabaseSource::Secret(secret) = &by_secret.source else { panic!("the settings select a secret") };
    let DatabaseSource::Iam(iam) = &by_token.database.source else { panic!("the settings select IAM") };
    let sdk = aws_config::load_defaults(aws_config::BehaviorVersion::latest()).await;
    let queue = LoginQueue::new(&sdk, "https://sqs/123456789012/logins".to_owned()).unwrap();
    let mut masker = Masker::new(&SALT.into()).unwrap();
    let device = Pii::<DeviceId>::new("593-47-5928".into()).unwrap();

    assert_eq!(format!("{:?} {:?}", by_secret.source, by_token.database.source), "Secret Iam");
    assert_eq!(
        format!("{secret:?} {iam:?} {tls:?}"),
        "SecretSettings { .. } IamSettings { .. } PendingTls { .. }"
    );
    assert_eq!(format!("{:?} {queue:?}", Secrets::from_env().await), "Secrets { .. } LoginQueue { .. }");
    assert_eq!(
        format!("{device:?} {:?} {masker:?}", masker.mask(&device)),
        "Pii<device_id> Masked<device_id> Masker { .. }"
    );
}

fn settings(variables: &[(&str, &str)]) -> Settings {
    Settings::read(|name| Some(variables.iter().find(|(variable, _)| *variable == name)?.1.to_owned()))
        .unwrap()
}

/// The memory holds raw values, the salt and passwords. A core file would write these to disk.
#[tokio::test]
async fn crash_leaves_no_core_file() {
    let salt = create_secret(SALT).await;
    let runtime_api = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = runtime_api.local_addr().unwrap().to_string();
    let variables =
        [("SALT_SECRET_ID", &*salt), UNREACHABLE, ("AWS_LAMBDA_RUNTIME_API", &address), ("RUST_LOG", "off")];

    let function = crash(&mut program(env!("CARGO_BIN_EXE_bootstrap"), &variables), || {
        // The function has started when it connects to the Runtime API.
        runtime_api.accept().unwrap()
    });
    // migrate has started when it connects to the database.
    let database = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("postgresql://u:hunter2@{}/d?sslmode=disable", database.local_addr().unwrap());
    let migrate = crash(&mut program(env!("CARGO_BIN_EXE_migrate"), &[("DATABASE_URL", &url)]), || {
        database.accept().unwrap()
    });
    let other_program = crash(Command::new("sleep").arg("60"), || {});

    assert!(!function.core_dumped());
    assert!(!migrate.core_dumped());
    assert!(other_program.core_dumped(), "no program leaves a core file here, so this test proves nothing");
}

/// Starts a program where core files of any size are allowed, in an empty folder, and aborts the program when
/// `ready` returns.
fn crash<T>(program: &mut Command, ready: impl FnOnce() -> T) -> ExitStatus {
    let folder = std::env::temp_dir().join(unique_name());
    std::fs::create_dir(&folder).unwrap();
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(r#"ulimit -c unlimited && exec "$@""#).arg("sh").arg(program.get_program());
    shell.args(program.get_args()).env_clear().current_dir(&folder);
    shell.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let mut child = shell.spawn().unwrap();
    let _connection = ready();
    while std::fs::read_to_string(format!("/proc/{}/comm", child.id())).unwrap() == "sh\n" {
        std::thread::yield_now();
    }
    Command::new("kill").args(["-ABRT", &child.id().to_string()]).status().unwrap();
    let status = child.wait().unwrap();
    std::fs::remove_dir_all(folder).unwrap();
    assert_eq!(status.signal(), Some(6));
    status
}

#[test]
fn migrate_in_lambda_waits_for_an_event() {
    let lambda = [
        ("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:9"),
        ("AWS_LAMBDA_FUNCTION_NAME", "migrate"),
        ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128"),
        ("AWS_LAMBDA_FUNCTION_VERSION", "1"),
        UNREACHABLE,
    ];

    let output = run(env!("CARGO_BIN_EXE_migrate"), &lambda);

    // The Runtime API refuses the connection, and not the database.
    assert_eq!(last_log_text(&output), "client error (Connect)");
}

/// The daily event has no key.
#[tokio::test]
async fn daily_migrate_prunes_and_counts_tokens() {
    let database = Database::create().await;
    let rows = "INSERT INTO processed_fifo_messages VALUES (gen_random_uuid(), '2026-01-01');
                INSERT INTO user_logins (user_id, masked_ip, create_date)
                    SELECT user_id, number, (now() AT TIME ZONE 'UTC')::date
                    FROM generate_series(1, 101) AS number, unnest(ARRAY['a', 'b']) AS user_id";
    database.execute(rows).await;
    let url = superuser_url(&database.name);

    let for_rotation = run_in_lambda(&url, r#"{"action": "rotate"}"#);
    let left_by_rotation = database.fifo_ledger_entries().await;
    let daily = run_in_lambda(&url, "{}");

    assert_eq!((left_by_rotation, database.fifo_ledger_entries().await), (1, 0));
    assert!(!for_rotation.contains("tokens counted"), "{for_rotation}");
    assert!(daily.contains("tokens counted") && daily.contains(r#""users_with_many_tokens":2"#), "{daily}");
}

#[tokio::test]
async fn daily_migrate_drops_old_logins() {
    let mut database = Database::create().await;
    let long_ago = SystemTime::now() - Duration::from_hours(24 * 40);
    partitions::add_days(&mut database.admin, "public", long_ago).await.unwrap();
    let rows = "INSERT INTO user_logins (user_id, create_date)
                SELECT age::text, (now() AT TIME ZONE 'UTC')::date - age FROM unnest('{5, 20, 30}'::int[]) AS age";
    database.execute(rows).await;
    let url = superuser_url(&database.name);
    let serve = |days, event| {
        let variables = [("DATABASE_URL", &*url), ("LOGIN_RETENTION_DAYS", days)];
        serve_event(env!("CARGO_BIN_EXE_migrate"), &variables, event)
    };

    let refused = serve("7", r#"{"action": "rotate"}"#);
    let for_rotation = serve("25", r#"{"action": "rotate"}"#);
    let left_by_rotation = database.user_ids().await;
    let daily = serve("25", "{}");
    let left = database.user_ids().await;
    database.execute("COMMENT ON TABLE user_logins_other IS NULL").await;
    let not_ours = serve("25", "{}");

    let problem = "LOGIN_RETENTION_DAYS is not a number of days from 16 to 65535";
    assert_eq!(refused.response["errorMessage"], problem);
    assert_eq!((&for_rotation.response, &daily.response), (&Value::Null, &Value::Null));
    assert_eq!(left_by_rotation, ["20", "30", "5"]);
    assert_eq!(left, ["20", "5"]);
    assert!(daily.log.contains(r#""message":"old logins dropped""#), "{}", daily.log);
    let problem = not_ours.response["errorMessage"].as_str().unwrap();
    assert!(problem.contains("user_logins has no partitions of days"), "{problem}");
}

#[tokio::test]
async fn migrate_rolls_up_for_analysts() {
    let database = Database::create().await;
    database.execute("INSERT INTO user_logins (user_id, create_date) VALUES ('u', '2026-01-01')").await;
    let url = superuser_url(&database.name);
    let serve = |variables: &[(&str, &str)], event| {
        serve_event(env!("CARGO_BIN_EXE_migrate"), &[&[("DATABASE_URL", &*url)], variables].concat(), event)
    };
    let (analysts, roll_up) = ([("ANALYSTS", "true")], r#"{"action": "roll-up"}"#);

    let not_set = serve(&[], roll_up);
    let wrong = serve(&[("ANALYSTS", "yes")], roll_up);
    let by_schedule = serve(&analysts, roll_up);
    let daily = serve(&analysts, "{}");
    database.execute("COMMENT ON SCHEMA analytics IS NULL").await;
    let not_ours = serve(&analysts, roll_up);
    let daily_not_ours = serve(&analysts, "{}");

    let error = |served: &Served| served.response["errorMessage"].as_str().unwrap_or_default().to_owned();
    assert_eq!(error(&not_set), "ANALYSTS is not true, so there is nothing to roll up");
    assert_eq!(error(&wrong), "ANALYSTS is neither true nor false");
    assert_eq!(by_schedule.response, json!({"days": 1, "days_left": 0}));
    assert!(by_schedule.log.contains(r#""days_rolled_up":1,"days_left":0"#), "{}", by_schedule.log);
    assert_eq!(daily.response, Value::Null);
    assert!(daily.log.contains(r#""days_rolled_up":0,"days_left":0"#), "{}", daily.log);
    assert!(error(&not_ours).contains("the schema analytics exists"), "{}", not_ours.response);
    assert_eq!(daily_not_ours.response, Value::Null, "the daily run failed");
    assert!(daily_not_ours.log.contains("the roll-up failed"), "{}", daily_not_ours.log);
}

#[tokio::test]
async fn migrate_creates_a_login_for_the_api() {
    let _guard = WRITER_LOGIN_LOCK.lock().await;
    let database = Database::create().await;
    let url = superuser_url(&database.name);
    let secret = create_secret(r#"{"username":"login_api","password":"hunter2"}"#).await;
    let settings = [("DATABASE_URL", &*url), ("ANALYSTS", "true"), ("API_SECRET_ID", &secret)];

    let output = run(env!("CARGO_BIN_EXE_migrate"), &settings);

    assert!(output.status.success(), "{}", last_log_text(&output));
    let api = connect(superuser().user("login_api").password("hunter2").dbname(&database.name)).await;
    let row =
        api.query_one("SELECT run, current_setting('statement_timeout') FROM freshness", &[]).await.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get(1)), (1, "2s"));
    api.query("SELECT FROM user_logins", &[]).await.unwrap();
    let refused = api.batch_execute("CREATE TEMPORARY TABLE t ()").await.unwrap_err();
    assert_eq!(refused.code(), Some(&SqlState::READ_ONLY_SQL_TRANSACTION));
}

#[tokio::test]
async fn migrate_creates_a_login_for_the_export() {
    let _guard = WRITER_LOGIN_LOCK.lock().await;
    let database = Database::create().await;
    let url = superuser_url(&database.name);
    let secret = create_secret(r#"{"username":"login_export","password":"hunter2"}"#).await;
    let settings = [("DATABASE_URL", &*url), ("EXPORT", "true"), ("EXPORT_SECRET_ID", &secret)];

    let output = run(env!("CARGO_BIN_EXE_migrate"), &settings);
    let by_rotation = serve_event(env!("CARGO_BIN_EXE_migrate"), &settings, r#"{"action": "rotate"}"#);

    assert!(output.status.success(), "{}", last_log_text(&output));
    assert_eq!(by_rotation.response, Value::Null);
    let config = superuser().user("login_export").password("hunter2").dbname(&database.name).clone();
    let export = connect(&config).await;
    let days = export.query("SELECT day FROM lake.exports", &[]).await.unwrap();
    assert_eq!(days.len(), 0);
    export.query("SELECT create_date FROM user_logins", &[]).await.unwrap();
}

#[tokio::test]
async fn wrong_settings_of_the_export_are_errors() {
    let database = Database::create().await;
    let url = superuser_url(&database.name);
    let secret = create_secret(r#"{"username":"login_api","password":"hunter2"}"#).await;

    let wrong = run(env!("CARGO_BIN_EXE_migrate"), &[("DATABASE_URL", &*url), ("EXPORT", "yes")]);
    let settings = [("DATABASE_URL", &*url), ("EXPORT", "true"), ("EXPORT_SECRET_ID", &secret)];
    let of_another_role = run(env!("CARGO_BIN_EXE_migrate"), &settings);

    assert_eq!(last_log_text(&wrong), "EXPORT is neither true nor false");
    assert_eq!(
        last_log_text(&of_another_role),
        "EXPORT_SECRET_ID: the username in the secret is not login_export"
    );
}

#[tokio::test]
async fn migrate_pins_folds_and_logs_in() {
    let _guard = WRITER_LOGIN_LOCK.lock().await;
    let database = Database::create().await;
    let url = superuser_url(&database.name);
    let secret = create_secret(r#"{"username":"login_vault","password":"hunter2"}"#).await;
    let settings = [
        ("DATABASE_URL", &*url),
        ("VAULT_PUBLIC_KEY", KEY),
        ("VAULT_KMS_KEY", "kms-key"),
        ("VAULT_SECRET_ID", &secret),
    ];
    let migrate = env!("CARGO_BIN_EXE_migrate");

    let by_rotation = serve_event(migrate, &settings, r#"{"action": "rotate"}"#);
    let row = "INSERT INTO vault_inbox (key_id, enc, entry_length, body)
        SELECT id, decode(repeat('04', 65), 'hex'), 99, decode('000069' || repeat('01', 96), 'hex') FROM vault_keys";
    database.execute(row).await;
    let daily = serve_event(migrate, &settings, "{}");
    let output = run(migrate, &settings);

    assert_eq!((by_rotation.response, daily.response), (Value::Null, Value::Null));
    assert!(by_rotation.log.contains(r#""key_is_new":true"#), "{}", by_rotation.log);
    assert!(daily.log.contains(r#""key_is_new":false"#), "{}", daily.log);
    assert!(
        daily.log.contains(r#""vault_rows_folded":1,"vault_rows_left":0,"vault_oldest_ms":0.0"#),
        "{}",
        daily.log
    );
    assert!(output.status.success(), "{}", last_log_text(&output));
    let config = superuser().user("login_vault").password("hunter2").dbname(&database.name).clone();
    let broker = connect(&config).await;
    let ask = "SELECT vault_ask('c', 'reveal', NULL, $1, NULL, 'test', 'SEC-1')";
    let entry: i64 = broker.query_one(ask, &[&vec![1_u8; 32]]).await.unwrap().get(0);
    let taken = broker.query_one("SELECT state, kms_key FROM vault_take($1)", &[&entry]).await.unwrap();
    assert_eq!((taken.get(0), taken.get(1)), ("sealed", "kms-key"));
}

#[tokio::test]
async fn another_vault_key_must_be_accepted() {
    let database = Database::create().await;
    let url = superuser_url(&database.name);
    let kms_key = ("VAULT_KMS_KEY", "kms-key");
    let (old, new) = (("VAULT_PUBLIC_KEY", KEY), ("VAULT_PUBLIC_KEY", OTHER_KEY));
    let url = ("DATABASE_URL", &*url);
    let migrate = env!("CARGO_BIN_EXE_migrate");
    let is_refused = |settings: &[(&str, &str)]| {
        let text = last_log_text(&run(migrate, settings));
        assert!(text.starts_with("VAULT_PUBLIC_KEY is not the current key of the vault: "), "{text}");
    };
    assert!(run(migrate, &[url, old, kms_key]).status.success());

    is_refused(&[url, new, kms_key]);
    let accepted = run_with_arguments(migrate, &["accept-vault-key"], &[url, new, kms_key]);
    is_refused(&[url, old, kms_key]);
    let accept = r#"{"action": "accept-vault-key"}"#;
    let events = [
        serve_event(migrate, &[url, old, kms_key], accept).response,
        serve_event(migrate, &[url, old, kms_key], accept).response,
        serve_event(
            migrate,
            &[url, old, kms_key],
            &accept.replace('}', &format!(r#", "public_key": "{OTHER_KEY}", "kms_key": "k"}}"#)),
        )
        .response,
    ];

    assert_eq!(last_log_text(&accepted), "the key of the vault is accepted");
    assert_eq!(events, [json!({"changed": true}), json!({"changed": false}), json!({"changed": true})]);
    assert!(run(migrate, &[url, new, kms_key]).status.success());
}

#[tokio::test]
async fn wrong_settings_of_the_vault_are_errors() {
    let database = Database::create().await;
    let url = superuser_url(&database.name);
    let secret = create_secret(r#"{"username":"login_api","password":"hunter2"}"#).await;
    let url = ("DATABASE_URL", &*url);
    let (key, kms_key) = (("VAULT_PUBLIC_KEY", KEY), ("VAULT_KMS_KEY", "k"));
    let error = |settings: &[(&str, &str)]| last_log_text(&run(env!("CARGO_BIN_EXE_migrate"), settings));

    assert_eq!(error(&[url, ("VAULT_PUBLIC_KEY", "hunter2"), kms_key]), "VAULT_PUBLIC_KEY is not base64");
    assert_eq!(error(&[url, key]), "VAULT_KMS_KEY is not set");
    assert_eq!(
        error(&[url, key, kms_key, ("VAULT_SECRET_ID", &secret)]),
        "VAULT_SECRET_ID: the username in the secret is not login_vault"
    );
    let accept = run_with_arguments(env!("CARGO_BIN_EXE_migrate"), &["accept-vault-key"], &[url]);
    assert_eq!(last_log_text(&accept), "VAULT_PUBLIC_KEY is not set");
}

#[tokio::test]
async fn status_event_returns_schema_and_salt() {
    let database = Database::create().await;
    let url = superuser_url(&database.name);
    let status =
        || serve_event(env!("CARGO_BIN_EXE_migrate"), &[("DATABASE_URL", &url)], r#"{"action": "status"}"#);

    let before_the_first_row = status().response;
    database.execute("INSERT INTO salt_fingerprint VALUES (true, 'abc', '2026-11-14T00:00:00Z')").await;
    // A batch or another run of migrate holds these locks.
    let mut other = connect(&url.parse().unwrap()).await;
    let transaction = other.transaction().await.unwrap();
    let locks = "LOCK TABLE user_logins IN SHARE MODE;
                 LOCK TABLE login_etl_migrations, salt_fingerprint IN SHARE UPDATE EXCLUSIVE MODE";
    transaction.batch_execute(locks).await.unwrap();
    let with_rows = status().response;

    let newest = before_the_first_row["newest_version"].as_i64().unwrap();
    assert!(newest >= 10);
    assert_eq!(
        before_the_first_row,
        json!({"version": newest, "newest_version": newest, "accepted_salt": null})
    );
    assert_eq!(
        with_rows,
        json!({
            "version": newest,
            "newest_version": newest,
            "accepted_salt": {"fingerprint": "abc", "accepted_at": "2026-11-14T00:00:00Z"}
        })
    );
}

#[tokio::test]
async fn status_before_the_first_migration_is_empty() {
    let name = unique_name();
    let server = connect(&superuser()).await;
    server.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();

    let variables = [("DATABASE_URL", &*superuser_url(&name))];
    let status = serve_event(env!("CARGO_BIN_EXE_migrate"), &variables, r#"{"action": "status"}"#).response;

    assert_eq!((&status["version"], &status["accepted_salt"]), (&Value::Null, &Value::Null));
}

#[tokio::test]
async fn accept_salt_event_replaces_the_fingerprint() {
    let database = Database::create().await;
    let url = superuser_url(&database.name);
    let accept =
        |event: &str| serve_event(env!("CARGO_BIN_EXE_migrate"), &[("DATABASE_URL", &url)], event).response;
    let event = r#"{"action": "accept-salt", "fingerprint": "3b0a1a8fbcb7edc1"}"#;

    let outcomes = [accept(event), accept(event)];
    let refused = accept(r#"{"action": "accept-salt", "fingerprint": "hunter2"}"#);

    assert_eq!(outcomes, [json!({"changed": true}), json!({"changed": false})]);
    assert_eq!(refused["errorMessage"], "the fingerprint is not 16 lowercase hexadecimal digits");
    let accepted = "SELECT fingerprint FROM salt_fingerprint";
    let accepted: String = database.admin.query_one(accepted, &[]).await.unwrap().get(0);
    assert_eq!(accepted, "3b0a1a8fbcb7edc1");
}

#[tokio::test]
async fn unknown_migrate_event_changes_nothing() {
    let name = unique_name();
    let server = connect(&superuser()).await;
    server.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
    let url = superuser_url(&name);

    let answered =
        serve_event(env!("CARGO_BIN_EXE_migrate"), &[("DATABASE_URL", &url)], r#"{"prune": "hunter2"}"#);

    let text = answered.response["errorMessage"].as_str().unwrap();
    assert!(text.starts_with("the event is unknown; known are {}, "), "{text}");
    assert!(!format!("{text}{}", answered.log).contains("hunter2"));
    let tables = "SELECT FROM pg_class WHERE relname = 'user_logins'";
    assert_eq!(connect(&url.parse().unwrap()).await.query(tables, &[]).await.unwrap().len(), 0);
}

#[tokio::test]
async fn function_returns_fingerprints_of_all_salts() {
    let database = Database::create().await;
    let salt = create_secret(SALT).await;
    let url = database.url();
    let variables = [("SALT_SECRET_ID", &*salt), ("DATABASE_URL", &*url)];
    let api = RuntimeApi::start();
    let mut function = start(env!("CARGO_BIN_EXE_bootstrap"), &variables, &api);
    let event = r#"{"action": "salt-fingerprint"}"#;

    api.send(event);
    let before = api.response();
    put_secret(&salt, "fedcba9876543210fedcba9876543210").await;
    api.send(event);
    let replaced = api.response();
    let both = format!(r#"{{"salt":"{SALT}","later_salts":["fedcba9876543210fedcba9876543210"]}}"#);
    put_secret(&salt, &both).await;
    api.send(event);
    let with_later = api.response();
    put_secret(&salt, "hunter2").await;
    api.send(event);
    let too_short = api.response();
    function.kill().unwrap();
    let log = String::from_utf8(function.wait_with_output().unwrap().stdout).unwrap();

    let of = |salt: &str| Masker::new(&salt.into()).unwrap().salt_fingerprint().as_str().to_owned();
    let (old, new) = (of(SALT), of("fedcba9876543210fedcba9876543210"));
    let generations =
        Salts::new(SALT.into(), vec!["fedcba9876543210fedcba9876543210".into()]).maskers().unwrap();
    let later = generations[1].salt_fingerprint().as_str().to_owned();
    assert_eq!(before, json!({"current": old, "in_use": old, "generations": [old]}));
    assert_eq!(replaced, json!({"current": new, "in_use": old, "generations": [new]}));
    assert_eq!(with_later, json!({"current": later, "in_use": old, "generations": [old, later]}));
    assert_eq!(too_short["errorType"], "SaltUnavailable");
    assert_eq!(too_short["errorMessage"], "SALT_SECRET_ID: the salt has fewer than 32 bytes");
    assert!(!log.contains("batch "), "{log}");
}

/// Lambda then starts a new process, which fetches the salt again.
#[tokio::test]
async fn process_ends_after_its_salt_changed() {
    let database = Database::create().await;
    let salt = create_secret(SALT).await;
    let url = database.url();
    let variables = [("SALT_SECRET_ID", &*salt), ("DATABASE_URL", &*url)];
    let api = RuntimeApi::start();
    let function = start(env!("CARGO_BIN_EXE_bootstrap"), &variables, &api);
    let event = |user: &str| batch([login(user, user)]).to_string();

    api.send(&event("before"));
    let written = api.response();
    database.execute("UPDATE salt_fingerprint SET fingerprint = 'fedcba9876543210'").await;
    api.send(&event("refused"));
    let refused = api.response();
    let ended = function.wait_with_output().unwrap();

    assert_eq!(written, json!({"batchItemFailures": []}));
    assert_eq!(refused["errorType"], "SaltChanged");
    assert_eq!(ended.status.code(), Some(0));
    assert_eq!(last_log_text(&ended), "the process ends; the next process fetches the salt again");
    assert_eq!(database.user_ids().await, ["before"]);
}

/// A paused Aurora database starts when the first client connects.
#[tokio::test]
async fn migrate_waits_for_a_starting_database() {
    let database = Database::create().await;
    let mut proxy = Proxy::start().await;
    proxy.close();
    let port = superuser().get_ports()[0];
    let address = format!("@{}/", proxy.address());
    let url = superuser_url(&database.name).replace(&format!("@127.0.0.1:{port}/"), &address);
    assert!(url.contains(&address));
    let variables = [("DATABASE_URL", &*url)];
    let api = RuntimeApi::start();
    let mut migrate = start(env!("CARGO_BIN_EXE_migrate"), &variables, &api);

    api.send(r#"{"action": "status"}"#);
    tokio::time::sleep(Duration::from_secs(6)).await;
    proxy.open().await;
    let response = tokio::task::spawn_blocking(move || api.response()).await.unwrap();
    migrate.kill().unwrap();
    let log = String::from_utf8(migrate.wait_with_output().unwrap().stdout).unwrap();

    assert_eq!(response["version"], response["newest_version"], "{log}");
    assert!(log.contains("waiting for Postgres to start"), "{log}");
}

#[tokio::test]
async fn migrate_does_not_wait_for_wrong_password() {
    let database = Database::create().await;
    let name = &database.name;
    for url in [
        format!("postgresql://{name}:hunter2@{}/{name}?sslmode=disable", server_address()),
        format!("postgresql://{name}:{name}@nowhere.invalid/{name}?sslmode=disable"),
    ] {
        let served =
            serve_event(env!("CARGO_BIN_EXE_migrate"), &[("DATABASE_URL", &url)], r#"{"action": "status"}"#);

        let text = served.response["errorMessage"].as_str().unwrap();
        assert!(text.starts_with("Postgres "), "{text}");
        assert!(!served.log.contains("waiting for Postgres"), "{}", served.log);
        assert!(served.log.contains(r#""message":"the run failed""#), "{}", served.log);
    }
}

/// Runs `migrate` as a Lambda function until it has responded to one event, and returns its log.
fn run_in_lambda(url: &str, event: &str) -> String {
    let served = serve_event(env!("CARGO_BIN_EXE_migrate"), &[("DATABASE_URL", url)], event);
    assert_eq!(served.response, Value::Null, "{}", served.log);
    served.log
}

/// What a function did with one event.
pub(crate) struct Served {
    pub(crate) response: Value,
    pub(crate) log: String,
}

/// Runs a function until it has responded to one event.
pub(crate) fn serve_event(executable: &str, variables: &[(&str, &str)], event: &str) -> Served {
    let api = RuntimeApi::start();
    let mut function = start(executable, variables, &api);
    api.send(event);
    let response = api.response();
    function.kill().unwrap();
    Served { response, log: String::from_utf8(function.wait_with_output().unwrap().stdout).unwrap() }
}

/// Starts a program as a Lambda function.
fn start(executable: &str, variables: &[(&str, &str)], api: &RuntimeApi) -> Child {
    let address = api.0.local_addr().unwrap().to_string();
    let mut program = program(executable, variables);
    program.env("AWS_LAMBDA_RUNTIME_API", address).env("AWS_LAMBDA_FUNCTION_NAME", "function");
    program.env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128").env("AWS_LAMBDA_FUNCTION_VERSION", "1");
    program.stdout(Stdio::piped()).spawn().unwrap()
}

/// Lambda's Runtime API, for one function.
struct RuntimeApi(TcpListener);

impl RuntimeApi {
    fn start() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").unwrap())
    }

    /// Waits until the function requests an event, and sends this event.
    fn send(&self, event: &str) {
        let head = "HTTP/1.1 200 OK\r\nLambda-Runtime-Aws-Request-Id: request\r\nLambda-Runtime-Trace-Id: trace\r\n\
                    Lambda-Runtime-Invoked-Function-Arn: arn\r\nLambda-Runtime-Deadline-Ms: 32503680000000";
        let (request, _) = self.serve(head, event);
        assert!(request.starts_with("GET /2018-06-01/runtime/invocation/next "), "{request}");
    }

    /// Waits for the response, or for the error with which the invocation failed.
    fn response(&self) -> Value {
        let (request, body) = self.serve("HTTP/1.1 202 Accepted", "");
        assert!(request.starts_with("POST /2018-06-01/runtime/invocation/request/"), "{request}");
        serde_json::from_slice(&body).unwrap()
    }

    /// Serves one request, and returns its first line and its body.
    fn serve(&self, head: &str, body: &str) -> (String, Vec<u8>) {
        let (connection, _) = self.0.accept().unwrap();
        let mut reader = BufReader::new(connection);
        let mut request = String::new();
        reader.read_line(&mut request).unwrap();
        let mut length = 0;
        let mut header = String::new();
        while reader.read_line(&mut header).unwrap() > 2 {
            if let Some(value) = header.to_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            header.clear();
        }
        let mut received = vec![0; length];
        reader.read_exact(&mut received).unwrap();
        let length = body.len();
        let mut connection = reader.into_inner();
        write!(connection, "{head}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}").unwrap();
        (request, received)
    }
}
