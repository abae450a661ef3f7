//! Errors as problem documents (RFC 9457). They name the parameter and the rule, and never repeat a value.

use std::borrow::Cow;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::caller::Refusal;
use crate::database::DatabaseError;
use crate::freshness::NotReady;

/// The media type of a problem document.
pub const MEDIA_TYPE: &str = "application/problem+json";

/// How long a client should wait before it tries again, in seconds.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("5");

/// A problem document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Problem {
    /// Identifies the kind of problem.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The kind of problem in words.
    pub title: &'static str,
    /// The HTTP status.
    #[serde(serialize_with = "as_number")]
    #[schema(value_type = u16, minimum = 400, maximum = 599)]
    pub status: StatusCode,
    /// What to change.
    #[schema(value_type = String)]
    pub detail: Cow<'static, str>,
}

impl Problem {
    /// A parameter, or the body, breaks a rule.
    #[must_use]
    pub fn bad_request(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "urn:login-etl:bad-request", "The request breaks a rule", detail)
    }

    /// The request does not prove who sent it.
    #[must_use]
    pub fn unauthenticated() -> Self {
        let detail = "AWS has not verified who sent the request";
        let status = StatusCode::UNAUTHORIZED;
        Self::new(status, "urn:login-etl:unauthenticated", "The caller is not known", detail)
    }

    /// Nothing is at this path.
    #[must_use]
    pub fn not_found(detail: &'static str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "urn:login-etl:not-found", "Not found", detail)
    }

    /// The path has other methods.
    #[must_use]
    pub fn method_not_allowed() -> Self {
        let detail = "the header Allow lists the methods of this path";
        let status = StatusCode::METHOD_NOT_ALLOWED;
        Self::new(status, "urn:login-etl:method-not-allowed", "Method not allowed", detail)
    }

    /// The client accepts none of the formats.
    #[must_use]
    pub fn not_acceptable() -> Self {
        let detail =
            "the answer has the formats that /openapi.json lists, and the header Accept excludes them";
        let status = StatusCode::NOT_ACCEPTABLE;
        Self::new(status, "urn:login-etl:not-acceptable", "No acceptable format", detail)
    }

    /// The body is too large.
    #[must_use]
    pub fn too_large() -> Self {
        let detail = "a body has at most 4,096 bytes";
        let status = StatusCode::PAYLOAD_TOO_LARGE;
        Self::new(status, "urn:login-etl:too-large", "The body is too large", detail)
    }

    /// The client sent the body too slowly.
    #[must_use]
    pub fn too_slow_body() -> Self {
        let status = StatusCode::REQUEST_TIMEOUT;
        Self::new(
            status,
            "urn:login-etl:request-timeout",
            "The body came too slowly",
            "send the request again",
        )
    }

    /// The body is not JSON by its header.
    #[must_use]
    pub fn unsupported_media_type() -> Self {
        let detail = "send JSON, with Content-Type: application/json";
        let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        Self::new(status, "urn:login-etl:unsupported-media-type", "The body is not JSON", detail)
    }

    fn unavailable(kind: &'static str, title: &'static str, detail: &'static str) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, kind, title, detail)
    }

    fn new(
        status: StatusCode,
        kind: &'static str,
        title: &'static str,
        detail: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { kind, title, status, detail: detail.into() }
    }
}

impl From<NotReady> for Problem {
    fn from(error: NotReady) -> Self {
        DatabaseError::from(error).into()
    }
}

/// Logs the error, unless it is expected.
impl From<DatabaseError> for Problem {
    fn from(error: DatabaseError) -> Self {
        match error {
            DatabaseError::TooSlow => Self::unavailable(
                "urn:login-etl:too-slow",
                "The database took too long",
                "narrow the range of days, or try again later",
            ),
            DatabaseError::NotReady(NotReady::NotRolledUp) => Self::unavailable(
                "urn:login-etl:not-rolled-up",
                "The logins are not rolled up yet",
                "the program migrate rolls them up every hour if it has the setting ANALYSTS",
            ),
            DatabaseError::NotReady(NotReady::OtherVersion) => Self::unavailable(
                "urn:login-etl:other-version",
                "The rollups have another version",
                "deploy the same release of migrate and of this program",
            ),
            DatabaseError::Unavailable(error) => {
                let (error_type, sqlstate) = (error.error_type(), error.sqlstate());
                tracing::error!(error_type, sqlstate, error = %error, "the database is not available");
                Self::unavailable(
                    "urn:login-etl:database-unavailable",
                    "The database is not available",
                    "try again later",
                )
            }
            DatabaseError::Refused(sqlstate) => {
                tracing::error!(sqlstate = sqlstate.code(), "Postgres refused the statement");
                let status = StatusCode::INTERNAL_SERVER_ERROR;
                let detail = "the log of the program has the reason";
                Self::new(status, "urn:login-etl:bug", "The program has a bug", detail)
            }
        }
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Unverified(_) => Self::unauthenticated(),
            Refusal::NoKey => Self::unavailable(
                "urn:login-etl:key-unavailable",
                "The caller cannot be verified",
                "the public key of the load balancer cannot be fetched; try again later",
            ),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.status;
        let mut response = (status, [(header::CONTENT_TYPE, MEDIA_TYPE)], Json(&self)).into_response();
        // The page writes it as HTML.
        response.extensions_mut().insert(self);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, RETRY_AFTER);
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("AWS4-HMAC-SHA256"));
        }
        response
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn as_number<S: serde::Serializer>(status: &StatusCode, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u16(status.as_u16())
}
