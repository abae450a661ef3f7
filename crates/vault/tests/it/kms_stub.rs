//! A KMS that answers as a test says. The tests in `localstack` have a KMS that is not ours.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_config::{BehaviorVersion, SdkConfig};
use aws_lc_rs::agreement::{ECDH_P256, PrivateKey, UnparsedPublicKey, agree};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use login_etl::point::Point;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

pub(crate) const KEY: &str = "arn:aws:kms:us-east-1:123456789012:key/1";
/// A second key, with which the KMS always does what it is asked for.
pub(crate) const NEWER_KEY: &str = "arn:aws:kms:us-east-1:123456789012:key/2";
pub(crate) const REQUEST_ID: &str = "11111111-2222-3333-4444-555555555555";

/// How the KMS answers.
#[derive(Clone)]
pub(crate) enum Behaviour {
    /// As KMS does.
    Derive,
    /// As KMS does, after this time.
    DeriveAfter(Duration),
    /// With an error.
    Refuse(u16, &'static str),
    /// With this body.
    Return(Value),
    /// It never answers.
    Silent,
}

pub(crate) struct KmsStub {
    pub(crate) public_key: Point,
    pub(crate) newer_public_key: Point,
    pub(crate) url: String,
    /// Number of requests that came.
    pub(crate) requests: Arc<AtomicUsize>,
    server: Arc<Server>,
}

struct Server {
    key: KeyPair,
    newer_key: KeyPair,
    behaviour: Mutex<Behaviour>,
    requests: Arc<AtomicUsize>,
    /// The key of the last request.
    last_key: Mutex<Option<String>>,
}

struct KeyPair {
    id: &'static str,
    private_key: PrivateKey,
    public_key: Point,
}

impl KmsStub {
    pub(crate) async fn start(behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(AtomicUsize::new(0));
        let server = Arc::new(Server {
            key: KeyPair::generate(KEY),
            newer_key: KeyPair::generate(NEWER_KEY),
            behaviour: Mutex::new(behaviour),
            requests: Arc::clone(&requests),
            last_key: Mutex::default(),
        });
        let (public_key, newer_public_key) = (server.key.public_key, server.newer_key.public_key);
        let serving = Arc::clone(&server);
        tokio::spawn(async move {
            loop {
                let (connection, _) = listener.accept().await.unwrap();
                tokio::spawn(Arc::clone(&serving).serve(connection));
            }
        });
        Self { public_key, newer_public_key, url, requests, server }
    }

    /// Returns the configuration of a client of this KMS.
    pub(crate) async fn sdk(&self) -> SdkConfig {
        sdk_at(&self.url).await
    }

    /// Changes how the KMS answers for [`KEY`].
    pub(crate) fn set(&self, behaviour: Behaviour) {
        *self.server.behaviour.lock().unwrap() = behaviour;
    }

    /// Returns the key of the last request.
    pub(crate) fn last_key(&self) -> Option<String> {
        self.server.last_key.lock().unwrap().clone()
    }

    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }
}

/// Returns the configuration of a client of the KMS at this address.
pub(crate) async fn sdk_at(url: &str) -> SdkConfig {
    aws_config::defaults(BehaviorVersion::latest()).endpoint_url(url).load().await
}

impl Server {
    async fn serve(self: Arc<Self>, connection: TcpStream) {
        let mut connection = BufReader::new(connection);
        let (target, body) = receive(&mut connection).await;
        self.requests.fetch_add(1, Ordering::Relaxed);
        let key = if body["KeyId"] == NEWER_KEY { &self.newer_key } else { &self.key };
        assert_eq!(body["KeyId"], key.id);
        *self.last_key.lock().unwrap() = Some(key.id.to_owned());
        let behaviour = self.behaviour.lock().unwrap().clone();
        let (status, body) = match behaviour {
            Behaviour::Derive => (200, key.answer(&target, &body)),
            _ if key.id == NEWER_KEY => (200, key.answer(&target, &body)),
            Behaviour::DeriveAfter(time) => {
                tokio::time::sleep(time).await;
                (200, key.answer(&target, &body))
            }
            Behaviour::Refuse(status, code) => (status, json!({ "__type": code, "message": "leak-me" })),
            Behaviour::Return(body) => (200, body),
            Behaviour::Silent => return std::future::pending().await,
        };
        let body = body.to_string();
        let head = format!(
            "HTTP/1.1 {status} X\r\nx-amzn-RequestId: {REQUEST_ID}\r\nContent-Type: application/x-amz-json-1.1\r\n\
             Connection: close\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        // The client may have gone.
        drop(connection.write_all((head + &body).as_bytes()).await);
    }
}

impl KeyPair {
    fn generate(id: &'static str) -> Self {
        let private_key = PrivateKey::generate(&ECDH_P256).unwrap();
        let public_key = private_key.compute_public_key().unwrap().as_ref().try_into().unwrap();
        Self { id, private_key, public_key }
    }

    fn answer(&self, target: &str, body: &Value) -> Value {
        match target {
            "TrentService.DeriveSharedSecret" => {
                assert_eq!(body["KeyAgreementAlgorithm"], "ECDH");
                let peer = STANDARD.decode(body["PublicKey"].as_str().unwrap()).unwrap();
                let peer = Point::from_spki(&peer).unwrap();
                let peer = UnparsedPublicKey::new(&ECDH_P256, peer.as_bytes());
                let coordinate =
                    agree(&self.private_key, peer, (), |coordinate| Ok(STANDARD.encode(coordinate)));
                json!({
                    "KeyId": self.id, "SharedSecret": coordinate.unwrap(), "KeyAgreementAlgorithm": "ECDH",
                    "KeyOrigin": "AWS_KMS",
                })
            }
            "TrentService.GetPublicKey" => json!({
                "KeyId": self.id, "PublicKey": STANDARD.encode(self.public_key.to_spki()), "KeySpec": "ECC_NIST_P256",
                "KeyUsage": "KEY_AGREEMENT", "KeyAgreementAlgorithms": ["ECDH"],
            }),
            other => panic!("unexpected operation {other}"),
        }
    }
}

/// Receives a request, and returns its operation and body.
async fn receive(connection: &mut BufReader<TcpStream>) -> (String, Value) {
    let (mut target, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        connection.read_line(&mut line).await.unwrap();
        let Some((name, value)) = line.trim_end().split_once(": ") else {
            if line.trim_end().is_empty() {
                break;
            }
            continue;
        };
        match &*name.to_lowercase() {
            "x-amz-target" => value.clone_into(&mut target),
            "content-length" => length = value.parse().unwrap(),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    connection.read_exact(&mut body).await.unwrap();
    (target, serde_json::from_slice(&body).unwrap())
}
