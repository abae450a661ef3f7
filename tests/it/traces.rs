//! What the X-Ray daemon is told, which here is a socket that reads.

use std::net::UdpSocket;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use login_etl::telemetry::trace::Tracer;
use serde_json::{Value, json};

use crate::support::{Database, batch, error_type, failures, invoke_traced, login, record};

const SAMPLED: &str =
    "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1;Lineage=1:a:0";
const TIME: Duration = Duration::from_secs(9);

fn daemon() -> (UdpSocket, Tracer) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_nonblocking(true).unwrap();
    let tracer = Tracer::new(&socket.local_addr().unwrap().to_string()).unwrap();
    (socket, tracer)
}

/// What has come, without its header line; a datagram on loopback is there when it is sent.
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

    let answer = invoke_traced(&ingest, &event, TIME, Some(SAMPLED)).await;

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
    assert_eq!(names, ["read", "decode, mask and write"]);
    // In order, one after the other, and within the batch; each with an id of its own.
    let seconds = |moment: &Value| moment.as_f64().unwrap();
    let mut moments = vec![before, seconds(&document["start_time"])];
    for stage in stages {
        moments.extend([seconds(&stage["start_time"]), seconds(&stage["end_time"])]);
    }
    moments.push(seconds(&document["end_time"]));
    assert!(moments.is_sorted(), "{moments:?}");
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

    let outcome = invoke_traced(&ingest, &batch([login("a", "a")]).to_string(), TIME, Some(SAMPLED)).await;

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
        let answer = invoke_traced(&ingest, &batch([login("a", "a")]).to_string(), TIME, header).await;
        assert_eq!(answer, failures(&[]));
    }

    assert_eq!(received(&daemon), None);
}
