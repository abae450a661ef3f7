//! The commands of docs/analysts.md, and the document of the API.

use std::path::Path;
use std::process::Command;

use login_etl_api::server;
use serde_json::Value;
use tokio::net::TcpListener;

use crate::support::{Database, get};

const GUIDE: &str = include_str!("../../../../docs/analysts.md");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documented_commands_answer() {
    let database = Database::rolled_up().await;
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(server::serve_on(listener, database.api().await));
    let commands: Vec<_> = GUIDE.lines().filter(|line| line.starts_with("curl ")).collect();
    assert!(commands.len() >= 4, "{commands:?}");

    for command in commands {
        let command = command.replace("127.0.0.1:9100", &address);
        let run = move || Command::new("sh").args(["-c", &command]).current_dir(Path::new("/")).output();
        let output = tokio::task::spawn_blocking(run).await.unwrap().unwrap();

        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(!output.stdout.is_empty());
        assert!(!String::from_utf8_lossy(&output.stdout).contains("urn:login-etl:"));
    }
}

#[tokio::test]
async fn document_has_each_operation_and_bound() {
    let database = Database::create().await;
    let api = database.api().await;

    let document = get(&api, "/openapi.json").await.json();

    assert!(document["openapi"].as_str().unwrap().starts_with("3.1."));
    let paths: Vec<_> = document["paths"].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(
        paths,
        [
            "/v1/daily",
            "/v1/duplicates",
            "/v1/freshness",
            "/v1/logins/search",
            "/v1/rings",
            "/v1/rings/{ring}",
            "/v1/rings/{ring}/devices",
            "/v1/rings/{ring}/members",
            "/v1/tokens/{token}",
            "/v1/tokens/{token}/daily",
            "/v1/tokens/{token}/logins",
            "/v1/tokens/{token}/neighbours",
            "/v1/tokens/{token}/users",
            "/v1/users/search",
        ]
    );
    for (path, item) in document["paths"].as_object().unwrap() {
        for operation in item.as_object().unwrap().values() {
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                let schema = &parameter["schema"];
                let is_bounded =
                    ["enum", "pattern", "maximum", "format"].iter().any(|key| schema.get(key).is_some());
                assert!(is_bounded && schema["type"].is_string(), "{path} {parameter}");
            }
            assert!(operation["responses"].get("503").is_some(), "{path}");
        }
    }
    let references = serde_json::to_string(&document).unwrap();
    let schemas = document["components"]["schemas"].as_object().unwrap();
    for reference in references.split("#/components/schemas/").skip(1) {
        let name = reference.split('"').next().unwrap();
        assert!(schemas.get(name).is_some_and(Value::is_object), "{name} is not in the document");
    }
}
