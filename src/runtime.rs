//! Serves the Lambda Runtime API. The event bypasses the runtime's JSON parser. After a batch that failed because the
//! salt changed, the process ends.
//!
//! The runtime would read the whole event as JSON and copy it before the handler reads it again: 17 % of
//! the processor time of a large batch. So a layer takes the event out of the invocation, and the runtime
//! reads `null`. The event reaches the handler as a task-local value, because no type of the runtime between
//! layer and handler can carry it.

use std::cell::Cell;
use std::mem;
use std::task::{Context, Poll};

use aws_lambda_events::sqs::SqsBatchResponse;
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::Map;
use lambda_runtime::tower::Layer;
use lambda_runtime::{Diagnostic, Error, LambdaEvent, LambdaInvocation, Runtime, Service, service_fn};
use serde::Serialize;
use tokio::task::futures::TaskLocalFuture;

use crate::error::BatchError;
use crate::fingerprint_event::{self, SaltFingerprints};
use crate::handler::Ingest;
use crate::store::error::StoreError;

tokio::task_local! {
    static INVOCATION: Invocation;
}

/// The current invocation.
struct Invocation {
    event: Bytes,
    /// Whether the batch failed because the salt changed.
    salt_changed: Cell<bool>,
}

/// The answer to an event.
#[derive(Serialize)]
#[serde(untagged)]
enum Answer {
    Batch(SqsBatchResponse),
    Salt(SaltFingerprints),
}

/// Ends the runtime. A process keeps the salt that it started with; only a new process fetches the salt again.
#[derive(Debug, thiserror::Error)]
#[error("the salt changed")]
struct SaltChanged;

/// Handles invocations until Lambda ends the process, or until a batch failed because the salt changed. Lambda then
/// starts a new process.
///
/// # Errors
///
/// The runtime's own errors: the Runtime API is out of reach, or refuses a response.
pub async fn serve(ingest: Ingest, salt_secret_id: &str) -> Result<(), Error> {
    let handle = async |event: LambdaEvent<()>| {
        let raw_event = INVOCATION.with(|invocation| invocation.event.clone());
        if fingerprint_event::matches(&raw_event) {
            let salt = fingerprint_event::answer(salt_secret_id, ingest.salt_fingerprint()).await?;
            return Ok(Answer::Salt(salt));
        }
        let answer = ingest.handle(&raw_event, &event.context).await;
        let salt_changed = matches!(answer, Err(BatchError::Store(StoreError::SaltChanged)));
        INVOCATION.with(|invocation| invocation.salt_changed.set(salt_changed));
        answer.map(Answer::Batch).map_err(Diagnostic::from)
    };
    // Boxed, because this future contains the futures of all stages: many kilobytes.
    match Box::pin(Runtime::new(service_fn(handle)).layer(RawEventLayer).run()).await {
        Err(error) if error.is::<SaltChanged>() => {
            tracing::warn!("the process ends; the next process fetches the salt again");
            Ok(())
        }
        outcome => outcome,
    }
}

/// Ends the runtime after the response was sent.
fn end_after_changed_salt(sent: Result<(), Error>) -> Result<(), Error> {
    sent?;
    if INVOCATION.with(|invocation| invocation.salt_changed.get()) {
        return Err(SaltChanged.into());
    }
    Ok(())
}

/// Wraps the runtime's service in a [`RawEventService`].
#[derive(Clone, Copy)]
struct RawEventLayer;

/// Keeps the event in [`INVOCATION`], and leaves `null` in its place.
struct RawEventService<S>(S);

impl<S> Layer<S> for RawEventLayer {
    type Service = RawEventService<S>;

    fn layer(&self, inner: S) -> RawEventService<S> {
        RawEventService(inner)
    }
}

impl<S: Service<LambdaInvocation, Response = (), Error = Error>> Service<LambdaInvocation>
    for RawEventService<S>
{
    type Response = ();
    type Error = Error;
    type Future = TaskLocalFuture<Invocation, Map<S::Future, fn(Result<(), Error>) -> Result<(), Error>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, mut invocation: LambdaInvocation) -> Self::Future {
        let event = mem::replace(&mut invocation.body, Bytes::from_static(b"null"));
        let response_sent = self.0.call(invocation).map(end_after_changed_salt as fn(_) -> _);
        INVOCATION.scope(Invocation { event, salt_changed: Cell::new(false) }, response_sent)
    }
}
