//! Takes one batch through the stages.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use aws_lambda_events::sqs::SqsBatchResponse;
use lambda_runtime::{Context, Diagnostic};
use strum::VariantNames;

use crate::aws::secrets::Secrets;
use crate::config::{Settings, StartError};
use crate::deadline::Deadline;
use crate::report::{Failure, Failures, Reason, report};
use crate::store::{Spent, Store, StoreError};
use crate::telemetry::batch::Batch;
use crate::telemetry::trace::Tracer;
use login::decode::{Arrival, Scratch, arrival, decode};
use login::event::{self, EventError, SqsMessage};
use login::mask::{LoginRow, mask};
use login::pii::{Fingerprint, Masker};

/// How long a cold start waits for Postgres before it does without.
const WARM_UP: Duration = Duration::from_secs(4);

/// The ingest function.
#[derive(Debug)]
pub struct Ingest {
    masker: Masker,
    /// Of the masker's salt.
    salt: Fingerprint,
    store: Store,
    tracer: Option<Tracer>,
    /// What the start spent time on, for the first batch to tell.
    start: Spent,
    warm: AtomicBool,
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

impl BatchError {
    /// Every `errorType` that there is.
    pub fn error_types() -> impl Iterator<Item = &'static str> {
        EventError::VARIANTS.iter().chain(StoreError::VARIANTS).copied()
    }

    /// The `errorType` of the invocation, which is stable.
    #[must_use]
    pub fn error_type(&self) -> &'static str {
        match self {
            Self::Event(error) => error.error_type(),
            Self::Store(error) => error.error_type(),
        }
    }

    /// Whether it is the database that is in trouble.
    #[must_use]
    pub fn is_of_database(&self) -> bool {
        !matches!(self, Self::Event(_) | Self::Store(StoreError::SaltChanged | StoreError::Secret(_)))
    }

    /// What Postgres said, where it did.
    #[must_use]
    pub fn sqlstate(&self) -> Option<&str> {
        match self {
            Self::Event(_) => None,
            Self::Store(error) => error.sqlstate(),
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
        let started = Instant::now();
        let masker = async {
            let salt = secrets.salt(&settings.salt_secret_id).await?;
            Ok((Masker::new(&salt)?, started.elapsed()))
        };
        let warm_up = store.warm_up(Deadline::within(WARM_UP));
        let ((masker, salt_fetched), mut start) = tokio::try_join!(masker, warm_up)?;
        start.fetching = start.fetching.max(salt_fetched);
        let tracer = settings.xray_daemon.as_deref().and_then(Tracer::new);
        Ok(Self { tracer, start, ..Self::new(masker, store) })
    }

    /// Puts the parts together.
    #[must_use]
    pub fn new(masker: Masker, store: Store) -> Self {
        let start = Spent::default();
        Self { salt: masker.fingerprint(), masker, store, tracer: None, start, warm: AtomicBool::new(false) }
    }

    /// Sends traces too.
    #[must_use]
    pub fn traced(self, tracer: Tracer) -> Self {
        Self { tracer: Some(tracer), ..self }
    }

    /// Handles one invocation: writes what can be written of the batch, logs every failure, and
    /// answers with the ids of the messages that failed.
    ///
    /// # Errors
    ///
    /// [`BatchError`], upon which SQS delivers the whole batch again.
    pub async fn handle(&self, payload: &[u8], context: &Context) -> Result<SqsBatchResponse, BatchError> {
        let deadline = Deadline::before(context.deadline());
        let mut batch = Batch::begin(&context.request_id, &context.env_config.function_name, deadline.left());
        if let (Some(tracer), Some(header)) = (&self.tracer, &context.xray_trace_id) {
            batch.trace = tracer.follow(header);
        }
        if !self.warm.swap(true, Ordering::Relaxed) {
            batch.is_first(self.start);
        }
        match self.ingest(payload, deadline, &mut batch).await {
            Ok((response, written)) => {
                batch.done(written);
                Ok(response)
            }
            Err(error) => {
                batch.failed(&error);
                Err(error)
            }
        }
    }

    /// Takes the batch through the stages, and returns the answer and how many rows were written.
    async fn ingest(
        &self,
        payload: &[u8],
        deadline: Deadline,
        batch: &mut Batch<'_>,
    ) -> Result<(SqsBatchResponse, u64), BatchError> {
        let messages = event::read(payload)?;
        let mut failures = Failures::default();
        let arrivals = arrivals(&messages, &mut failures);
        batch.read(messages.len(), oldest(&messages, &arrivals));
        let rows = self.rows(&messages, arrivals, &mut failures);
        let written = self.store.write(rows, &self.salt, deadline, &mut batch.spent).await;
        batch.stored();
        let written = written?;
        for refused in written.refused {
            let reason = refused.sqlstate.map_or(Reason::HeldBack, Reason::RowRefused);
            let position = refused.position;
            failures.add(&messages[position], Failure { position, reason });
        }
        let failures = failures.into_list();
        for failure in &failures {
            batch.message_failed(&messages[failure.position], &failure.reason);
        }
        Ok((report(&messages, &failures), written.inserted))
    }

    /// Decodes and masks one message after the other, and adds those to the failures that cannot be.
    fn rows<'m>(
        &self,
        messages: &'m [SqsMessage<'m>],
        arrivals: Vec<Arrival>,
        failures: &mut Failures<'m>,
    ) -> impl Iterator<Item = LoginRow<'m>> {
        let mut scratch = Scratch::default();
        let mut masker = self.masker.clone();
        arrivals.into_iter().filter_map(move |arrival| {
            let position = arrival.position;
            let message = &messages[position];
            let reason = if failures.hold_back(message, position) {
                Reason::HeldBack
            } else {
                match decode(message, arrival, &mut scratch) {
                    Ok(login) => return Some(mask(login, &mut masker)),
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

/// When the oldest message was sent, of those that say when.
fn oldest(messages: &[SqsMessage<'_>], arrivals: &[Arrival]) -> Option<SystemTime> {
    let dated = arrivals.iter().filter(|arrival| messages[arrival.position].sent_timestamp.is_some());
    dated.map(|arrival| arrival.sent_at).min()
}

/// The beginning of this day in UTC.
fn today() -> SystemTime {
    const DAY: u64 = 24 * 60 * 60;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    SystemTime::UNIX_EPOCH + Duration::from_secs(now.as_secs() / DAY * DAY)
}
