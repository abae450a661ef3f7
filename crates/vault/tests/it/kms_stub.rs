//! A KMS that answers as a test says. The tests in `localstack` have a KMS that is not ours.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
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
    pub(crate) url: String,
    /// Number of requests that came.
    pub(crate) requests: Arc<AtomicUsize>,
}

struct Server {
    private_key: PrivateKey,
    public_key: Point,
    behaviour: Behaviour,
    requests: Arc<AtomicUsize>,
}

impl KmsStub {
    pub(crate) async fn start(behaviour: Behaviour) -> Self {
        Self::with_key(behaviour, PrivateKey::generate(&ECDH_P256).unwrap()).await
    }

    async fn with_key(behaviour: Behaviour, private_key: PrivateKey) -> Self {
        let public_key = private_key.compute_public_key().unwrap().as_ref().try_into().unwrap();
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(AtomicUsize::new(0));
        let server = Arc::new(Server { private_key, public_key, behaviour, requests: Arc::clone(&requests) });
        tokio::spawn(async move {
            loop {
                let (connection, _) = listener.accept().await.unwrap();
                tokio::spawn(Arc::clone(&server).serve(connection));
            }
        });
        Self { public_key, url, requests }
    }

    /// Returns the configuration of a client of this KMS.
    pub(crate) async fn sdk(&self) -> SdkConfig {
        sdk_at(&self.url).await
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
        let (status, body) = match &self.behaviour {
            Behaviour::Derive => (200, self.answer(&target, &body)),
            Behaviour::DeriveAfter(time) => {
                tokio::time::sleep(*time).await;
                (200, self.answer(&target, &body))
            }
            Behaviour::Refuse(status, code) => (*status, json!({ "__type": code, "message": "leak-me" })),
            Behaviour::Return(body) => (200, body.clone()),
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

    fn answer(&self, target: &str, body: &Value) -> Value {
        assert_eq!(body["KeyId"], KEY);
        match target {
            "TrentService.DeriveSharedSecret" => {
                assert_eq!(body["KeyAgreementAlgorithm"], "ECDH");
                let peer = STANDARD.decode(body["PublicKey"].as_str().unwrap()).unwrap();
                let peer = Point::from_spki(&peer).unwrap();
                let peer = UnparsedPublicKey::new(&ECDH_P256, peer.as_bytes());
                let coordinate =
                    agree(&self.private_key, peer, (), |coordinate| Ok(STANDARD.encode(coordinate)));
                json!({
                    "KeyId": KEY, "SharedSecret": coordinate.unwrap(), "KeyAgreementAlgorithm": "ECDH",
                    "KeyOrigin": "AWS_KMS",
                })
            }
            "TrentService.GetPublicKey" => json!({
                "KeyId": KEY, "PublicKey": STANDARD.encode(self.public_key.to_spki()), "KeySpec": "ECC_NIST_P256",
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
