//! The built program in Lambda: its answers, its log, and its response to CloudFormation.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};

use login_etl::config::VaultPublicKey;
use login_etl_vault::token::Field;
use serde_json::{Value, json};

use crate::kms_stub::{Behaviour, KEY, KmsStub, REQUEST_ID};
use crate::support::{CALLER, Vault, event, reveal_body, variable};

const INVOCATION: &str = "HTTP/1.1 200 OK\r\nLambda-Runtime-Aws-Request-Id: invocation\r\n\
                          Lambda-Runtime-Invoked-Function-Arn: arn\r\nLambda-Runtime-Deadline-Ms: 32503680000000";

#[tokio::test(flavor = "multi_thread")]
async fn program_reveals_and_logs_no_value() {
    let kms = KmsStub::start(Behaviour::Derive).await;
    let vault = Vault::create(kms.public_key, KEY).await;
    let tokens = vault.write(&[(Field::Ip, "192.0.2.1")]).await;
    let url = vault.url();
    let variables = [
        ("DATABASE_URL", &*url),
        ("SALT_SECRET_ID", &*vault.name),
        ("AWS_ENDPOINT_URL", &*variable("AWS_ENDPOINT_URL")),
        ("AWS_ENDPOINT_URL_KMS", &*kms.url),
    ];

    let revealed = event("/reveal", &reveal_body(&tokens[0]).to_string());
    let refused = event("/reveal", &json!({ "token": "192.0.2.1", "ticket": "about 192.0.2.1" }).to_string());
    let (answers, log) = serve(&variables, &[revealed, refused]);

    let [revealed, refused] = &answers[..] else { panic!("{answers:?}") };
    assert_eq!(revealed["statusCode"], 200);
    assert_eq!(revealed["isBase64Encoded"], false);
    assert_eq!(
        revealed["headers"],
        json!({ "cache-control": "no-store", "content-type": "application/json" })
    );
    let body: Value = serde_json::from_str(revealed["body"].as_str().unwrap()).unwrap();
    let answer =
        json!({ "field": "ip", "token": tokens[0].to_text(), "value": "192.0.2.1", "audit_entry": 1 });
    assert_eq!(body, answer);
    assert_eq!(refused["statusCode"], 400);
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let [revealed, refused] = &lines[..] else { panic!("{log}") };
    for (name, expected) in [
        ("level", json!("INFO")),
        ("verb", json!("reveal")),
        ("status", json!("200")),
        ("outcome", json!("done")),
        ("audit_entry", json!("1")),
        ("kms_request_id", json!(REQUEST_ID)),
        ("caller", json!(CALLER)),
        ("reason", json!("fraud")),
        ("ticket", json!("SEC-1")),
        ("reveals", json!(1)),
        ("failed_reveals", json!(0)),
        ("unopenable_values", json!(0)),
        ("server_error", json!(0)),
    ] {
        assert_eq!(revealed[name], expected, "{name}");
    }
    assert!(revealed["kms_ms"].as_f64().unwrap() < revealed["elapsed_ms"].as_f64().unwrap());
    assert_eq!((&refused["level"], &refused["status"]), (&json!("WARN"), &json!("400")));
    assert_eq!(refused["error"], "the field token is not 64 lowercase hexadecimal digits");
    assert_eq!((&refused["reveals"], &refused["failed_reveals"]), (&json!(0), &json!(0)));
    assert!(!log.contains("192.0.2.1") && !log.contains(&tokens[0].to_text()), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn cloudformation_gets_the_public_key() {
    let kms = KmsStub::start(Behaviour::Derive).await;
    let disabled = KmsStub::start(Behaviour::Refuse(400, "DisabledException")).await;
    let expected: VaultPublicKey = base64(&kms.public_key.to_spki()).parse().unwrap();

    // The first deployment: there is no login to the database.
    let key = [("VAULT_KMS_KEY", KEY)];
    let created = deploy("Create", &[&key[..], &[("AWS_ENDPOINT_URL_KMS", &*kms.url)]].concat());
    let deleted = deploy("Delete", &[]);
    let failed = deploy("Update", &[&key[..], &[("AWS_ENDPOINT_URL_KMS", &*disabled.url)]].concat());
    let unset = deploy("Create", &[]);

    assert_eq!(created["Status"], "SUCCESS");
    let public_key = created["Data"]["PublicKey"].as_str().unwrap();
    assert_eq!(public_key.parse::<VaultPublicKey>().unwrap(), expected);
    assert_eq!((&deleted["Status"], &deleted["Data"]), (&json!("SUCCESS"), &json!(null)));
    let reason = |response: &Value| (response["Status"].clone(), response["Reason"].clone());
    assert_eq!(reason(&failed), (json!("FAILED"), json!("VAULT_KMS_KEY: the KMS key is disabled")));
    assert_eq!(reason(&unset), (json!("FAILED"), json!("VAULT_KMS_KEY is not set")));
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_setting_fails_each_request() {
    let (answers, log) = serve(&[], &[event("/reveal", "{}"), json!({ "secret": "192.0.2.1" })]);

    let messages: Vec<_> = answers.iter().map(|answer| answer["errorMessage"].as_str().unwrap()).collect();
    assert_eq!(
        messages,
        [
            "SALT_SECRET_ID is not set",
            "the event is neither a request of an HTTP API, with payload 2.0, nor of CloudFormation",
        ]
    );
    assert!(log.contains("SALT_SECRET_ID is not set") && !log.contains("192.0.2.1"), "{log}");
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// Sends a request of CloudFormation to the program, and returns the response.
fn deploy(request_type: &str, variables: &[(&str, &str)]) -> Value {
    let cloudformation = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let origin = format!("http://{}", cloudformation.local_addr().unwrap());
    let event = json!({
        "RequestType": request_type,
        "RequestId": "unique-1",
        "ResponseURL": format!("{origin}/answer"),
        "ResourceType": "Custom::VaultPublicKey",
        "LogicalResourceId": "VaultPublicKey",
        "StackId": "arn:aws:cloudformation:us-east-2:123456789012:stack/login-etl/1",
        "ResourceProperties": {},
    });
    let response = std::thread::spawn(move || {
        let (_, body) = receive(&cloudformation);
        body
    });
    let variables = [variables, &[("AWS_ENDPOINT_URL", &*origin)]].concat();
    let (answers, _) = serve(&variables, &[event]);
    assert_eq!(answers, [json!(null)]);
    serde_json::from_slice(&response.join().unwrap()).unwrap()
}

/// Runs the program as Lambda does, for these events. Returns its answers and its log.
fn serve(variables: &[(&str, &str)], events: &[Value]) -> (Vec<Value>, String) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let mut command = Command::new(env!("CARGO_BIN_EXE_vault"));
    command.env_clear();
    for name in ["AWS_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"] {
        command.env(name, variable(name));
    }
    command.envs([
        ("AWS_LAMBDA_RUNTIME_API", &*address),
        ("AWS_LAMBDA_FUNCTION_NAME", "vault"),
        ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "512"),
        ("AWS_LAMBDA_FUNCTION_VERSION", "1"),
    ]);
    let mut child = command.envs(variables.iter().copied()).stdout(Stdio::piped()).spawn().unwrap();
    let mut answers = Vec::new();
    for event in events {
        answer(receive(&listener).0, INVOCATION, &event.to_string());
        let (connection, body) = receive(&listener);
        answer(connection, "HTTP/1.1 202 Accepted", "");
        answers.push(serde_json::from_slice(&body).unwrap());
    }
    child.kill().unwrap();
    let mut log = String::new();
    child.stdout.take().unwrap().read_to_string(&mut log).unwrap();
    child.wait().unwrap();
    (answers, log)
}

/// Receives a request. One to CloudFormation is answered at once.
fn receive(listener: &TcpListener) -> (TcpStream, Vec<u8>) {
    let (connection, _) = listener.accept().unwrap();
    let mut reader = BufReader::new(connection);
    let mut length = 0;
    let mut line = String::new();
    let mut is_put = false;
    while reader.read_line(&mut line).unwrap() > 2 {
        is_put |= line.starts_with("PUT ");
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        line.clear();
    }
    let mut received = vec![0; length];
    reader.read_exact(&mut received).unwrap();
    let connection = reader.into_inner();
    if is_put {
        answer(connection.try_clone().unwrap(), "HTTP/1.1 200 OK", "");
    }
    (connection, received)
}

fn answer(mut connection: TcpStream, head: &str, body: &str) {
    let length = body.len();
    write!(connection, "{head}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}").unwrap();
}
