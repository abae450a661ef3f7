//! Who sent a request.

use axum::http::request::Parts;
use lambda_http::request::RequestContext;

/// Returns the ARN of the caller, as AWS verified it. `None` behind the plain server.
#[must_use]
pub fn arn(parts: &Parts) -> Option<String> {
    match parts.extensions.get::<RequestContext>()? {
        RequestContext::ApiGatewayV2(context) => context.authorizer.as_ref()?.iam.as_ref()?.user_arn.clone(),
        _ => None,
    }
}
