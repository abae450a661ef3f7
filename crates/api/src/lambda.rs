//! Serves Lambda's events.

use axum::Router;
use axum::http::header;
use lambda_http::lambda_runtime::{LambdaEvent, run};
use lambda_http::request::LambdaRequest;
use lambda_http::{Adapter, Error, Service, service_fn};

/// Serves until Lambda ends the process.
///
/// # Errors
///
/// The runtime's own errors: the Runtime API is out of reach, or refuses a response.
pub async fn serve(router: Router) -> Result<(), Error> {
    let handle = |event: LambdaEvent<LambdaRequest>| {
        let LambdaEvent { payload, context } = event;
        Adapter::from(router.clone()).call(LambdaEvent::new(without_host(payload), context))
    };
    Box::pin(run(service_fn(handle))).await
}

/// Removes the header `Host` from a request of a load balancer. The client chooses this header, and `lambda_http` panics
/// if the header is not a host.
#[must_use]
pub fn without_host(mut request: LambdaRequest) -> LambdaRequest {
    if let LambdaRequest::Alb(request) = &mut request {
        request.headers.remove(header::HOST);
    }
    request
}
