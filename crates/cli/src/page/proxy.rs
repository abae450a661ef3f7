//! Answers the browser's requests: permits, signs and forwards them.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use aws_sdk_cloudformation::config::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningError, SigningSettings, sign};
use aws_sigv4::sign::v4::SigningParams;
use aws_smithy_http_client::Connector;
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_runtime_api::client::http::HttpConnector;
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::Response;

use crate::aws::{self, Aws};
use crate::error::Error;
use crate::output;

use super::login::Login;
use super::problem::{self, Problem, is_browser};
use super::site::Site;

/// Bytes of a request's body. The API accepts no more.
const BODY_LIMIT: usize = 4096;
/// Bytes of an answer: the most that [a function can return][quota].
///
/// [quota]: https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
const ANSWER_LIMIT: usize = 6 * 1024 * 1024;
/// Time limit of a request: API Gateway [answers within 30 s][quota].
///
/// [quota]: https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-quotas.html
const TIME_LIMIT: Duration = Duration::from_secs(35);

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
    site: Site,
    region: String,
    login: Login,
    connector: Connector,
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
    /// [`Error::Failed`] if there are no credentials, or the system has no random numbers.
    pub(crate) fn new(site: Site, aws: &Aws, port: u16) -> Result<Self, Error> {
        let mut random = [0; 16];
        getrandom::fill(&mut random)
            .map_err(|error| Error::Failed(format!("no random numbers from the system: {error}")))?;
        let connector = Connector::builder()
            // As for the other calls of this program.
            .proxy_config(ProxyConfig::from_env())
            // A connection that was open while the machine slept would not answer.
            .pool_idle_timeout(Some(Duration::from_secs(5)))
            .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
            .build();
        Ok(Self {
            region: site.region.clone().unwrap_or_else(|| aws.region().to_owned()),
            site,
            login: Login::new(aws.credentials()?),
            connector,
            port,
            secret: format!("/{:032x}", u128::from_be_bytes(random)),
            time_limit: TIME_LIMIT,
        })
    }

    /// Returns the address of the page on this machine.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}{}/", self.port, self.secret)
    }

    async fn forward(&self, request: Request) -> Result<Response, Problem> {
        let (request, body) = request.into_parts();
        let path = self.permit(&request)?;
        let body = to_bytes(body, BODY_LIMIT).await.map_err(|_| Problem::Body)?;
        let credentials = self.login.credentials().await.map_err(|reason| {
            output::progress(format_args!("login-etl: {reason}"));
            Problem::NoCredentials
        })?;
        let request = self.sign(&request, path, &body, credentials)?;
        let answer = self.connector.call(request).await.map_err(|error| {
            output::progress(format_args!(
                "login-etl: no answer from the analysts' API: {}",
                aws::causes(&error)
            ));
            Problem::Unreachable
        })?;
        let (answer, body) = answer.try_into_http1x().map_err(|_| Problem::Answer)?.into_parts();
        let body = to_bytes(Body::new(body), ANSWER_LIMIT).await.map_err(|_| Problem::Answer)?;
        if answer.status == StatusCode::FORBIDDEN && !is_of_the_api(&answer.headers) {
            self.login.forget().await;
            return Err(self.denied(&body));
        }
        pass_back(answer.status, &answer.headers, body)
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

    fn sign(
        &self,
        request: &Parts,
        path: &str,
        body: &Bytes,
        credentials: Credentials,
    ) -> Result<HttpRequest, Problem> {
        let address = self.site.address(path, request.uri.query());
        let value = |name| request.headers.get(name).and_then(|value| value.to_str().ok());
        let headers = REQUEST_HEADERS.iter().filter_map(|name| Some((name.as_str(), value(name)?)));
        let method = request.method.as_str();
        let signable = SignableRequest::new(method, &*address, headers.clone(), SignableBody::Bytes(body))?;
        let identity = credentials.into();
        let params = SigningParams::builder()
            .identity(&identity)
            .region(&self.region)
            .name(self.site.service)
            .time(SystemTime::now())
            .settings(SigningSettings::default())
            .build()
            .unwrap_or_else(|_| unreachable!("all required parameters are set"));
        let (signature, _) = sign(signable, &params.into())?.into_parts();

        let mut signed = HttpRequest::new(body.clone().into());
        signed.set_method(method).map_err(|_| Problem::Unsignable)?;
        signed.set_uri(&*address).map_err(|_| Problem::Unsignable)?;
        for (name, value) in headers.chain(signature.headers()) {
            signed.headers_mut().insert(name.to_owned(), value.to_owned());
        }
        Ok(signed)
    }

    /// Explains why AWS refused a request. AWS's own text is not shown: it may quote the request.
    fn denied(&self, body: &[u8]) -> Problem {
        let text = String::from_utf8_lossy(body);
        if text.contains("security token") && text.contains("expired") {
            output::progress("login-etl: the AWS credentials have expired; log in again (aws sso login)");
            return Problem::NoCredentials;
        }
        Problem::Denied(self.site.permission.clone())
    }
}

/// By hand: the path is a secret.
impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy").field("site", &self.site).field("port", &self.port).finish_non_exhaustive()
    }
}

/// The library's error is dropped: it may quote the URL.
impl From<SigningError> for Problem {
    fn from(_: SigningError) -> Self {
        Self::Unsignable
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

/// Whether the API made this answer, and not AWS in front of it.
fn is_of_the_api(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    content_type.is_some_and(|content_type| content_type.starts_with("application/problem+json"))
}

#[cfg(test)]
mod tests {
    use aws_sdk_cloudformation::config::SharedCredentialsProvider;
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
        let credentials = Credentials::new("key", "secret", None, None, "test");
        let proxy = Proxy {
            site: format!("http://{}", silent.local_addr().unwrap()).parse().unwrap(),
            region: "eu-central-1".into(),
            login: Login::new(SharedCredentialsProvider::new(credentials)),
            connector: Connector::builder().tls_provider(Provider::Rustls(CryptoMode::AwsLc)).build(),
            port: 9000,
            secret: "/secret".into(),
            time_limit: Duration::from_millis(1),
        };
        let request = Request::get("/secret/").header(header::HOST, "127.0.0.1:9000");

        let answer = respond(State(Arc::new(proxy)), request.body(Body::empty()).unwrap()).await;

        assert_eq!(answer.status(), StatusCode::GATEWAY_TIMEOUT);
    }
}
