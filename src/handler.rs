//! Takes one batch through the stages.

use std::time::{Duration, Instant, SystemTime};

use aws_lambda_events::sqs::SqsBatchResponse;
use lambda_runtime::{Diagnostic, LambdaEvent};
use serde_json::value::RawValue;
use tracing::{error, info, warn};

use crate::config::{Settings, StartError};
use crate::deadline::Deadline;
use crate::decode::{Arrival, arrival, decode};
use crate::event::{self, EventError, SqsMessage};
use crate::mask::{LoginRow, mask};
use crate::pii::{Fingerprint, Masker};
use crate::report::{Failure, Failures, Reason, report};
use crate::secrets::Secrets;
use crate::store::{Store, StoreError};

/// How long a cold start waits for Postgres before it does without.
const WARM_UP: Duration = Duration::from_secs(4);

/// The ingest function.
#[derive(Debug)]
pub struct Ingest {
    masker: Masker,
    /// Of the masker's salt.
    salt: Fingerprint,
    store: Store,
}

/// Why a whole batch failed: nothing of it was committed, or it is safe to repeat.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// The payload cannot be read.
    #[error(transparent)]
    Event(#[from] EventError),
    /// The rows could not be written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What a batch came to, for the log.
struct Outcome {
    response: SqsBatchResponse,
    messages: usize,
    written: u64,
    failed: usize,
}

impl BatchError {
    /// The `errorType` of the invocation, which is stable.
    #[must_use]
    pub fn error_type(&self) -> &'static str {
        match self {
            Self::Event(error) => error.error_type(),
            Self::Store(error) => error.error_type(),
        }
    }
}

impl From<BatchError> for Diagnostic {
    fn from(error: BatchError) -> Self {
        Self { error_type: error.error_type().to_owned(), error_message: error.to_string() }
    }
}

impl Ingest {
    /// Fetches the secrets and connects to Postgres, at the same time where they can be.
    ///
    /// # Errors
    ///
    /// [`StartError`], which names the setting that is missing or wrong.
    pub async fn start(settings: Settings) -> Result<Self, StartError> {
        let secrets = Secrets::from_env().await;
        let store = Store::new(settings.database, secrets.clone())?;
        let masker = async {
            let salt = secrets.salt(&settings.salt_secret_id).await?;
            Ok(Masker::new(&salt)?)
        };
        let (masker, ()) = tokio::try_join!(masker, store.warm_up(Deadline::within(WARM_UP)))?;
        Ok(Self::new(masker, store))
    }

    /// Puts the parts together.
    #[must_use]
    pub fn new(masker: Masker, store: Store) -> Self {
        Self { salt: masker.fingerprint(), masker, store }
    }

    /// Handles one invocation: writes what can be written of the batch, logs every failure, and
    /// answers with the ids of the messages that failed.
    ///
    /// # Errors
    ///
    /// [`BatchError`], upon which SQS delivers the whole batch again.
    pub async fn handle(&self, event: LambdaEvent<Box<RawValue>>) -> Result<SqsBatchResponse, BatchError> {
        let started = Instant::now();
        let request_id = &*event.context.request_id;
        let deadline = Deadline::before(event.context.deadline());
        let outcome = self.ingest(event.payload.get(), request_id, deadline).await;
        let elapsed_ms = started.elapsed().as_secs_f64() * 1e3;
        match outcome {
            Ok(Outcome { response, messages, written, failed }) => {
                info!(request_id, messages, written, failed, elapsed_ms, "batch done");
                Ok(response)
            }
            Err(error) => {
                error!(request_id, error_type = error.error_type(), error = %error, elapsed_ms, "batch failed");
                Err(error)
            }
        }
    }

    async fn ingest(
        &self,
        payload: &str,
        request_id: &str,
        deadline: Deadline,
    ) -> Result<Outcome, BatchError> {
        let messages = event::read(payload)?;
        let mut failures = Failures::default();
        let arrivals = arrivals(&messages, &mut failures);
        let rows = self.rows(&messages, arrivals, &mut failures);
        let written = self.store.write(rows, &self.salt, deadline).await?;
        for refused in written.refused {
            let reason = refused.sqlstate.map_or(Reason::HeldBack, Reason::RowRefused);
            let position = refused.position;
            failures.add(&messages[position], Failure { position, reason });
        }
        let failures = failures.into_list();
        for Failure { position, reason } in &failures {
            let message_id = &*messages[*position].id;
            warn!(request_id, message_id, reason = reason.code(), error = %reason, "message failed");
        }
        Ok(Outcome {
            response: report(&messages, &failures),
            messages: messages.len(),
            written: written.inserted,
            failed: failures.len(),
        })
    }

    /// Decodes and masks one message after the other, and adds those to the failures that cannot be.
    fn rows<'m>(
        &self,
        messages: &'m [SqsMessage<'_>],
        arrivals: Vec<Arrival>,
        failures: &mut Failures<'m>,
    ) -> impl Iterator<Item = LoginRow> {
        arrivals.into_iter().filter_map(|arrival| {
            let position = arrival.position;
            let message = &messages[position];
            let reason = if failures.hold_back(message, position) {
                Reason::HeldBack
            } else {
                match decode(message, arrival) {
                    Ok(login) => return Some(mask(login, &self.masker)),
                    Err(error) => error.into(),
                }
            };
            failures.add(message, Failure { position, reason });
            None
        })
    }
}

/// What identifies the messages, in the order in which they are written.
fn arrivals<'m>(messages: &'m [SqsMessage<'_>], failures: &mut Failures<'m>) -> Vec<Arrival> {
    let today = today();
    let mut arrivals = Vec::with_capacity(messages.len());
    for (position, message) in messages.iter().enumerate() {
        match arrival(message, position, today) {
            Ok(arrival) => arrivals.push(arrival),
            Err(error) => failures.add(message, Failure { position, reason: error.into() }),
        }
    }
    // A FIFO queue's messages stay in their order, so that one that fails is seen before the later
    // ones of its group. No two batches hold messages of one group at the same time.
    if messages.iter().all(|message| message.group.is_none()) {
        arrivals.sort_unstable();
    }
    arrivals
}

/// The beginning of this day in UTC.
fn today() -> SystemTime {
    const DAY: u64 = 24 * 60 * 60;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    SystemTime::UNIX_EPOCH + Duration::from_secs(now.as_secs() / DAY * DAY)
}
