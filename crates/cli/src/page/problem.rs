//! The answers that the program gives itself.

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// A browser shows nothing but the text, and does not keep it.
pub(crate) const HEADERS: [(HeaderName, &str); 3] = [
    (header::CACHE_CONTROL, "no-store"),
    (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
];

/// Why a request is not forwarded, or its answer not passed back.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Problem {
    #[error("Open the page with the address that login-etl printed.")]
    ForeignHost,
    #[error("This is not the address of the page. Copy the whole address that login-etl printed.")]
    UnknownPath,
    #[error("Only GET, HEAD and POST are permitted.")]
    Method,
    #[error("The form was not sent by the page.")]
    ForeignOrigin,
    #[error("The request is larger than 4096 bytes, or incomplete.")]
    Body,
    #[error("The request cannot be signed.")]
    Unsignable,
    #[error(
        "There are no AWS credentials that can be used, or they have expired. Log in again (aws sso login), then \
         reload the page. The terminal of login-etl shows the reason."
    )]
    NoCredentials,
    #[error(
        "AWS refused the request. Your AWS identity needs the permission {0}. If it has this permission, verify that \
         the clock of this machine is right."
    )]
    Denied(String),
    #[error("The analysts' API cannot be reached. The terminal of login-etl shows the reason.")]
    Unreachable,
    #[error("The analysts' API did not answer in time.")]
    Timeout,
    #[error(
        "The analysts' API gave an answer that cannot be passed on: cut off, larger than 6 MiB, or a redirect to another place."
    )]
    Answer,
}

impl Problem {
    fn status(&self) -> StatusCode {
        match self {
            Self::Unsignable => StatusCode::BAD_REQUEST,
            Self::ForeignHost | Self::ForeignOrigin | Self::Denied(_) => StatusCode::FORBIDDEN,
            Self::UnknownPath => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Body => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Unreachable | Self::Answer => StatusCode::BAD_GATEWAY,
            Self::NoCredentials => StatusCode::SERVICE_UNAVAILABLE,
            Self::Timeout => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// Makes the answer: text for a browser, otherwise a [problem document].
    ///
    /// [problem document]: https://www.rfc-editor.org/rfc/rfc9457
    pub(crate) fn respond(&self, for_browser: bool) -> Response {
        let (status, detail) = (self.status(), self.to_string());
        let mut response = if for_browser {
            (status, HEADERS, detail).into_response()
        } else {
            let problem =
                json!({ "title": status.canonical_reason(), "status": status.as_u16(), "detail": detail });
            let content_type = [(header::CONTENT_TYPE, "application/problem+json")];
            (status, HEADERS, content_type, problem.to_string()).into_response()
        };
        if matches!(self, Self::Method) {
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD, POST"));
        }
        response
    }
}

/// Whether the sender of a request shows the answer to a person.
pub(crate) fn is_browser(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    accept.is_some_and(|accept| accept.contains("text/html"))
}
