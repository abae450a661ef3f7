//! Drives one batch through the stages.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};
use std::vec;

use aws_lambda_events::sqs::SqsBatchResponse;
use lambda_runtime::Context;
use login::decode::decode;
use login::event::{self, SqsMessage};
use login::failures::{FailureReason, Failures};
use login::mask::mask;
use login::message_key::MessageKey;
use login::pii::{Masker, SaltFingerprint};

use crate::aws::secrets::Secrets;
use crate::config::Settings;
use crate::deadline::Deadline;
use crate::error::{BatchError, StartError};
use crate::store::error::StoreError;
use crate::store::{ColdStartTimings, KeyedRow, MAX_ROWS_PER_STATEMENT, Store, Written};
use crate::telemetry::batch::BatchLog;
use crate::telemetry::trace::Tracer;

/// Time limit for connecting in a cold start. After it, the function starts without a connection.
const WARM_UP_TIMEOUT: Duration = Duration::from_secs(4);

/// The ingest function.
#[derive(Debug)]
pub struct Ingest {
    masker: Masker,
    salt_fingerprint: SaltFingerprint,
    store: Store,
    tracer: Option<Tracer>,
    /// Cold-start timings, reported with the first batch.
    cold_start: ColdStartTimings,
    had_batch: AtomicBool,
}

impl Ingest {
    /// Fetches the secrets and connects to Postgres, in parallel where possible.
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
            Ok::<_, StartError>((Masker::new(&salt)?, started.elapsed()))
        };
        let warm_up = async { Ok(store.warm_up(Deadline::within(WARM_UP_TIMEOUT)).await?) };
        let ((masker, salt_fetched), mut cold_start) = tokio::try_join!(masker, warm_up)?;
        cold_start.fetching_secrets = cold_start.fetching_secrets.max(salt_fetched);
        let tracer = settings.xray_daemon.as_deref().and_then(Tracer::new);
        Ok(Self { tracer, cold_start, ..Self::new(masker, store) })
    }

    /// Makes a function without traces.
    #[must_use]
    pub fn new(masker: Masker, store: Store) -> Self {
        Self {
            salt_fingerprint: masker.salt_fingerprint(),
            masker,
            store,
            tracer: None,
            cold_start: ColdStartTimings::default(),
            had_batch: AtomicBool::new(false),
        }
    }

    /// Sends traces, too.
    #[must_use]
    pub fn traced(self, tracer: Tracer) -> Self {
        Self { tracer: Some(tracer), ..self }
    }

    /// Handles one invocation: writes the good messages of the batch, logs every failure, and answers with
    /// the ids of the failed messages.
    ///
    /// # Errors
    ///
    /// [`BatchError`]: SQS delivers the whole batch again.
    pub async fn handle(&self, event: &[u8], context: &Context) -> Result<SqsBatchResponse, BatchError> {
        let deadline = Deadline::before(context.deadline());
        let mut log =
            BatchLog::begin(&context.request_id, &context.env_config.function_name, deadline.left());
        if let (Some(tracer), Some(header)) = (&self.tracer, &context.xray_trace_id) {
            log.trace = tracer.follow(header);
        }
        if !self.had_batch.swap(true, Ordering::Relaxed) {
            log.cold_start(self.cold_start);
        }
        match self.ingest(event, deadline, &mut log).await {
            Ok((response, inserted)) => {
                log.done(inserted);
                Ok(response)
            }
            Err(error) => {
                log.failed(&error);
                Err(error)
            }
        }
    }

    /// Takes the batch through the stages. Returns the answer and the number of rows inserted.
    async fn ingest(
        &self,
        event: &[u8],
        deadline: Deadline,
        log: &mut BatchLog<'_>,
    ) -> Result<(SqsBatchResponse, u64), BatchError> {
        let messages = event::read(event)?;
        let mut failures = Failures::new(&messages);
        let keys = message_keys(&messages, &mut failures);
        log.read(messages.len(), oldest(&messages, &keys));
        let written = self.write(&messages, keys, &mut failures, deadline, log).await;
        log.stored();
        let written = written?;
        for row in written.failed_rows {
            failures.add(row.position, row.reason);
        }
        for (message, reason) in failures.in_order() {
            log.message_failed(message, reason);
        }
        Ok((response(&mut failures), written.inserted))
    }

    /// Decodes and masks the messages, and hands their rows to the writer. Postgres writes the first rows
    /// of a large batch while the next rows are decoded.
    async fn write<'m>(
        &self,
        messages: &'m [SqsMessage<'m>],
        keys: Vec<MessageKey<'m>>,
        failures: &mut Failures<'m>,
        deadline: Deadline,
        log: &mut BatchLog<'_>,
    ) -> Result<Written, StoreError> {
        let mut keys = keys.into_iter();
        let mut masker = self.masker.clone();
        let mut writer = self.store.writer(&self.salt_fingerprint, deadline, &mut log.connecting);
        loop {
            let started = Instant::now();
            let rows = next_rows(messages, &mut keys, failures, &mut masker);
            log.decoding += started.elapsed();
            if keys.as_slice().is_empty() {
                return writer.finish(rows).await;
            }
            writer.send(rows).await;
        }
    }
}

/// Reads the messages' keys, and sorts them in the order in which the rows are written.
fn message_keys<'m>(messages: &'m [SqsMessage<'m>], failures: &mut Failures<'m>) -> Vec<MessageKey<'m>> {
    let today = today();
    let mut keys = Vec::with_capacity(messages.len());
    for (position, message) in messages.iter().enumerate() {
        match MessageKey::read(message, position, today) {
            Ok(key) => keys.push(key),
            Err(error) => failures.add(position, error),
        }
    }
    // On a FIFO queue the order of the batch is kept, so that a failed message is seen before the later
    // ones of its group. Two batches never hold messages of one group at the same time.
    if messages.iter().all(|message| message.group.is_none()) {
        keys.sort_unstable();
    }
    keys
}

/// Decodes and masks messages until the rows fill a statement or no key is left.
fn next_rows<'m>(
    messages: &'m [SqsMessage<'m>],
    keys: &mut vec::IntoIter<MessageKey<'m>>,
    failures: &mut Failures<'m>,
    masker: &mut Masker,
) -> Vec<KeyedRow<'m>> {
    let mut rows = Vec::with_capacity(keys.len().min(MAX_ROWS_PER_STATEMENT));
    while rows.len() < MAX_ROWS_PER_STATEMENT
        && let Some(key) = keys.next()
    {
        let position = key.position;
        if failures.is_held_back(position) {
            failures.add(position, FailureReason::HeldBack);
            continue;
        }
        match decode(&messages[position]) {
            Ok(login) => rows.push(KeyedRow { key, row: mask(login, masker) }),
            Err(error) => failures.add(position, error),
        }
    }
    rows
}

/// Makes the answer that has SQS redrive the failed messages.
fn response(failures: &mut Failures<'_>) -> SqsBatchResponse {
    let mut response = SqsBatchResponse::default();
    for message_id in failures.message_ids() {
        response.add_failure(message_id);
    }
    response
}

/// Returns when the oldest message was sent, among those that say when.
fn oldest(messages: &[SqsMessage<'_>], keys: &[MessageKey<'_>]) -> Option<SystemTime> {
    let dated = keys.iter().filter(|key| messages[key.position].has_sent_timestamp());
    dated.map(|key| key.sent_at).min()
}

/// Returns the beginning of the current day in UTC.
fn today() -> SystemTime {
    const DAY: u64 = 24 * 60 * 60;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    SystemTime::UNIX_EPOCH + Duration::from_secs(now.as_secs() / DAY * DAY)
}
