//! The built program: its output, its exit status, and its answer in Lambda.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::support::{Lake, bucket_name, variable};

fn program(variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_export"));
    command.env_clear();
    for name in ["AWS_ENDPOINT_URL", "AWS_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"] {
        command.env(name, variable(name));
    }
    command.envs(variables.iter().copied());
    command
}

fn text(output: &Output) -> &str {
    assert_eq!(output.stderr, b"", "programs log on standard output only");
    std::str::from_utf8(&output.stdout).unwrap()
}

#[tokio::test]
async fn program_prints_each_day_and_a_summary() {
    let lake = Lake::create().await;
    lake.log_in("2020-01-01", 3).await;
    let (url, bucket) = (lake.url(), bucket_name(&lake.name));
    let variables = [("DATABASE_URL", &*url), ("EXPORT_BUCKET", &*bucket)];

    let first = program(&variables).output().unwrap();
    let second = program(&variables).output().unwrap();

    assert!(first.status.success() && second.status.success(), "{}{}", text(&first), text(&second));
    let day = "INFO login_etl_export::run: day exported day=2020-01-01 rows=3 objects=1 bytes=";
    assert!(text(&first).contains(day), "{}", text(&first));
    assert!(
        text(&first).contains("INFO login_etl_export: exported days=1 rows=3 days_left=0"),
        "{}",
        text(&first)
    );
    assert!(text(&second).contains("exported days=0 rows=0 days_left=0"), "{}", text(&second));
}

#[tokio::test]
async fn one_connection_is_enough() {
    let lake = Lake::create().await;
    for day in ["2020-01-01", "2020-01-02", "2020-01-03"] {
        lake.log_in(day, 3).await;
    }
    lake.execute(&format!("ALTER ROLE {} CONNECTION LIMIT 1", lake.name)).await;
    let (url, bucket) = (lake.url(), bucket_name(&lake.name));

    let output = program(&[("DATABASE_URL", &url), ("EXPORT_BUCKET", &bucket)]).output().unwrap();

    assert!(output.status.success(), "{}", text(&output));
    let warning = "WARN login_etl_export: no second connection; the run takes longer error=";
    assert_eq!(text(&output).matches(warning).count(), 1, "{}", text(&output));
    assert!(text(&output).contains("exported days=3 rows=9 days_left=0"), "{}", text(&output));
}

#[tokio::test]
async fn failed_run_has_another_exit_status() {
    let unreachable = ("DATABASE_URL", "postgresql://u:hunter2@127.0.0.1:9/d?sslmode=disable");

    let without_bucket = program(&[unreachable]).output().unwrap();
    let without_database = program(&[unreachable, ("EXPORT_BUCKET", "b")]).output().unwrap();

    for (output, error) in [
        (&without_bucket, "EXPORT_BUCKET is not set"),
        (&without_database, "Postgres cannot be reached: connection refused"),
    ] {
        assert_eq!(output.status.code(), Some(1));
        assert!(text(output).contains(error), "{}", text(output));
        assert!(!text(output).contains("hunter2"), "{}", text(output));
    }
}

#[tokio::test]
async fn lambda_gets_the_summary_or_an_error() {
    let lake = Lake::create().await;
    lake.log_in("2020-01-01", 3).await;
    let (url, bucket) = (lake.url(), bucket_name(&lake.name));
    let variables = [("DATABASE_URL", &*url), ("EXPORT_BUCKET", &*bucket)];

    let (answer, log) = serve(&variables);
    lake.execute("DELETE FROM user_logins; SELECT lake.mark_changed('2020-01-01')").await;
    let (error, log_of_error) = serve(&variables);

    assert_eq!(answer, json!({"days": 1, "rows": 3, "days_left": 0}));
    let metrics = r#""exported_days":1,"exported_rows":3,"export_failures":0,"days_left":0"#;
    assert!(log.contains(metrics), "{log}");
    let error = error["errorMessage"].as_str().unwrap();
    assert!(error.contains("user_logins has 0 rows of the day"), "{error}");
    let metrics = r#""exported_days":0,"exported_rows":0,"export_failures":1,"days_left":1"#;
    assert!(log_of_error.contains(metrics), "{log_of_error}");
}

/// Runs the program as Lambda does, for one event. Returns its answer and its log.
fn serve(variables: &[(&str, &str)]) -> (Value, String) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let lambda = [
        ("AWS_LAMBDA_RUNTIME_API", &*address),
        ("AWS_LAMBDA_FUNCTION_NAME", "export"),
        ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "512"),
        ("AWS_LAMBDA_FUNCTION_VERSION", "1"),
    ];
    let mut child = program(&[variables, &lambda].concat()).stdout(Stdio::piped()).spawn().unwrap();
    answer_request(
        &listener,
        "HTTP/1.1 200 OK\r\nLambda-Runtime-Aws-Request-Id: request\r\nLambda-Runtime-Invoked-Function-Arn: arn\r\n\
         Lambda-Runtime-Deadline-Ms: 32503680000000",
        "{}",
    );
    let answer = answer_request(&listener, "HTTP/1.1 202 Accepted", "");
    child.kill().unwrap();
    let mut log = String::new();
    child.stdout.take().unwrap().read_to_string(&mut log).unwrap();
    child.wait().unwrap();
    (serde_json::from_slice(&answer).unwrap(), log)
}

/// Answers one request to the Runtime API, and returns its body.
fn answer_request(listener: &TcpListener, head: &str, body: &str) -> Vec<u8> {
    let (connection, _) = listener.accept().unwrap();
    let mut reader = BufReader::new(connection);
    let mut length = 0;
    let mut line = String::new();
    while reader.read_line(&mut line).unwrap() > 2 {
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        line.clear();
    }
    let mut received = vec![0; length];
    reader.read_exact(&mut received).unwrap();
    let length = body.len();
    let mut connection = reader.into_inner();
    write!(connection, "{head}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}").unwrap();
    received
}
