//! Logs a line for each request: the pattern of its route and the caller, never a path, a parameter or a body.

use std::time::Instant;

use axum::extract::{MatchedPath, Request};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::Response;
use lambda_http::Context;
use login_etl::telemetry::metrics::{Level, LogLine, MetricName, MetricValue};

use crate::caller::Caller;

/// The methods of HTTP. Any other word is the client's, and is not logged.
const METHODS: [Method; 9] = [
    Method::CONNECT,
    Method::DELETE,
    Method::GET,
    Method::HEAD,
    Method::OPTIONS,
    Method::PATCH,
    Method::POST,
    Method::PUT,
    Method::TRACE,
];

/// Answers the request and logs the line. In Lambda the line has metrics.
pub async fn log(request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = METHODS.iter().find(|method| *method == request.method());
    let method = method.map_or("other", Method::as_str);
    let (parts, body) = request.into_parts();
    let route = parts.extensions.get::<MatchedPath>().cloned();
    let context = parts.extensions.get::<Context>().cloned();

    let response = next.run(Request::from_parts(parts, body)).await;

    let route = route.as_ref().map(MatchedPath::as_str);
    let caller = response.extensions().get::<Caller>().map(|Caller(caller)| &**caller);
    let status = response.status();
    let elapsed = started.elapsed();
    let Some(context) = context else {
        let elapsed_ms = elapsed.as_secs_f64() * 1e3;
        tracing::info!(method, route, status = status.as_u16(), elapsed_ms, caller, "request");
        return response;
    };
    let mut texts = vec![("method", method), ("status", status.as_str())];
    texts.extend(route.map(|route| ("route", route)));
    texts.extend(caller.map(|caller| ("caller", caller)));
    let is_error = status.is_server_error();
    let line = LogLine {
        level: if is_error { Level::Error } else { Level::Info },
        message: "request",
        request_id: &context.request_id,
        function: &context.env_config.function_name,
        texts: &texts,
        metrics: &[
            (MetricName::ServerError, MetricValue::Count(is_error.into())),
            (MetricName::ElapsedMs, MetricValue::Time(elapsed)),
        ],
        second_dimension: None,
    };
    line.write();
    response
}
