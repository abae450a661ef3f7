//! Verifies which user an Application Load Balancer has logged in.
//!
//! The load balancer signs [a header that looks like a JWT][guide], but its three parts are padded, and the signature
//! is over the padded parts. Libraries for JWT refuse padding, so this module splits the header itself.
//!
//! [guide]: https://docs.aws.amazon.com/elasticloadbalancing/latest/application/listener-authenticate-users.html#user-claims-encoding

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use aws_smithy_http_client::Connector;
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_runtime_api::client::http::HttpConnector;
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use axum::body::{Body, to_bytes};
use base64::Engine;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use openssl::bn::BigNum;
use openssl::ecdsa::EcdsaSig;
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Public};
use openssl::sign::Verifier;
use serde::Deserialize;
use uuid::Uuid;

use crate::caller::{Caller, Refusal};

/// Bytes of a header: a load balancer takes no more than 11 KB of claims and access token.
const TOKEN_LIMIT: usize = 16 * 1024;
/// Bytes of a signature: two numbers of 32 bytes, as ES256 has them.
const SIGNATURE_BYTES: usize = 64;
/// Bytes of a public key in PEM, with room to spare.
const KEY_LIMIT: usize = 4096;
/// Number of keys that are kept. A load balancer changes its key now and then.
const KEYS: usize = 8;
/// How long a key may take to come.
const KEY_TIMEOUT: Duration = Duration::from_secs(3);

/// With or without padding; other characters are refused.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Whose users are accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadBalancerSettings {
    /// The ARN of the load balancer.
    pub arn: String,
    /// The issuer and the client id of its action `authenticate-oidc`: other rules of the same load balancer may log
    /// in other users.
    pub issuer: String,
    /// See `issuer`.
    pub client_id: String,
    /// The URL of its public keys, without the id of a key: see [`keys_url`].
    pub keys_url: String,
}

/// A load balancer that logs users in.
pub struct LoadBalancer {
    settings: LoadBalancerSettings,
    connector: Connector,
    /// The oldest first.
    keys: Mutex<Vec<(Uuid, PKey<Public>)>>,
}

/// The first part of the token.
#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Uuid,
    signer: String,
    iss: String,
    client: String,
    /// In seconds since 1970.
    exp: u64,
}

/// The second part of the token, as far as it identifies the user.
#[derive(Deserialize)]
struct Claims {
    sub: String,
}

impl LoadBalancer {
    /// Fetches nothing yet.
    #[must_use]
    pub fn new(settings: LoadBalancerSettings) -> Self {
        let connector = Connector::builder()
            .proxy_config(ProxyConfig::from_env())
            .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
            .build();
        Self { settings, connector, keys: Mutex::default() }
    }

    /// Returns the user, if this load balancer has signed the token and the token is still valid.
    ///
    /// # Errors
    ///
    /// [`Refusal`]. No part of the token is in it.
    pub async fn verify(&self, token: &[u8]) -> Result<Caller, Refusal> {
        let unverified = Refusal::Unverified;
        let token = str::from_utf8(token).ok().filter(|token| token.len() <= TOKEN_LIMIT);
        let token = token.ok_or(unverified("the token is too long or no text"))?;
        let parts: Vec<_> = token.split('.').collect();
        let [header, claims, signature] = parts[..] else {
            return Err(unverified("the token has no three parts"));
        };
        let signed = &token[..header.len() + ".".len() + claims.len()];
        let header: Header = decode(header).ok_or(unverified("the token's header cannot be read"))?;
        self.check(&header)?;
        let signature = BASE64.decode(signature).map_err(|_| unverified("the signature cannot be read"))?;
        let key = self.key(header.kid).await?;
        if !is_signed(signed.as_bytes(), &signature, &key).unwrap_or(false) {
            return Err(unverified("the signature is wrong"));
        }
        let claims: Claims = decode(claims).ok_or(unverified("the token's claims cannot be read"))?;
        if claims.sub.is_empty() {
            return Err(unverified("the token names no user"));
        }
        Ok(Caller(claims.sub))
    }

    /// Checks the parts that need no key, so that no key is fetched for a foreign token.
    fn check(&self, header: &Header) -> Result<(), Refusal> {
        let LoadBalancerSettings { arn, issuer, client_id, .. } = &self.settings;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        // Otherwise the token could choose how it is verified.
        if header.alg != "ES256" {
            return Err(Refusal::Unverified("the token has another algorithm than ES256"));
        }
        if header.signer != *arn {
            return Err(Refusal::Unverified("the token is of another load balancer"));
        }
        if (&header.iss, &header.client) != (issuer, client_id) {
            return Err(Refusal::Unverified("the token is of another OIDC client"));
        }
        if header.exp <= now.as_secs() {
            return Err(Refusal::Unverified("the token has expired"));
        }
        Ok(())
    }

    async fn key(&self, id: Uuid) -> Result<PKey<Public>, Refusal> {
        if let Some(key) = self.kept(id) {
            return Ok(key);
        }
        let key = tokio::time::timeout(KEY_TIMEOUT, self.fetch(id)).await.unwrap_or(Err(Refusal::NoKey))?;
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if keys.len() == KEYS {
            keys.remove(0);
        }
        keys.push((id, key.clone()));
        Ok(key)
    }

    fn kept(&self, id: Uuid) -> Option<PKey<Public>> {
        let keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        keys.iter().find(|(kept, _)| *kept == id).map(|(_, key)| key.clone())
    }

    async fn fetch(&self, id: Uuid) -> Result<PKey<Public>, Refusal> {
        let mut request = HttpRequest::empty();
        let url = format!("{}/{}", self.settings.keys_url, id.hyphenated());
        request.set_uri(url).map_err(|_| Refusal::NoKey)?;
        let response = self.connector.call(request).await.map_err(|_| Refusal::NoKey)?;
        match response.status().as_u16() {
            200 => {}
            // S3 answers 403 for a key that does not exist.
            403 | 404 => return Err(Refusal::Unverified("the token's key does not exist")),
            _ => return Err(Refusal::NoKey),
        }
        let pem = to_bytes(Body::new(response.into_body()), KEY_LIMIT).await.map_err(|_| Refusal::NoKey)?;
        let key = PKey::public_key_from_pem(&pem).map_err(|_| Refusal::NoKey)?;
        let curve = key.ec_key().ok().and_then(|key| key.group().curve_name());
        if curve == Some(Nid::X9_62_PRIME256V1) { Ok(key) } else { Err(Refusal::NoKey) }
    }
}

/// By hand: keys and connections say nothing to a reader.
impl fmt::Debug for LoadBalancer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoadBalancer").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// Returns the URL of the public keys of a load balancer, without the id of a key. `None` if the text is not the ARN of
/// an Application Load Balancer, or of one in a partition for which [AWS documents no URL][guide].
///
/// [guide]: https://docs.aws.amazon.com/elasticloadbalancing/latest/application/listener-authenticate-users.html#user-claims-encoding
#[must_use]
pub fn keys_url(arn: &str) -> Option<String> {
    let parts: Vec<_> = arn.split(':').collect();
    let ["arn", partition, "elasticloadbalancing", region, _, resource] = parts[..] else {
        return None;
    };
    let is_region = !region.is_empty()
        && region.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    if !is_region || !resource.starts_with("loadbalancer/app/") {
        return None;
    }
    match partition {
        "aws" => Some(format!("https://public-keys.auth.elb.{region}.amazonaws.com")),
        "aws-us-gov" => Some(format!("https://s3-{region}.amazonaws.com/aws-elb-public-keys-prod-{region}")),
        _ => None,
    }
}

fn decode<T: for<'t> Deserialize<'t>>(part: &str) -> Option<T> {
    serde_json::from_slice(&BASE64.decode(part).ok()?).ok()
}

/// Whether the key has made the signature: SHA-256, and two numbers as ES256 writes them.
fn is_signed(signed: &[u8], signature: &[u8], key: &PKey<Public>) -> Result<bool, ErrorStack> {
    if signature.len() != SIGNATURE_BYTES {
        return Ok(false);
    }
    let (r, s) = signature.split_at(SIGNATURE_BYTES / 2);
    let signature = EcdsaSig::from_private_components(BigNum::from_slice(r)?, BigNum::from_slice(s)?)?;
    Verifier::new(MessageDigest::sha256(), key)?.verify_oneshot(&signature.to_der()?, signed)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use axum::Router;
    use axum::extract::State;
    use axum::http::{StatusCode, Uri};
    use base64::engine::general_purpose::{STANDARD, URL_SAFE as PADDED, URL_SAFE_NO_PAD};
    use openssl::ec::{EcGroup, EcKey};
    use openssl::pkey::Private;
    use openssl::rsa::Rsa;
    use openssl::sign::Signer;
    use serde_json::{Value, json};
    use tokio::net::TcpListener;

    use super::*;

    const ARN: &str =
        "arn:aws:elasticloadbalancing:eu-central-1:123456789012:loadbalancer/app/analysts/50dc6c495c0c9188";
    const KID: &str = "c2f80c8b-c05c-4068-af14-17299f7896b1";
    const SIGNATURE: &str = "the signature is wrong";

    /// The server of the public keys: answers each id with the same answer, and counts the requests.
    struct KeyServer {
        url: String,
        requests: Arc<AtomicUsize>,
    }

    impl KeyServer {
        async fn start(status: StatusCode, answer: Vec<u8>) -> Self {
            let requests = Arc::new(AtomicUsize::new(0));
            let router = Router::new()
                .fallback(async move |State(requests): State<Arc<AtomicUsize>>, uri: Uri| {
                    assert!(
                        uri.path().strip_prefix("/keys/").is_some_and(|id| id.len() == KID.len()),
                        "{uri}"
                    );
                    requests.fetch_add(1, Ordering::Relaxed);
                    (status, answer.clone())
                })
                .with_state(Arc::clone(&requests));
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("http://{}/keys", listener.local_addr().unwrap());
            tokio::spawn(async { axum::serve(listener, router).await });
            Self { url, requests }
        }

        fn requests(&self) -> usize {
            self.requests.load(Ordering::Relaxed)
        }

        fn load_balancer(&self) -> LoadBalancer {
            load_balancer(&self.url)
        }
    }

    fn load_balancer(keys_url: &str) -> LoadBalancer {
        LoadBalancer::new(LoadBalancerSettings {
            arn: ARN.into(),
            issuer: "https://idp.example.com".into(),
            client_id: "analysts".into(),
            keys_url: keys_url.into(),
        })
    }

    fn new_key(curve: Nid) -> PKey<Private> {
        let group = EcGroup::from_curve_name(curve).unwrap();
        PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap()
    }

    fn header() -> Value {
        json!({
            "typ": "JWT",
            "kid": KID,
            "alg": "ES256",
            "iss": "https://idp.example.com",
            "client": "analysts",
            "signer": ARN,
            "exp": 4_102_444_800_u64,
        })
    }

    fn header_with(field: &str, value: Value) -> Value {
        let mut header = header();
        header[field] = value;
        header
    }

    /// Writes the first two parts of a token.
    fn parts(engine: &impl Engine, header: &Value, claims: &Value) -> String {
        format!("{}.{}", engine.encode(header.to_string()), engine.encode(claims.to_string()))
    }

    fn signature(signed: &str, key: &PKey<Private>) -> Vec<u8> {
        let der = Signer::new(MessageDigest::sha256(), key)
            .unwrap()
            .sign_oneshot_to_vec(signed.as_bytes())
            .unwrap();
        let signature = EcdsaSig::from_der(&der).unwrap();
        [signature.r(), signature.s()].map(|number| number.to_vec_padded(32).unwrap()).concat()
    }

    fn token(header: &Value, claims: &Value, key: &PKey<Private>) -> String {
        let signed = parts(&PADDED, header, claims);
        format!("{signed}.{}", PADDED.encode(signature(&signed, key)))
    }

    async fn refusal(load_balancer: &LoadBalancer, token: &str) -> &'static str {
        match load_balancer.verify(token.as_bytes()).await {
            Err(Refusal::Unverified(reason)) => reason,
            other => panic!("{token}: {other:?}"),
        }
    }

    #[tokio::test]
    async fn signed_tokens_name_the_user() {
        let key = new_key(Nid::X9_62_PRIME256V1);
        let server = KeyServer::start(StatusCode::OK, key.public_key_to_pem().unwrap()).await;
        let load_balancer = server.load_balancer();
        // Of each length, so that the parts have no, one and two characters of padding.
        for user in ["a", "an", "ann", "anna"] {
            let claims = json!({ "sub": user, "email": "anna@example.com" });
            let padded = token(&header(), &claims, &key);
            let signed = parts(&URL_SAFE_NO_PAD, &header(), &claims);
            let unpadded = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature(&signed, &key)));

            for token in [padded, unpadded] {
                assert_eq!(load_balancer.verify(token.as_bytes()).await, Ok(Caller(user.into())), "{token}");
            }
        }
        assert_eq!(server.requests(), 1);
    }

    #[tokio::test]
    async fn foreign_tokens_fetch_no_key() {
        let key = new_key(Nid::X9_62_PRIME256V1);
        let pem = key.public_key_to_pem().unwrap();
        let server = KeyServer::start(StatusCode::OK, pem.clone()).await;
        let load_balancer = server.load_balancer();
        let claims = json!({ "sub": "anna" });
        let unreadable = "the token's header cannot be read";
        let algorithm = "the token has another algorithm than ES256";

        for (field, value, expected) in [
            ("alg", json!("none"), algorithm),
            ("alg", json!("HS256"), algorithm),
            ("alg", json!("ES384"), algorithm),
            ("signer", json!(ARN.replace("analysts", "other")), "the token is of another load balancer"),
            ("signer", json!(format!("{ARN}0")), "the token is of another load balancer"),
            ("iss", json!("https://idp.example.com/"), "the token is of another OIDC client"),
            ("client", json!("others"), "the token is of another OIDC client"),
            ("exp", json!(0), "the token has expired"),
            ("exp", json!(1_700_000_000), "the token has expired"),
            ("exp", json!(-1), unreadable),
            ("exp", json!("4102444800"), unreadable),
            ("exp", Value::Null, unreadable),
            ("kid", json!("../../c2f80c8b-c05c-4068-af14-17299f7896b1"), unreadable),
            ("kid", json!("c2f80c8b-c05c-4068-af14-17299f7896b1/.."), unreadable),
            ("kid", Value::Null, unreadable),
        ] {
            let token = token(&header_with(field, value.clone()), &claims, &key);

            assert_eq!(refusal(&load_balancer, &token).await, expected, "{field} {value}");
        }
        // The public key as the secret of an HMAC.
        let signed = parts(&PADDED, &header_with("alg", json!("HS256")), &claims);
        let hmac = PKey::hmac(&pem).unwrap();
        let mac = Signer::new(MessageDigest::sha256(), &hmac).unwrap().sign_oneshot_to_vec(signed.as_bytes());
        let token = format!("{signed}.{}", PADDED.encode(mac.unwrap()));
        assert_eq!(refusal(&load_balancer, &token).await, algorithm);
        assert_eq!(server.requests(), 0);
    }

    #[tokio::test]
    async fn altered_tokens_are_refused() {
        let key = new_key(Nid::X9_62_PRIME256V1);
        let server = KeyServer::start(StatusCode::OK, key.public_key_to_pem().unwrap()).await;
        let load_balancer = server.load_balancer();
        let good = token(&header(), &json!({ "sub": "anna" }), &key);
        let (signed, signature) = good.rsplit_once('.').unwrap();
        let (head, claims) = signed.split_once('.').unwrap();
        let other_claims = PADDED.encode(json!({ "sub": "admin" }).to_string());
        let stripped = signed.replace('=', "");
        let der = {
            let bytes = PADDED.decode(signature).unwrap();
            let (r, s) = bytes.split_at(32);
            let (r, s) = (BigNum::from_slice(r).unwrap(), BigNum::from_slice(s).unwrap());
            EcdsaSig::from_private_components(r, s).unwrap().to_der().unwrap()
        };
        assert_ne!(stripped, signed);

        for (altered, expected) in [
            (format!("{head}.{other_claims}.{signature}"), SIGNATURE),
            (format!("{stripped}.{signature}"), SIGNATURE),
            (format!("{signed}."), SIGNATURE),
            (format!("{signed}.{}", PADDED.encode([0; 64])), SIGNATURE),
            (format!("{signed}.{}", PADDED.encode([0xff; 64])), SIGNATURE),
            (format!("{signed}.{}", PADDED.encode(der)), SIGNATURE),
            (format!("{signed}.{signature}!"), "the signature cannot be read"),
            (format!("{signed}.{}", STANDARD.encode([0xff; 64])), "the signature cannot be read"),
            (format!("{good}.{signature}"), "the token has no three parts"),
            (signed.into(), "the token has no three parts"),
            (format!(".{claims}.{signature}"), "the token's header cannot be read"),
            (String::new(), "the token has no three parts"),
            (format!("{good}{}", "=".repeat(TOKEN_LIMIT)), "the token is too long or no text"),
        ] {
            assert_eq!(refusal(&load_balancer, &altered).await, expected, "{altered}");
        }
        for length in 0..good.trim_end_matches('=').len() {
            refusal(&load_balancer, &good[..length]).await;
        }
        assert_eq!(
            load_balancer.verify(b"\xff").await,
            Err(Refusal::Unverified("the token is too long or no text"))
        );
    }

    #[tokio::test]
    async fn other_keys_signature_is_refused() {
        let server_key = new_key(Nid::X9_62_PRIME256V1).public_key_to_pem().unwrap();
        let server = KeyServer::start(StatusCode::OK, server_key).await;
        let token = token(&header(), &json!({ "sub": "anna" }), &new_key(Nid::X9_62_PRIME256V1));

        assert_eq!(refusal(&server.load_balancer(), &token).await, SIGNATURE);
    }

    #[tokio::test]
    async fn token_without_user_is_refused() {
        let key = new_key(Nid::X9_62_PRIME256V1);
        let server = KeyServer::start(StatusCode::OK, key.public_key_to_pem().unwrap()).await;
        let load_balancer = server.load_balancer();

        for (claims, expected) in [
            (json!({}), "the token's claims cannot be read"),
            (json!({ "sub": 7 }), "the token's claims cannot be read"),
            (json!({ "sub": null }), "the token's claims cannot be read"),
            (json!({ "sub": "" }), "the token names no user"),
        ] {
            let token = token(&header(), &claims, &key);

            assert_eq!(refusal(&load_balancer, &token).await, expected, "{claims}");
        }
    }

    #[tokio::test]
    async fn unknown_key_is_refused() {
        let key = new_key(Nid::X9_62_PRIME256V1);
        let token = token(&header(), &json!({ "sub": "anna" }), &key);
        for status in [StatusCode::FORBIDDEN, StatusCode::NOT_FOUND] {
            let server = KeyServer::start(status, b"no such key".to_vec()).await;

            assert_eq!(refusal(&server.load_balancer(), &token).await, "the token's key does not exist");
        }
    }

    #[tokio::test]
    async fn unusable_keys_are_no_keys() {
        let key = new_key(Nid::X9_62_PRIME256V1);
        let pem = key.public_key_to_pem().unwrap();
        let rsa = PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap();
        let token = token(&header(), &json!({ "sub": "anna" }), &key);

        for (status, answer) in [
            (StatusCode::INTERNAL_SERVER_ERROR, pem.clone()),
            (StatusCode::FOUND, pem.clone()),
            (StatusCode::OK, Vec::new()),
            (StatusCode::OK, b"no key".to_vec()),
            (StatusCode::OK, key.private_key_to_pem_pkcs8().unwrap()),
            (StatusCode::OK, new_key(Nid::SECP384R1).public_key_to_pem().unwrap()),
            (StatusCode::OK, rsa.public_key_to_pem().unwrap()),
            (StatusCode::OK, [pem, vec![b'\n'; KEY_LIMIT]].concat()),
        ] {
            let server = KeyServer::start(status, answer).await;

            assert_eq!(server.load_balancer().verify(token.as_bytes()).await, Err(Refusal::NoKey));
        }
    }

    #[tokio::test]
    async fn absent_and_silent_servers_give_no_key() {
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let token = token(&header(), &json!({ "sub": "anna" }), &new_key(Nid::X9_62_PRIME256V1));

        for url in [format!("http://{}", silent.local_addr().unwrap()), "http://127.0.0.1:9".into()] {
            assert_eq!(load_balancer(&url).verify(token.as_bytes()).await, Err(Refusal::NoKey));
        }
    }

    #[tokio::test]
    async fn number_of_kept_keys_is_limited() {
        let key = new_key(Nid::X9_62_PRIME256V1);
        let server = KeyServer::start(StatusCode::OK, key.public_key_to_pem().unwrap()).await;
        let load_balancer = server.load_balancer();
        let kids: Vec<_> = (0..=KEYS as u128).map(Uuid::from_u128).collect();
        let tokens =
            kids.iter().map(|kid| token(&header_with("kid", json!(kid)), &json!({ "sub": "anna" }), &key));

        for token in tokens {
            load_balancer.verify(token.as_bytes()).await.unwrap();
            load_balancer.verify(token.as_bytes()).await.unwrap();
        }

        assert_eq!(server.requests(), KEYS + 1);
        assert!(load_balancer.kept(kids[0]).is_none());
        assert!(kids[1..].iter().all(|kid| load_balancer.kept(*kid).is_some()));
    }

    #[test]
    fn partition_and_region_name_the_server() {
        let govcloud = ARN.replace("arn:aws:", "arn:aws-us-gov:").replace("eu-central-1", "us-gov-east-1");

        assert_eq!(keys_url(ARN).unwrap(), "https://public-keys.auth.elb.eu-central-1.amazonaws.com");
        assert_eq!(
            keys_url(&govcloud).unwrap(),
            "https://s3-us-gov-east-1.amazonaws.com/aws-elb-public-keys-prod-us-gov-east-1"
        );
        for other in [
            ARN.replace("arn:aws:", "arn:aws-cn:"),
            ARN.replace("eu-central-1", "evil.example/"),
            ARN.replace("eu-central-1", ""),
            ARN.replace("loadbalancer/app", "loadbalancer/net"),
            ARN.replace("elasticloadbalancing", "lambda"),
            format!("{ARN}:x"),
            "analysts".into(),
        ] {
            assert_eq!(keys_url(&other), None, "{other}");
        }
    }
}
