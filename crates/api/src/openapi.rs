//! The document of the API, generated from the code: OpenAPI 3.1.

use axum::Json;
use axum::response::{IntoResponse, Response};
use utoipa::openapi::OpenApi;
use utoipa::{IntoResponses, OpenApi as _};

use crate::problem::Problem;

/// The document, without the paths that the router adds.
#[derive(Debug, utoipa::OpenApi)]
#[openapi(info(
    title = "login-etl for analysts",
    description = "Read-only answers about masked logins. In AWS, API Gateway or Lambda checks the signature \
            (SigV4) of each request before the program receives it."
))]
struct Document;

/// The problems that each operation can have.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "only describes the responses")]
pub(crate) enum Problems {
    /// A parameter breaks a rule.
    #[response(status = 400, content_type = "application/problem+json")]
    BadRequest(Problem),
    /// The header Accept excludes all formats.
    #[response(status = 406, content_type = "application/problem+json")]
    NotAcceptable(Problem),
    /// The database is not available, the logins are not rolled up yet, or the answer took too long.
    #[response(status = 503, content_type = "application/problem+json")]
    Unavailable(Problem),
}

/// Returns the document without paths.
pub(crate) fn document() -> OpenApi {
    Document::openapi()
}

/// Answers with the document.
pub(crate) fn answer(document: &OpenApi) -> Response {
    Json(document).into_response()
}
