//! Logs one line for each request: the pattern of its route and who sent it, and never a path, a parameter or a body.

use std::time::Instant;

use axum::extract::{MatchedPath, Request};
use axum::middleware::Next;
use axum::response::Response;
use lambda_http::Context;

use crate::caller;

/// Answers the request and logs the line. Alarms count the lines with a status from 500.
pub async fn log(request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = request.method().clone();
    let (parts, body) = request.into_parts();
    let route = parts.extensions.get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let request_id = parts.extensions.get::<Context>().map(|context| context.request_id.clone());
    let caller = caller::arn(&parts);

    let response = next.run(Request::from_parts(parts, body)).await;

    let status = response.status().as_u16();
    let elapsed_ms = started.elapsed().as_secs_f64() * 1e3;
    // Methods and headers are the client's words. A method that no route has may be any word.
    let method = if method.as_str().len() <= 8 { method.as_str() } else { "other" };
    macro_rules! line {
        ($level:ident) => {
            tracing::$level!(request_id, method, route, status, elapsed_ms, caller, "request")
        };
    }
    // An error passes each log level, so that alarms count it.
    if status < 500 {
        line!(info)
    } else {
        line!(error)
    }
    response
}
