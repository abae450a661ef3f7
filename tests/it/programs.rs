//! The built programs, where they start or refuse to.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Output};

use login::pii::{DeviceId, Masker, Pii};
use login_etl::aws::secrets::Secrets;
use login_etl::config::{DatabaseSource, Settings};
use login_etl::handler::Ingest;
use login_etl::store::Store;

use tokio_postgres::NoTls;

use crate::support::{Database, SALT, WRITERS_LOGIN, superuser, unique_name};

/// Runs a program with these variables, and the AWS SDK's, until it ends by itself.
fn run(program: &str, variables: &[(&str, &str)]) -> Output {
    run_with(program, &[], variables)
}

fn run_with(executable: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    program(executable, variables).args(arguments).output().unwrap()
}

fn program(executable: &str, variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(executable);
    command.env_clear().env("AWS_MAX_ATTEMPTS", "1");
    if executable == env!("CARGO_BIN_EXE_bootstrap") {
        // Nothing listens there, so a function that starts ends when it asks for an event.
        command.env("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:9").env("AWS_LAMBDA_FUNCTION_NAME", "ingest");
        command.env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128").env("AWS_LAMBDA_FUNCTION_VERSION", "1");
    }
    for name in ["AWS_ENDPOINT_URL", "AWS_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"] {
        command
            .env(name, std::env::var(name).unwrap_or_else(|_| panic!("{name} is set, as `make test` does")));
    }
    command.envs(variables.iter().copied());
    command
}

fn said(output: &Output) -> String {
    assert_eq!(output.stderr, b"", "programs log on standard output alone");
    let lines: Vec<serde_json::Value> = output
        .stdout
        .split(|byte| *byte == b'\n')
        .filter_map(|line| serde_json::from_slice(line).ok())
        .collect();
    let last = lines.last().expect("a log line");
    last["error"].as_str().unwrap_or_else(|| last["message"].as_str().unwrap()).to_owned()
}

fn refusal(variables: &[(&str, &str)]) -> String {
    let output = run(env!("CARGO_BIN_EXE_bootstrap"), variables);
    assert_eq!(output.status.code(), Some(1));
    said(&output)
}

async fn secret(text: &str) -> String {
    let config = aws_config::load_defaults(aws_config::BehaviorVersion::latest()).await;
    let client = aws_sdk_secretsmanager::Client::new(&config);
    let name = unique_name();
    client.create_secret().name(&name).secret_string(text).send().await.unwrap();
    name
}

/// The superuser's URL of a database.
fn superuser_url(database: &str) -> String {
    let superuser = std::env::var("TEST_DATABASE_URL").unwrap();
    let (address, _) = superuser.split_once('?').unwrap();
    let (server, _) = address.rsplit_once('/').unwrap();
    format!("{server}/{database}?sslmode=disable")
}

const NOWHERE: (&str, &str) = ("DATABASE_URL", "postgresql://u:hunter2@127.0.0.1:9/d?sslmode=disable");

#[test]
fn bad_setting_is_named() {
    let salt = ("SALT_SECRET_ID", "salt");
    assert_eq!(refusal(&[NOWHERE]), "SALT_SECRET_ID is not set");
    assert_eq!(refusal(&[NOWHERE, ("SALT_SECRET_ID", "")]), "SALT_SECRET_ID is not set");
    assert_eq!(refusal(&[salt]), "neither DATABASE_SECRET_ID nor DATABASE_URL is set");
    assert_eq!(
        refusal(&[salt, NOWHERE, ("DATABASE_SECRET_ID", "x")]),
        "DATABASE_SECRET_ID and DATABASE_URL are both set; set only one"
    );
    assert_eq!(
        refusal(&[salt, ("DATABASE_SECRET_ID", "x"), ("DATABASE_PORT", "hunter2")]),
        "DATABASE_PORT is not a port number"
    );
    assert_eq!(refusal(&[salt, NOWHERE, ("RUST_LOG", "a=b=c")]), "RUST_LOG is not a log filter");
    for (url, problem) in [
        ("mysql://u:hunter2@h/d", "does not start with postgresql://"),
        ("postgresql://u:hunter2@h:port/d", "is not a URL that names a Postgres"),
        ("postgresql://u:hunter2@h/d?sslmode=maybe", "has an unknown sslmode"),
        (
            "postgresql://u:hunter2@h/d?sslrootcert=ca.pem",
            "has an sslrootcert; set DATABASE_CA_BUNDLE instead",
        ),
        ("postgresql:///d", "names no host"),
    ] {
        assert_eq!(refusal(&[salt, ("DATABASE_URL", url)]), format!("DATABASE_URL {problem}"));
    }
    let tls = ("DATABASE_URL", "postgresql://u:hunter2@127.0.0.1:9/d");
    assert_eq!(
        refusal(&[salt, tls, ("DATABASE_CA_BUNDLE", "/nowhere")]),
        "DATABASE_CA_BUNDLE cannot be read"
    );
    assert_eq!(
        refusal(&[salt, tls, ("DATABASE_CA_BUNDLE", env!("CARGO_MANIFEST_PATH"))]),
        "DATABASE_CA_BUNDLE is not a file of PEM certificates"
    );
}

#[test]
fn conflicting_iam_settings_are_named() {
    let iam = [("SALT_SECRET_ID", "salt"), ("DATABASE_AUTHENTICATION", "iam")];
    let [host, name, user] = [("DATABASE_HOST", "h"), ("DATABASE_NAME", "d"), ("DATABASE_USER", "u")];
    let refusal_of = |more: &[(&'static str, &'static str)]| refusal(&[&iam[..], more].concat());

    assert_eq!(refusal_of(&[name, user]), "DATABASE_HOST is not set");
    assert_eq!(refusal_of(&[host, user]), "DATABASE_NAME is not set");
    assert_eq!(refusal_of(&[host, name]), "DATABASE_USER is not set");
    assert_eq!(
        refusal_of(&[host, name, user, ("DATABASE_PORT", "hunter2")]),
        "DATABASE_PORT is not a port number"
    );
    for other in [NOWHERE, ("DATABASE_SECRET_ID", "x")] {
        let said = refusal_of(&[host, name, user, other]);
        assert_eq!(said, format!("{} is set, but DATABASE_AUTHENTICATION=iam uses no password", other.0));
    }
    assert_eq!(
        refusal(&[iam[0], NOWHERE, user]),
        "DATABASE_USER is set, but without DATABASE_AUTHENTICATION=iam the user comes with the password"
    );
    assert_eq!(
        refusal(&[iam[0], NOWHERE, ("DATABASE_AUTHENTICATION", "hunter2")]),
        "DATABASE_AUTHENTICATION is neither password nor iam"
    );
}

#[tokio::test]
async fn function_without_credentials_does_not_start() {
    let salt = secret(SALT).await;
    let iam = [
        ("SALT_SECRET_ID", &*salt),
        ("DATABASE_AUTHENTICATION", "iam"),
        ("DATABASE_NAME", "d"),
        ("DATABASE_USER", "u"),
    ];

    let said = refusal(&[&iam[..], &[("DATABASE_HOST", "no host")]].concat());

    assert_eq!(
        said,
        "DATABASE_AUTHENTICATION: no token can be signed: DATABASE_HOST is not the name of a host"
    );
}

#[test]
fn log_format_text_is_obeyed() {
    let output = run(env!("CARGO_BIN_EXE_bootstrap"), &[NOWHERE, ("AWS_LAMBDA_LOG_FORMAT", "Text")]);

    let text = String::from_utf8(output.stdout).unwrap();
    let end = "ERROR login_etl::telemetry: startup failed error=SALT_SECRET_ID is not set";
    assert_eq!(text.trim_end().split_once("Z ").unwrap().1.trim_start(), end);
}

#[tokio::test]
async fn unusable_salt_is_refused() {
    for (text, problem) in [
        ("0123456789abcdef0123456789abcde", "the salt has fewer than 32 bytes"),
        ("", "the salt has fewer than 32 bytes"),
        (r#"{"salt":"short"}"#, "the salt has fewer than 32 bytes"),
        (
            r#"{"pepper":"0123456789abcdef0123456789abcdef"}"#,
            "the secret is a JSON object whose key salt is missing or not a string",
        ),
        (
            r#"{"salt":["0123456789abcdef0123456789abcdef"]}"#,
            "the secret is a JSON object whose key salt is missing or not a string",
        ),
    ] {
        let name = secret(text).await;
        assert_eq!(refusal(&[("SALT_SECRET_ID", &name), NOWHERE]), format!("SALT_SECRET_ID: {problem}"));
    }
    let unknown = refusal(&[("SALT_SECRET_ID", "unknown"), NOWHERE]);
    assert!(
        unknown.starts_with(
            "SALT_SECRET_ID: Secrets Manager did not return the secret: ResourceNotFoundException"
        )
    );
}

#[tokio::test]
async fn credentials_of_the_wrong_shape_are_refused() {
    let salt = secret(SALT).await;
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
    ] {
        let name = secret(text).await;
        let said = refusal(&[("SALT_SECRET_ID", &salt), ("DATABASE_SECRET_ID", &name)]);
        assert_eq!(said, format!("DATABASE_SECRET_ID: {problem}"));
    }
}

#[test]
fn unreachable_secrets_manager_error_names_the_setting() {
    let said = refusal(&[("SALT_SECRET_ID", "salt"), NOWHERE, ("AWS_ENDPOINT_URL", "http://127.0.0.1:9")]);

    assert!(said.starts_with("SALT_SECRET_ID: Secrets Manager did not return the secret: "), "{said}");
}

#[tokio::test]
async fn either_form_of_the_salt_is_accepted() {
    for text in [SALT.to_owned(), format!(r#"{{"salt":"{SALT}"}}"#), format!("{{{SALT}")] {
        let name = secret(&text).await;
        // It starts, and ends for want of a Runtime API.
        let said = refusal(&[("SALT_SECRET_ID", &name), NOWHERE]);
        assert!(!said.contains("SALT_SECRET_ID"), "{said}");
    }
}

#[tokio::test]
async fn migrate_creates_only_what_is_absent() {
    let database = Database::create().await;
    let name = format!("{}_migrated", database.name);
    database.admin.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
    let url = superuser_url(&name);
    let admin = crate::support::connect(&url.parse().unwrap()).await;
    // A user's table, from before.
    let theirs = "CREATE TABLE user_logins (user_id varchar(128), device_type varchar(32), masked_ip varchar(256),
                  masked_device_id varchar(256), locale varchar(32), app_version integer, create_date date, note text);
                  INSERT INTO user_logins (note) VALUES ('kept')";
    admin.batch_execute(theirs).await.unwrap();

    for _ in 0..2 {
        let output = run(env!("CARGO_BIN_EXE_migrate"), &[("DATABASE_URL", &url)]);
        assert_eq!(said(&output), "the schema is up to date");
        assert_eq!(output.status.code(), Some(0));
    }

    let notes = admin.query("SELECT note FROM user_logins", &[]).await.unwrap();
    assert_eq!(notes.len(), 1);
    admin.query("SELECT FROM processed_messages", &[]).await.unwrap();
}

#[tokio::test]
async fn migrate_sets_the_writers_password() {
    let _alone = WRITERS_LOGIN.lock().await;
    let database = Database::create().await;
    let url = superuser_url(&database.name);
    let may_log_in = async |password: &str| {
        let mut writer = superuser();
        writer.user("login_writer").password(password).dbname(&database.name);
        writer.connect(NoTls).await.is_ok()
    };

    for password in ["correct horse", "battery \\ 'staple' é"] {
        let credentials = serde_json::json!({ "username": "login_writer", "password": password });
        let writer = secret(&credentials.to_string()).await;
        let settings = [("DATABASE_URL", &*url), ("WRITER_SECRET_ID", &writer)];
        let output = run(env!("CARGO_BIN_EXE_migrate"), &settings);
        assert_eq!(said(&output), "the schema is up to date");
        assert!(may_log_in(password).await);
    }

    assert!(!may_log_in("correct horse").await, "the old password is none any more");
    let stored = "SELECT rolpassword FROM pg_authid WHERE rolname = 'login_writer'";
    let stored: String = database.admin.query_one(stored, &[]).await.unwrap().get(0);
    assert!(stored.starts_with("SCRAM-SHA-256$"));
}

#[tokio::test]
async fn migrate_sets_no_other_roles_password() {
    let database = Database::create().await;
    let other = secret(r#"{"username":"postgres","password":"hunter2"}"#).await;

    let url = superuser_url(&database.name);
    let output = run(env!("CARGO_BIN_EXE_migrate"), &[("DATABASE_URL", &url), ("WRITER_SECRET_ID", &other)]);

    assert_eq!(said(&output), "WRITER_SECRET_ID: the username in the secret is not login_writer");
    assert_eq!(output.status.code(), Some(1));
}

#[tokio::test]
async fn migrate_names_missing_iam_and_conflicting_settings() {
    let _alone = WRITERS_LOGIN.lock().await;
    let database = Database::create().await;
    let url = superuser_url(&database.name);
    let refused = |variables: &[(&str, &str)]| {
        let settings = [&[("DATABASE_URL", &*url)], variables].concat();
        let output = run(env!("CARGO_BIN_EXE_migrate"), &settings);
        assert_eq!(output.status.code(), Some(1));
        said(&output)
    };

    let elsewhere = refused(&[("WRITER_AUTHENTICATION", "iam")]);
    let both = refused(&[("WRITER_AUTHENTICATION", "iam"), ("WRITER_SECRET_ID", "x")]);
    let neither = refused(&[("WRITER_AUTHENTICATION", "password")]);
    let other = refused(&[("WRITER_AUTHENTICATION", "hunter2")]);

    assert_eq!(
        elsewhere,
        "there is no role rds_iam: this server is not RDS or Aurora, and has no IAM authentication"
    );
    assert_eq!(both, "WRITER_SECRET_ID is set, but WRITER_AUTHENTICATION=iam uses no password");
    assert_eq!(neither, "WRITER_SECRET_ID is not set");
    assert_eq!(other, "WRITER_AUTHENTICATION is neither password nor iam");
}

#[tokio::test]
async fn migrate_accepts_a_salt() {
    let database = Database::create().await;
    let url = superuser_url(&database.name);
    let salt = secret(SALT).await;

    for changed in [true, false] {
        let settings = [("DATABASE_URL", &*url), ("SALT_SECRET_ID", &salt)];
        let output = run_with(env!("CARGO_BIN_EXE_migrate"), &["accept-salt"], &settings);
        assert_eq!(said(&output), "the salt is accepted");
        assert_eq!(output.stdout.windows(14).any(|text| text == b"\"changed\":true"), changed);
    }
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
    let salt = secret(SALT).await;
    let database = secret(r#"{"username":"u","password":"hunter2","host":"127.0.0.1","dbname":"d"}"#).await;
    let url = settings(&[("SALT_SECRET_ID", &salt), NOWHERE]);
    let by_secret = settings(&[("SALT_SECRET_ID", &salt), ("DATABASE_SECRET_ID", &database)]);
    let by_token = settings(&[
        ("SALT_SECRET_ID", &salt),
        ("DATABASE_AUTHENTICATION", "iam"),
        ("DATABASE_HOST", "127.0.0.1"),
        ("DATABASE_NAME", "d"),
        ("DATABASE_USER", "u"),
    ]);
    let secrets = Secrets::from_env().await;
    let credentials = secrets.credentials("DATABASE_SECRET_ID", &database).await.unwrap();
    let DatabaseSource::Iam(login) = &by_token.database.source else { panic!("it is said so above") };
    let token = secrets.rds_auth_token(login).await.unwrap();
    let mut masker = Masker::new(&secrets.salt(&salt).await.unwrap()).unwrap();
    let device = Pii::<DeviceId>::new("593-47-5928".into()).unwrap();

    let texts = [
        format!("{url:#?}{by_secret:#?}{by_token:#?}{credentials:#?}{token:#?}{secrets:#?}"),
        format!("{device:#?}{masker:#?}{:#?}{:#?}", masker.mask(&device), masker.salt_fingerprint()),
        format!("{:#?}", Store::new(url.database, secrets.clone()).unwrap()),
        format!("{:#?}", Ingest::start(by_secret).await.unwrap()),
    ];

    for text in texts {
        for secret in [SALT, "hunter2", "593-47-5928", "X-Amz-Signature"] {
            assert!(!text.contains(secret), "{secret} is in a text");
        }
    }
}

fn settings(variables: &[(&str, &str)]) -> Settings {
    Settings::read(|name| Some(variables.iter().find(|(variable, _)| *variable == name)?.1.to_owned()))
        .unwrap()
}

/// Memory holds raw values and the salt, and a crash may write it to a file.
#[tokio::test]
async fn crash_leaves_no_core_file() {
    let salt = secret(SALT).await;
    let runtime_api = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = runtime_api.local_addr().unwrap().to_string();
    let variables =
        [("SALT_SECRET_ID", &*salt), NOWHERE, ("AWS_LAMBDA_RUNTIME_API", &address), ("RUST_LOG", "off")];

    let function = crash(&mut program(env!("CARGO_BIN_EXE_bootstrap"), &variables), || {
        // It has started when it asks for an event.
        runtime_api.accept().unwrap()
    });
    let any_other = crash(Command::new("sleep").arg("60"), || {});

    assert!(!function.core_dumped());
    assert!(any_other.core_dumped(), "this machine lets no program leave a core file");
}

/// Aborts a program when it is ready, in a folder of its own, with core files of any size allowed.
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
fn migrate_explains_bad_arguments() {
    let output = run(env!("CARGO_BIN_EXE_migrate"), &[NOWHERE]);

    assert_eq!(output.status.code(), Some(1));
    assert_eq!(said(&output), "Postgres cannot be reached: connection refused");
}
