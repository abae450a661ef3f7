//! An API of the stack, whose requests are signed with the caller's AWS credentials.

use std::time::{Duration, SystemTime};

use aws_sdk_cloudformation::config::{Credentials, SharedCredentialsProvider};
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningError, SigningSettings, sign};
use aws_sigv4::sign::v4::SigningParams;
use aws_smithy_http_client::Connector;
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_runtime_api::client::http::HttpConnector;
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use axum::body::{Body, Bytes, to_bytes};
use axum::http::{HeaderMap, StatusCode, header};

use crate::aws::{self, Aws};
use crate::error::Error;
use crate::stack::{Stack, StackOptions};

use self::login::Login;

pub(crate) use self::site::Site;

mod login;
mod site;

/// Time limit of a request: API Gateway [answers within 30 s][quota].
///
/// [quota]: https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-quotas.html
pub(crate) const TIME_LIMIT: Duration = Duration::from_secs(35);
/// Bytes of an answer: the most that [a function can return][quota].
///
/// [quota]: https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
const ANSWER_LIMIT: usize = 6 * 1024 * 1024;

/// An API, and the caller's credentials.
#[derive(Debug)]
pub(crate) struct SignedApi {
    site: Site,
    region: String,
    login: Login,
    connector: Connector,
}

/// A request, without its signature. Not to be printed: the body may hold a personal value.
pub(crate) struct UnsignedRequest<'r> {
    pub method: &'r str,
    pub path: &'r str,
    pub query: Option<&'r str>,
    pub headers: &'r [(&'r str, &'r str)],
    pub body: Bytes,
}

/// An answer of the API.
pub(crate) struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// Why there is no answer of the API. No text quotes the request.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoAnswer {
    #[error("{0}")]
    NoCredentials(String),
    /// AWS refused the caller, who lacks this permission.
    #[error(
        "AWS refused the request. Your AWS identity needs the permission {0}. If it has this permission, verify that \
         the clock of this machine is right."
    )]
    Denied(String),
    #[error("The request cannot be signed.")]
    Unsignable,
    /// The causes.
    #[error("{0}")]
    Unreachable(String),
    #[error("The answer is cut off, or larger than 6 MiB.")]
    Unreadable,
}

impl SignedApi {
    /// Finds the API at this address, or else at the address that an output of the stack has. `absent` says what a
    /// stack without this output lacks.
    ///
    /// # Errors
    ///
    /// As [`Stack::find`], and if the stack has no such output, or nothing has credentials.
    pub(crate) async fn find(
        options: &StackOptions,
        url: Option<Site>,
        output: &str,
        absent: &str,
    ) -> Result<Self, Error> {
        if let Some(site) = url {
            let aws = Aws::connect(options.region.clone()).await?;
            return Ok(Self::new(site, aws.region(), aws.credentials()?));
        }
        let stack = Stack::find(options).await?;
        let url = stack.optional_output(output);
        let url = url.ok_or_else(|| Error::Failed(format!("the stack {} has {absent}", stack.name)))?;
        let site = url.parse().map_err(|problem| Error::Failed(format!("the output {output}: {problem}")))?;
        Ok(Self::new(site, stack.aws.region(), stack.aws.credentials()?))
    }

    /// Signs for this region, unless the address has another.
    pub(crate) fn new(site: Site, region: &str, provider: SharedCredentialsProvider) -> Self {
        let connector = Connector::builder()
            // As for the other calls of this program.
            .proxy_config(ProxyConfig::from_env())
            // A connection that was open while the machine slept would not answer.
            .pool_idle_timeout(Some(Duration::from_secs(5)))
            .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
            .build();
        let region = site.region.clone().unwrap_or_else(|| region.to_owned());
        Self { site, region, login: Login::new(provider), connector }
    }

    /// Signs a request and sends it.
    ///
    /// # Errors
    ///
    /// [`NoAnswer`]: also if AWS answered in front of the API, because it refused the caller.
    pub(crate) async fn send(&self, request: UnsignedRequest<'_>) -> Result<Answer, NoAnswer> {
        let credentials = self.login.credentials().await.map_err(NoAnswer::NoCredentials)?;
        let request = self.sign(request, credentials)?;
        let answer = self.connector.call(request).await;
        let answer = answer.map_err(|error| NoAnswer::Unreachable(aws::causes(&error)))?;
        let answer = answer.try_into_http1x().map_err(|_| NoAnswer::Unreadable)?;
        let (answer, body) = answer.into_parts();
        let body = to_bytes(Body::new(body), ANSWER_LIMIT).await.map_err(|_| NoAnswer::Unreadable)?;
        if answer.status == StatusCode::FORBIDDEN && !is_of_the_api(&answer.headers) {
            self.login.forget().await;
            return Err(self.denied(&body));
        }
        Ok(Answer { status: answer.status, headers: answer.headers, body })
    }

    fn sign(&self, request: UnsignedRequest<'_>, credentials: Credentials) -> Result<HttpRequest, NoAnswer> {
        let UnsignedRequest { method, path, query, headers, body } = request;
        let address = self.site.address(path, query);
        let headers = headers.iter().copied();
        let signable = SignableRequest::new(method, &*address, headers.clone(), SignableBody::Bytes(&body))?;
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
        signed.set_method(method).map_err(|_| NoAnswer::Unsignable)?;
        signed.set_uri(&*address).map_err(|_| NoAnswer::Unsignable)?;
        for (name, value) in headers.chain(signature.headers()) {
            signed.headers_mut().insert(name.to_owned(), value.to_owned());
        }
        Ok(signed)
    }

    /// Explains why AWS refused a request. AWS's own text is not shown: it may quote the request.
    fn denied(&self, body: &[u8]) -> NoAnswer {
        let text = String::from_utf8_lossy(body);
        if text.contains("security token") && text.contains("expired") {
            let reason = "the AWS credentials have expired; log in again (aws sso login)";
            return NoAnswer::NoCredentials(reason.to_owned());
        }
        NoAnswer::Denied(self.site.permission.clone())
    }
}

/// The library's error is dropped: it may quote the URL.
impl From<SigningError> for NoAnswer {
    fn from(_: SigningError) -> Self {
        Self::Unsignable
    }
}

/// Whether the API made this answer, and not AWS in front of it.
fn is_of_the_api(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    content_type.is_some_and(|content_type| content_type.starts_with("application/problem+json"))
}
