//! The traces that the function sends to the X-Ray daemon. A socket stands in for the daemon.

use std::net::UdpSocket;
use std::time::{SystemTime, UNIX_EPOCH};

use login_etl::config::Settings;
use login_etl::handler::Ingest;
use login_etl::telemetry::trace::Tracer;
use serde_json::{Value, json};

use crate::programs::create_secret;
use crate::support::{
    Database, Logs, SALT, TIME_LIMIT, batch, error_type, failures, invoke_traced, login, record,
};

const SAMPLED: &str =
    "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1;Lineage=1:a:0";

/// Returns a socket in place of the daemon, and a tracer that sends to it.
fn daemon() -> (UdpSocket, Tracer) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_nonblocking(true).unwrap();
    let tracer = Tracer::new(&socket.local_addr().unwrap().to_string()).unwrap();
    (socket, tracer)
}

/// Returns the document of the next datagram; `None` if there is no datagram. On loopback, a datagram can be
/// received as soon as it is sent.
fn received(daemon: &UdpSocket) -> Option<String> {
    let mut buffer = vec![0; 65_536];
    let length = daemon.recv(&mut buffer).ok()?;
    let text = str::from_utf8(&buffer[..length]).unwrap();
    let (header, document) = text.split_once('\n').unwrap();
    assert_eq!(header, r#"{"format":"json","version":1}"#);
    Some(document.to_owned())
}

#[tokio::test]
async fn sampled_batch_sends_its_stages_without_values() {
    let database = Database::create().await;
    let (daemon, tracer) = daemon();
    let ingest = database.ingest().await.traced(tracer);
    let event = batch([login("a", "leak-me"), record("b", "leak-me, not JSON")]).to_string();
    let before = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();

    let answer = invoke_traced(&ingest, &event, TIME_LIMIT, Some(SAMPLED)).await;

    assert_eq!(answer, failures(&["b"]));
    let text = received(&daemon).unwrap();
    let document: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(document["trace_id"], "1-5759e988-bd862e3fe1be46a994272793");
    assert_eq!(document["parent_id"], "53995c3f42cd8ad8");
    assert_eq!(document["type"], "subsegment");
    assert_eq!(document["fault"], false);
    assert_eq!(document["annotations"], json!({"messages": 2, "written": 1, "failed": 1}));
    let stages = document["subsegments"].as_array().unwrap();
    let names: Vec<_> = stages.iter().map(|stage| &stage["name"]).collect();
    assert_eq!(names, ["read", "decode", "write"]);
    // The stages lie within the batch, in order and without overlap.
    let seconds = |moment: &Value| moment.as_f64().unwrap();
    let mut moments = vec![before, seconds(&document["start_time"])];
    for stage in stages {
        moments.extend([seconds(&stage["start_time"]), seconds(&stage["end_time"])]);
    }
    moments.push(seconds(&document["end_time"]));
    assert!(moments.is_sorted(), "{moments:?}");
    // Each stage has an id of its own.
    assert_ne!(stages[0]["id"], stages[1]["id"]);
    assert_eq!(stages[0]["id"].as_str().unwrap().len(), 16);
    for raw in ["leak-me", "203.0.113", "593-47"] {
        assert!(!text.contains(raw), "the trace holds {raw}");
    }
}

#[tokio::test]
async fn failed_batch_is_traced_as_fault() {
    let database = Database::create().await;
    let (daemon, tracer) = daemon();
    let ingest = database.ingest().await.traced(tracer);
    database.admin.batch_execute("DROP TABLE user_logins").await.unwrap();

    let outcome =
        invoke_traced(&ingest, &batch([login("a", "a")]).to_string(), TIME_LIMIT, Some(SAMPLED)).await;

    assert_eq!(error_type(&outcome), "DatabaseRefused");
    let document: Value = serde_json::from_str(&received(&daemon).unwrap()).unwrap();
    assert_eq!(document["fault"], true);
    assert_eq!(document["annotations"]["error_type"], "DatabaseRefused");
}

#[tokio::test]
async fn unsampled_invocation_sends_no_trace() {
    let database = Database::create().await;
    let (daemon, tracer) = daemon();
    let ingest = database.ingest().await.traced(tracer);
    let not_sampled = SAMPLED.replace("Sampled=1", "Sampled=0");

    for header in [None, Some(""), Some("Root=;Sampled=1"), Some(&*not_sampled)] {
        let answer = invoke_traced(&ingest, &batch([login("a", "a")]).to_string(), TIME_LIMIT, header).await;
        assert_eq!(answer, failures(&[]));
    }

    assert_eq!(received(&daemon), None);
}

#[tokio::test]
async fn started_function_reports_cold_start_and_trace() {
    let logs = Logs::capture();
    let database = Database::create().await;
    let salt = create_secret(SALT).await;
    let (daemon, _) = daemon();
    let settings = Settings::read(|name| match name {
        "SALT_SECRET_ID" => Some(salt.clone()),
        "DATABASE_URL" => Some(database.url()),
        "AWS_XRAY_DAEMON_ADDRESS" => Some(daemon.local_addr().unwrap().to_string()),
        _ => None,
    });
    let ingest = Ingest::start(settings.unwrap()).await.unwrap();
    let event = batch((0..300).map(|number| login(&number.to_string(), "x"))).to_string();

    let answer = invoke_traced(&ingest, &event, TIME_LIMIT, Some(SAMPLED)).await;
    let repeated = invoke_traced(&ingest, &event, TIME_LIMIT, Some(SAMPLED)).await;

    assert_eq!([answer, repeated], [failures(&[]), failures(&[])]);
    let [first, second] = &logs.lines("batch done")[..] else { panic!("{}", logs.text()) };
    assert_eq!([&first["cold_start"], &second["cold_start"]], [1, 0]);
    let millis = |line: &Value, name: &str| line[name].as_f64();
    assert!(millis(first, "secrets_ms").unwrap() > 0.0);
    assert!(millis(first, "connect_ms").unwrap() > 0.0);
    assert_eq!([millis(second, "secrets_ms"), millis(second, "connect_ms")], [None, None]);
    // The metric is the time to read the event, which the trace has too, and to decode its messages.
    let document: Value = serde_json::from_str(&received(&daemon).unwrap()).unwrap();
    let names: Vec<_> =
        document["subsegments"].as_array().unwrap().iter().map(|stage| &stage["name"]).collect();
    assert_eq!(names, ["read", "decode", "write"]);
    let read = &document["subsegments"][0];
    let reading_ms = (read["end_time"].as_f64().unwrap() - read["start_time"].as_f64().unwrap()) * 1e3;
    assert!(millis(first, "decode_ms").unwrap() > reading_ms + 0.1, "{first}, {document}");
    assert!(received(&daemon).is_some());
}
