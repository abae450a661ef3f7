//! Answers the browser's requests: permits, signs and forwards them.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::Response;

use crate::error::Error;
use crate::output;
use crate::signed_api::{NoAnswer, SignedApi, TIME_LIMIT, UnsignedRequest};

use super::problem::{self, Problem, is_browser};

/// Bytes of a request's body. The API accepts no more.
const BODY_LIMIT: usize = 4096;

/// The headers that are forwarded. A cookie of another program on 127.0.0.1 is not.
const REQUEST_HEADERS: [HeaderName; 3] = [header::ACCEPT, header::CONTENT_TYPE, header::IF_NONE_MATCH];
/// The headers that are passed back.
const RESPONSE_HEADERS: [HeaderName; 15] = [
    header::ALLOW,
    header::CACHE_CONTROL,
    header::CONTENT_DISPOSITION,
    header::CONTENT_LANGUAGE,
    header::CONTENT_SECURITY_POLICY,
    header::CONTENT_TYPE,
    HeaderName::from_static("cross-origin-opener-policy"),
    HeaderName::from_static("cross-origin-resource-policy"),
    header::ETAG,
    header::LINK,
    header::LOCATION,
    header::REFERRER_POLICY,
    header::RETRY_AFTER,
    header::VARY,
    header::X_CONTENT_TYPE_OPTIONS,
];

/// Forwards requests of this machine to the analysts' API.
pub(crate) struct Proxy {
    api: SignedApi,
    port: u16,
    /// The first segment of each path, with the slash before it.
    secret: String,
    time_limit: Duration,
}

impl Proxy {
    /// Chooses a random path.
    ///
    /// # Errors
    ///
    /// [`Error::Failed`] if the system has no random numbers.
    pub(crate) fn new(api: SignedApi, port: u16) -> Result<Self, Error> {
        let mut random = [0; 16];
        getrandom::fill(&mut random)
            .map_err(|error| Error::Failed(format!("no random numbers from the system: {error}")))?;
        let secret = format!("/{:032x}", u128::from_be_bytes(random));
        Ok(Self { api, port, secret, time_limit: TIME_LIMIT })
    }

    /// Returns the address of the page on this machine.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}{}/", self.port, self.secret)
    }

    async fn forward(&self, request: Request) -> Result<Response, Problem> {
        let (request, body) = request.into_parts();
        let path = self.permit(&request)?;
        let body = to_bytes(body, BODY_LIMIT).await.map_err(|_| Problem::Body)?;
        let value = |name| request.headers.get(name).and_then(|value| value.to_str().ok());
        let headers: Vec<_> =
            REQUEST_HEADERS.iter().filter_map(|name| Some((name.as_str(), value(name)?))).collect();
        let (method, query) = (request.method.as_str(), request.uri.query());
        let request = UnsignedRequest { method, path, query, headers: &headers, body };
        let answer = self.api.send(request).await?;
        pass_back(answer.status, &answer.headers, answer.body)
    }

    /// Returns the path in the API, if the request comes from the page.
    fn permit<'r>(&self, request: &'r Parts) -> Result<&'r str, Problem> {
        let header = |name| request.headers.get(name).and_then(|value| value.to_str().ok());
        // Otherwise a web page whose own name suddenly resolves to 127.0.0.1 could read the answers (DNS rebinding).
        let hosts = ["127.0.0.1", "localhost"].map(|name| format!("{name}:{}", self.port));
        let host = header(header::HOST).filter(|host| hosts.iter().any(|own| own == host));
        let host = host.ok_or(Problem::ForeignHost)?;
        let path = request.uri.path().strip_prefix(&self.secret).filter(|path| path.starts_with('/'));
        let path = path.filter(|path| is_plain(path)).ok_or(Problem::UnknownPath)?;
        match request.method {
            Method::GET | Method::HEAD => Ok(path),
            Method::POST => {
                // A browser sends `null` if the page has a policy without referrers.
                let is_same = match header(header::ORIGIN) {
                    None | Some("null") => {
                        header(HeaderName::from_static("sec-fetch-site")) == Some("same-origin")
                    }
                    Some(origin) => origin.strip_prefix("http://") == Some(host),
                };
                if is_same { Ok(path) } else { Err(Problem::ForeignOrigin) }
            }
            _ => Err(Problem::Method),
        }
    }
}

/// By hand: the path is a secret.
impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy").field("api", &self.api).field("port", &self.port).finish_non_exhaustive()
    }
}

/// The terminal shows the reasons that the browser does not.
impl From<NoAnswer> for Problem {
    fn from(reason: NoAnswer) -> Self {
        match reason {
            NoAnswer::NoCredentials(reason) => {
                output::progress(format_args!("login-etl: {reason}"));
                Self::NoCredentials
            }
            NoAnswer::Denied(permission) => Self::Denied(permission),
            NoAnswer::Unsignable => Self::Unsignable,
            NoAnswer::Unreachable(causes) => {
                output::progress(format_args!("login-etl: no answer from the analysts' API: {causes}"));
                Self::Unreachable
            }
            NoAnswer::Unreadable => Self::Answer,
        }
    }
}

/// Answers a request, and logs it without its path.
pub(crate) async fn respond(State(proxy): State<Arc<Proxy>>, request: Request) -> Response {
    let (started, method, for_browser) =
        (Instant::now(), request.method().clone(), is_browser(request.headers()));
    let answer = tokio::time::timeout(proxy.time_limit, proxy.forward(request)).await;
    let answer = answer.unwrap_or(Err(Problem::Timeout));
    let answer = answer.unwrap_or_else(|problem| problem.respond(for_browser));
    let (status, elapsed_ms) = (answer.status().as_u16(), started.elapsed().as_millis());
    output::progress(format_args!("{method} {status} {elapsed_ms} ms"));
    answer
}

/// Makes the answer to the browser.
fn pass_back(status: StatusCode, headers: &HeaderMap, body: Bytes) -> Result<Response, Problem> {
    if headers.get_all(header::LOCATION).iter().any(|place| !stays_below(place.as_bytes())) {
        return Err(Problem::Answer);
    }
    let mut answer = Response::new(Body::from(body));
    *answer.status_mut() = status;
    for name in &RESPONSE_HEADERS {
        for value in headers.get_all(name) {
            answer.headers_mut().append(name, value.clone());
        }
    }
    // An error may be of AWS in front of the API.
    if status.is_client_error() || status.is_server_error() {
        for (name, value) in problem::HEADERS {
            answer.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
        }
    }
    Ok(answer)
}

/// Whether a path has no `.`, `..` or empty segment. AWS would resolve them, and could so leave the stage of the URL.
fn is_plain(path: &str) -> bool {
    let path = path.to_ascii_lowercase().replace("%2e", ".");
    !path.contains("//") && path.split('/').all(|segment| !matches!(segment, "." | ".."))
}

/// Whether a redirect leads to a place on the page: it is relative, and has no scheme and no host.
fn stays_below(location: &[u8]) -> bool {
    !location.starts_with(b"/") && !location.iter().any(|byte| matches!(byte, b':' | b'\\'))
}

#[cfg(test)]
mod tests {
    use aws_sdk_cloudformation::config::{Credentials, SharedCredentialsProvider};
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn paths_have_no_dot_segments() {
        for path in ["/", "/v1/rings", "/tokens/9f", "/icon.svg", "/...", "/a..b", "/v1/"] {
            assert!(is_plain(path), "{path}");
        }
        for path in
            ["/.", "/..", "/../dev/v1", "/v1/./rings", "/v1/%2e%2E/rings", "/.%2e/x", "//v1", "/v1//x"]
        {
            assert!(!is_plain(path), "{path}");
        }
    }

    #[test]
    fn redirects_stay_on_the_page() {
        for location in ["./tokens/9f", "../rings", "rings?limit=2", "", "?after=2"] {
            assert!(stays_below(location.as_bytes()), "{location}");
        }
        for location in ["/rings", "//example.com", "https://example.com", "\\\\example.com", "javascript:1"]
        {
            assert!(!stays_below(location.as_bytes()), "{location}");
        }
    }

    #[tokio::test]
    async fn silent_api_is_a_timeout() {
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let site = format!("http://{}", silent.local_addr().unwrap()).parse().unwrap();
        let credentials = Credentials::new("key", "secret", None, None, "test");
        let provider = SharedCredentialsProvider::new(credentials);
        let proxy = Proxy {
            api: SignedApi::new(site, "eu-central-1", provider),
            port: 9000,
            secret: "/secret".into(),
            time_limit: Duration::from_millis(1),
        };
        let request = Request::get("/secret/").header(header::HOST, "127.0.0.1:9000");

        let answer = respond(State(Arc::new(proxy)), request.body(Body::empty()).unwrap()).await;

        assert_eq!(answer.status(), StatusCode::GATEWAY_TIMEOUT);
    }
}
