//! Takes an invocation's payload past the runtime: it would read all of it as JSON, and copy it, before the
//! function does, which was a sixth of what a large batch took of the processor.

use std::mem;
use std::task::{Context, Poll};

use bytes::Bytes;
use lambda_runtime::tower::Layer;
use lambda_runtime::{LambdaInvocation, Service};
use tokio::task::futures::TaskLocalFuture;

tokio::task_local! {
    static PAYLOAD: Bytes;
}

/// The payload of the invocation that is being handled; empty outside of any.
#[must_use]
pub fn current() -> Bytes {
    PAYLOAD.try_with(Bytes::clone).unwrap_or_default()
}

/// Keeps the payload for [`current`], and hands the runtime `null` in its place.
#[derive(Clone, Copy, Debug)]
pub struct PayloadLayer;

/// What [`PayloadLayer`] makes of a service.
#[derive(Debug)]
pub struct PayloadService<S>(S);

impl<S> Layer<S> for PayloadLayer {
    type Service = PayloadService<S>;

    fn layer(&self, inner: S) -> PayloadService<S> {
        PayloadService(inner)
    }
}

impl<S: Service<LambdaInvocation>> Service<LambdaInvocation> for PayloadService<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = TaskLocalFuture<Bytes, S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, mut invocation: LambdaInvocation) -> Self::Future {
        let payload = mem::replace(&mut invocation.body, Bytes::from_static(b"null"));
        PAYLOAD.scope(payload, self.0.call(invocation))
    }
}
