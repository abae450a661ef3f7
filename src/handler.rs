//! Drives one batch through the stages.

use std::collections::HashSet;
use std::mem;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use std::vec;

use aws_lambda_events::sqs::SqsBatchResponse;
use lambda_runtime::Context;
use login::decode::decode;
use login::envelope::ExpectedEnvelopes;
use login::event::{self, SqsMessage};
use login::failures::{FailureReason, Failures, hopeless};
use login::mask::mask;
use login::message_key::MessageKey;
use login::pii::sealer::{NotSealed, Sealer};
use login::pii::{Masker, SaltFingerprint};

use crate::aws::login_queue::LoginQueue;
use crate::aws::secrets::Secrets;
use crate::config::{Settings, VaultPublicKey};
use crate::deadline::Deadline;
use crate::error::{BatchError, StartError};
use crate::store::error::StoreError;
use crate::store::tls::PendingTls;
use crate::store::{ColdStartTimings, Fingerprints, KeyedRow, MAX_ROWS_PER_STATEMENT, Rows, Store, Written};
use crate::telemetry::batch::BatchLog;
use crate::telemetry::trace::Tracer;

/// Time limit for connecting in a cold start. After it, the function starts without a connection.
const WARM_UP_TIMEOUT: Duration = Duration::from_secs(4);

/// The ingest function.
#[derive(Debug)]
pub struct Ingest {
    /// Those of the salts that the secret holds, the first salt first.
    generations: Vec<Generation>,
    /// The place of the generation with which the last batch was written; at first the last.
    generation: AtomicUsize,
    /// Seals the values; `None` without a vault.
    vault: Option<Vault>,
    expected_envelopes: ExpectedEnvelopes,
    store: Store,
    /// Shortens the visibility timeout of hopeless messages; `None` where no setting names the queue.
    login_queue: Option<LoginQueue>,
    tracer: Option<Tracer>,
    /// Cold-start timings, reported with the first batch.
    cold_start: ColdStartTimings,
    had_batch: AtomicBool,
}

/// What masks with a salt and the salts before it, and how the database recognises this.
#[derive(Debug)]
struct Generation {
    masker: Masker,
    fingerprints: Fingerprints,
}

/// The vault, as the ingest function has it.
#[derive(Debug)]
pub struct Vault {
    public_key: VaultPublicKey,
    /// The sealer between two batches. A batch takes it; without one, the batch starts another.
    sealer: Mutex<Option<Sealer>>,
}

impl Ingest {
    /// Fetches the salt while it fetches the credentials and connects to Postgres.
    ///
    /// # Errors
    ///
    /// [`StartError`], which names the setting that is missing or wrong.
    pub async fn start(settings: Settings) -> Result<Self, StartError> {
        // First, because the SDK takes milliseconds to read the certificates that it trusts.
        let tls = PendingTls::start(&settings.database)?;
        let secrets = Secrets::from_env().await;
        let login_queue =
            settings.queue_url.map(|url| LoginQueue::new(secrets.sdk_config(), url)).transpose()?;
        let store = Store::new(settings.database, tls, secrets.clone());
        let started = Instant::now();
        let maskers = async {
            let salts = secrets.salts(&settings.salt_secret_id).await?;
            Ok::<_, StartError>((salts.maskers()?, started.elapsed()))
        };
        let warm_up = async { Ok(store.warm_up(Deadline::within(WARM_UP_TIMEOUT)).await?) };
        // Starts the sealer while the salt and the connection wait for the network.
        let vault = async { Ok(settings.vault_public_key.map(Vault::new).transpose()?) };
        let ((maskers, salt_fetched), mut cold_start, vault) = tokio::try_join!(maskers, warm_up, vault)?;
        // The two fetches run in parallel, so the longer time counts.
        cold_start.fetching_secrets = cold_start.fetching_secrets.max(salt_fetched);
        let tracer = settings.xray_daemon.as_deref().and_then(Tracer::new);
        let expected_envelopes = settings.expected_envelopes;
        let ingest = Self {
            expected_envelopes,
            login_queue,
            tracer,
            cold_start,
            ..Self::with_generations(maskers, store)
        };
        Ok(if let Some(vault) = vault { ingest.with_vault(vault) } else { ingest })
    }

    /// Makes the function from its parts, without a queue, a tracer and a vault. It unwraps every envelope.
    #[must_use]
    pub fn new(masker: Masker, store: Store) -> Self {
        Self::with_generations(vec![masker], store)
    }

    /// As [`new`](Self::new), with the masker of each generation of the salt, the oldest first. A batch is masked with the
    /// generation that the database accepts.
    #[must_use]
    pub fn with_generations(maskers: Vec<Masker>, store: Store) -> Self {
        let generations: Vec<_> = maskers
            .into_iter()
            .map(|masker| Generation {
                fingerprints: Fingerprints { salt: masker.salt_fingerprint(), vault_key: None },
                masker,
            })
            .collect();
        Self {
            generation: AtomicUsize::new(generations.len().saturating_sub(1)),
            generations,
            vault: None,
            expected_envelopes: ExpectedEnvelopes::default(),
            store,
            login_queue: None,
            tracer: None,
            cold_start: ColdStartTimings::default(),
            had_batch: AtomicBool::new(false),
        }
    }

    /// Returns the function with a choice of the envelopes that it unwraps.
    #[must_use]
    pub fn expecting(self, expected_envelopes: ExpectedEnvelopes) -> Self {
        Self { expected_envelopes, ..self }
    }

    /// Returns the function with a vault, which keeps the masked values sealed.
    #[must_use]
    pub fn with_vault(mut self, vault: Vault) -> Self {
        for generation in &mut self.generations {
            generation.fingerprints.vault_key = Some(vault.public_key.sha256());
        }
        Self { vault: Some(vault), ..self }
    }

    /// Returns the function with a tracer.
    #[must_use]
    pub fn traced(self, tracer: Tracer) -> Self {
        Self { tracer: Some(tracer), ..self }
    }

    /// Returns the fingerprint of the salt with which this process masks.
    #[must_use]
    pub fn salt_fingerprint(&self) -> &SaltFingerprint {
        &self.generations[self.generation.load(Ordering::Relaxed)].fingerprints.salt
    }

    /// Handles one invocation: writes the good messages of the batch, logs every failure, and returns the ids
    /// of the failed messages.
    ///
    /// # Errors
    ///
    /// [`BatchError`]: SQS delivers the whole batch again.
    pub async fn handle(&self, raw_event: &[u8], context: &Context) -> Result<SqsBatchResponse, BatchError> {
        let deadline = Deadline::before(context.deadline());
        let mut log =
            BatchLog::start(&context.request_id, &context.env_config.function_name, deadline.left());
        if let (Some(tracer), Some(header)) = (&self.tracer, &context.xray_trace_id) {
            log.trace = tracer.start_trace(header);
        }
        if !self.had_batch.swap(true, Ordering::Relaxed) {
            log.cold_start(self.cold_start);
        }
        match self.run_stages(raw_event, deadline, &mut log).await {
            Ok((response, inserted)) => {
                log.batch_done(inserted);
                Ok(response)
            }
            Err(error) => {
                log.batch_failed(&error);
                Err(error)
            }
        }
    }

    /// Returns the response and the number of rows inserted.
    async fn run_stages(
        &self,
        raw_event: &[u8],
        deadline: Deadline,
        log: &mut BatchLog<'_>,
    ) -> Result<(SqsBatchResponse, u64), BatchError> {
        let messages = event::read(raw_event)?;
        let (failures, written) = self.write_with_accepted_salt(&messages, deadline, log).await?;
        let failures = failures.into_sorted();
        for (message, reason) in &failures {
            log.message_failed(message, reason);
        }
        if let Some(queue) = &self.login_queue
            && let Err(error) = queue.redeliver_soon(&hopeless(&failures), deadline).await
        {
            log.left_in_flight(&error);
        }
        Ok((response(&failures), written.inserted))
    }

    /// Writes the messages, and returns the failures with what was written. If the database refuses the generation of
    /// the salt, the messages are masked again with the other generations, the newest first: while a resalt is under
    /// way, the database accepts an earlier generation than the last.
    async fn write_with_accepted_salt<'m>(
        &self,
        messages: &'m [SqsMessage<'m>],
        deadline: Deadline,
        log: &mut BatchLog<'_>,
    ) -> Result<(Failures<'m>, Written), BatchError> {
        let used = self.generation.load(Ordering::Relaxed);
        let mut others = (0..self.generations.len()).rev().filter(|other| *other != used);
        let mut place = used;
        loop {
            let mut failures = Failures::new(messages);
            let keys = message_keys(messages, &mut failures);
            if place == used {
                let queue = messages.first().and_then(SqsMessage::queue_name);
                log.event_read(messages.len(), queue, oldest_sent_at(messages, &keys));
            }
            let generation = &self.generations[place];
            // Cloned, because hashing changes the masker's state.
            let mut masker = generation.masker.clone();
            if let Some(vault) = &self.vault {
                masker = masker.sealing(vault.take_sealer()?);
            }
            let fingerprints = &generation.fingerprints;
            let written =
                self.write(messages, keys, &mut failures, (&mut masker, fingerprints), deadline, log).await;
            log.writing_ended();
            if let Some(vault) = &self.vault {
                let is_complete = written.as_ref().is_ok_and(|written| written.failed_rows.is_empty());
                vault.return_sealer(masker, is_complete);
            }
            if let Err(BatchError::Store(StoreError::SaltChanged)) = &written
                && let Some(other) = others.next()
            {
                place = other;
                log.sealed = None;
                continue;
            }
            let mut written = written?;
            if place != used {
                let fingerprint = generation.fingerprints.salt.as_str();
                tracing::info!(fingerprint, "the database accepts another generation of the salt");
                self.generation.store(place, Ordering::Relaxed);
            }
            log.suppressed = written.suppressed;
            for row in mem::take(&mut written.failed_rows) {
                failures.add(row.position, row.reason);
            }
            return Ok((failures, written));
        }
    }

    /// Decodes and masks the messages, and hands their rows to the writer. Postgres writes the first rows
    /// of a large batch while the next rows are decoded.
    async fn write<'m>(
        &self,
        messages: &'m [SqsMessage<'m>],
        keys: Vec<MessageKey<'m>>,
        failures: &mut Failures<'m>,
        (masker, fingerprints): (&mut Masker, &Fingerprints),
        deadline: Deadline,
        log: &mut BatchLog<'_>,
    ) -> Result<Written, BatchError> {
        let mut keys = keys.into_iter();
        let mut writer = self.store.writer(fingerprints, deadline, &mut log.connecting);
        loop {
            let started = Instant::now();
            let rows = self.next_rows(messages, &mut keys, failures, masker);
            let rows = Rows { rows, sealed: masker.take_sealed()? };
            if self.vault.is_some() {
                *log.sealed.get_or_insert_default() += rows.sealed.count();
            }
            log.decoding.add(started.elapsed());
            log.unparsed_ips = masker.unparsed_ips();
            if keys.as_slice().is_empty() {
                return Ok(writer.finish(rows).await?);
            }
            writer.send(rows).await;
        }
    }

    /// Decodes and masks messages until the rows fill a statement or no key is left.
    fn next_rows<'m>(
        &self,
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
            match decode(&messages[position], self.expected_envelopes) {
                Ok(login) => rows.push(KeyedRow { key, row: mask(login, masker) }),
                Err(error) => failures.add(position, error),
            }
        }
        rows
    }
}

impl Vault {
    /// Starts to seal to a public key.
    ///
    /// # Errors
    ///
    /// [`NotSealed`] if the key is not a point of the curve.
    pub fn new(public_key: VaultPublicKey) -> Result<Self, NotSealed> {
        let sealer = Mutex::new(Some(Sealer::new(public_key.point())?));
        Ok(Self { public_key, sealer })
    }

    fn take_sealer(&self) -> Result<Sealer, NotSealed> {
        let sealer = self.sealer.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut sealer = sealer.map_or_else(|| Sealer::new(self.public_key.point()), Ok)?;
        sealer.begin(SystemTime::now())?;
        Ok(sealer)
    }

    /// Keeps the sealer for the next batch. The values of a batch with failures are sealed again.
    fn return_sealer(&self, masker: Masker, is_complete: bool) {
        let Some(mut sealer) = masker.into_sealer() else { return };
        if is_complete {
            sealer.committed();
        } else {
            sealer.not_committed();
        }
        *self.sealer.lock().unwrap_or_else(PoisonError::into_inner) = Some(sealer);
    }
}

/// Reads the messages' keys, and sorts them in the order in which the rows are written.
fn message_keys<'m>(messages: &'m [SqsMessage<'m>], failures: &mut Failures<'m>) -> Vec<MessageKey<'m>> {
    let today = start_of_day(SystemTime::now());
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

/// Makes the response: SQS redelivers the messages whose ids it contains.
///
/// The [documented shape][shape] has each id once, but SQS can deliver a message twice in one batch.
///
/// [shape]: https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html#services-sqs-batchfailurereporting
fn response(failures: &[(&SqsMessage<'_>, FailureReason)]) -> SqsBatchResponse {
    let mut response = SqsBatchResponse::default();
    let mut seen = HashSet::new();
    for (message, _) in failures {
        if seen.insert(&*message.id) {
            response.add_failure(&*message.id);
        }
    }
    response
}

/// Returns when the oldest message was sent. Messages without a `SentTimestamp` are left out.
fn oldest_sent_at(messages: &[SqsMessage<'_>], keys: &[MessageKey<'_>]) -> Option<SystemTime> {
    let dated = keys.iter().filter(|key| messages[key.position].has_sent_timestamp());
    dated.map(|key| key.sent_at).min()
}

/// Returns the start of the day, in UTC.
fn start_of_day(time: SystemTime) -> SystemTime {
    const DAY_S: u64 = 86_400;
    let since_1970 = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    SystemTime::UNIX_EPOCH + Duration::from_secs(since_1970.as_secs() / DAY_S * DAY_S)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_start_at_midnight_utc() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);

        // date --utc --date 2026-11-14 +%s
        let midnight = at(1_794_614_400);
        assert_eq!(start_of_day(midnight), midnight);
        assert_eq!(start_of_day(at(1_794_614_400 + 86_399)), midnight);
        assert_eq!(start_of_day(at(1_794_614_400 - 1)), at(1_794_614_400 - 86_400));
    }
}
