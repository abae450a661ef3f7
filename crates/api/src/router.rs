//! The routes, and the headers of all answers.

use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware;
use axum::routing::get;
use tower_http::set_header::SetResponseHeaderLayer;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::authenticator::{self, Authenticator};
use crate::database::Database;
use crate::problem::Problem;
use crate::{handlers, openapi, page, request_log};

/// The headers of each answer that has no other value for them.
const HEADERS: [(HeaderName, &str); 4] = [
    (header::CACHE_CONTROL, "private, no-cache"),
    (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
    (header::VARY, "Accept"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
];

/// Makes the router of the API.
pub fn router(database: Database, authenticator: Authenticator) -> Router {
    let (router, mut document) = OpenApiRouter::with_openapi(openapi::document())
        .routes(routes!(handlers::freshness))
        .routes(routes!(handlers::duplicates))
        .routes(routes!(handlers::rings))
        .routes(routes!(handlers::ring))
        .routes(routes!(handlers::ring_devices))
        .routes(routes!(handlers::ring_members))
        .routes(routes!(handlers::token))
        .routes(routes!(handlers::token_daily))
        .routes(routes!(handlers::token_users))
        .routes(routes!(handlers::token_logins))
        .routes(routes!(handlers::neighbours))
        .routes(routes!(handlers::daily))
        .routes(routes!(handlers::user_tokens))
        .routes(routes!(handlers::user_logins))
        .split_for_parts();
    openapi::link(&mut document);
    let document = Arc::new(document);
    let router = router
        .route("/openapi.json", get(async move || openapi::answer(&document)))
        .merge(page::router(&database))
        .fallback(async || Problem::not_found("the paths are in /openapi.json"))
        .method_not_allowed_fallback(async || Problem::method_not_allowed())
        .with_state(database)
        .layer(middleware::from_fn_with_state(authenticator, authenticator::require))
        .layer(middleware::from_fn(page::finish))
        .layer(middleware::from_fn(request_log::log));
    HEADERS.into_iter().fold(router, |router, (name, value)| {
        let value = HeaderValue::from_static(value);
        router.layer(SetResponseHeaderLayer::if_not_present(name, value))
    })
}
