//! The headers of all answers of the page, and errors as HTML.

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;

use super::views::{self, Frame};
use crate::problem::Problem;

/// `Referrer-Policy` is not `no-referrer`: a browser would then send its forms with `Origin: null`, which a proxy that
/// checks the origin refuses.
const HEADERS: [(HeaderName, &str); 5] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; \
         frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "same-origin"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// Deeper paths are mistakes. Without a limit, their error pages would be large.
const MAX_DEPTH: usize = 16;

/// Adds the headers, and writes a problem as HTML, unless the path belongs to the API.
pub(crate) async fn finish(request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let is_head = request.method() == Method::HEAD;
    let mut response = next.run(request).await;
    if path.starts_with("/v1/") || path == "/openapi.json" {
        return response;
    }
    if let Some(problem) = response.extensions_mut().remove::<Problem>()
        // `login-etl page` takes a 403 that is not a problem document for AWS's.
        && problem.status != StatusCode::FORBIDDEN
    {
        let html = views::Error {
            frame: Frame { title: problem.title.to_owned(), root: root(&path), freshness: None },
            explanation: sentence(&problem.detail),
        };
        let body = if is_head { Body::empty() } else { Body::from(views::html(&html)) };
        *response.body_mut() = body;
        response.headers_mut().remove(header::CONTENT_LENGTH);
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    }
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// The relative path from `path` to `/`. A prefix, which a proxy or a stage may add, does not change it.
pub(super) fn root(path: &str) -> String {
    match path.matches('/').count().saturating_sub(1) {
        0 => "./".to_owned(),
        depth => "../".repeat(depth.min(MAX_DEPTH)),
    }
}

fn sentence(detail: &str) -> String {
    let mut characters = detail.chars();
    let first = characters.next().map(|first| first.to_uppercase().to_string());
    first.unwrap_or_default() + characters.as_str() + "."
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_relative_to_the_path() {
        let paths = ["/", "/rings", "/rings/abc", "/a/b/c", "//"];

        let roots = paths.map(root);

        assert_eq!(roots, ["./", "./", "../", "../../", "../"]);
    }
}
