//! A batch as it is seen from outside: a line of its own with its metrics, a line for each message
//! that failed, and a metric for each reason.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use tracing::warn;

use super::metrics::{Level, Line, Measured, Metric};
use super::trace::{Annotations, Trace};
use crate::handler::BatchError;
use crate::report::Reason;
use crate::store::Spent;
use login::event::SqsMessage;

/// What is known of a batch so far.
#[derive(Debug)]
pub struct Batch<'a> {
    /// What its writing spends time on.
    pub spent: Spent,
    /// The invocation that it is traced in, if it is.
    pub trace: Option<Trace<'a>>,
    request_id: &'a str,
    function: &'a str,
    started: Instant,
    /// How long the batch may take.
    allowed: Duration,
    /// What the start of the process spent time on, if this is its first batch.
    start: Option<Spent>,
    messages: Option<usize>,
    /// The age of the oldest message when it was read.
    oldest: Option<Duration>,
    /// How long it took to read the payload.
    reading: Duration,
    /// How long the store had it, the making of the rows included.
    storing: Duration,
    written: Option<u64>,
    /// How many messages failed for each reason.
    failed: BTreeMap<&'static str, u64>,
}

impl<'a> Batch<'a> {
    /// Begins to measure a batch that may take as long as is `allowed`.
    #[must_use]
    pub fn begin(request_id: &'a str, function: &'a str, allowed: Duration) -> Self {
        Self {
            spent: Spent::default(),
            trace: None,
            request_id,
            function,
            started: Instant::now(),
            allowed,
            start: None,
            messages: None,
            oldest: None,
            reading: Duration::ZERO,
            storing: Duration::ZERO,
            written: None,
            failed: BTreeMap::new(),
        }
    }

    /// Tells that it is the first batch of a process whose start spent this time.
    pub fn is_first(&mut self, start: Spent) {
        self.start = Some(start);
    }

    /// Tells that the payload is read: how many messages there are, and when the oldest was sent.
    pub fn read(&mut self, messages: usize, oldest: Option<SystemTime>) {
        self.messages = Some(messages);
        // A sender whose clock is ahead of ours has sent it just now.
        self.oldest = oldest.map(|sent| SystemTime::now().duration_since(sent).unwrap_or_default());
        self.reading = self.started.elapsed();
    }

    /// Tells that the store is done, well or not.
    pub fn stored(&mut self) {
        self.storing = self.started.elapsed().saturating_sub(self.reading);
    }

    /// Logs and counts a message that failed.
    pub fn message_failed(&mut self, message: &SqsMessage<'_>, reason: &Reason) {
        *self.failed.entry(reason.code()).or_default() += 1;
        warn!(
            request_id = self.request_id,
            message_id = &*message.id,
            reason = reason.code(),
            field = reason.field(),
            sqlstate = reason.sqlstate(),
            receive_count = message.receive_count(),
            error = %reason,
            "message failed"
        );
    }

    /// Logs a batch that is done, with so many rows more in the table.
    pub fn done(mut self, written: u64) {
        self.written = Some(written);
        self.end_trace(None);
        self.line(Level::Info, "batch done", &[], &self.metrics(None), None);
        for (reason, count) in &self.failed {
            let by = ("reason", ("failed", Measured::Count(*count)));
            self.line(Level::Warn, "messages failed", &[("reason", reason)], &[], Some(by));
        }
    }

    /// Logs a batch that failed.
    pub fn failed(self, error: &BatchError) {
        self.end_trace(Some(error.error_type()));
        let text = error.to_string();
        let mut texts = vec![("error_type", error.error_type()), ("error", &text)];
        texts.extend(error.sqlstate().map(|sqlstate| ("sqlstate", sqlstate)));
        let by = ("error_type", ("batch_failed", Measured::Count(1)));
        self.line(Level::Error, "batch failed", &texts, &self.metrics(Some(error)), Some(by));
    }

    fn end_trace(&self, error_type: Option<&'static str>) {
        let Some(trace) = &self.trace else {
            return;
        };
        let connected = self.reading + self.spent.connecting;
        let mut stages = vec![("read", Duration::ZERO, self.reading)];
        if !self.spent.connecting.is_zero() {
            stages.push(("connect", self.reading, connected));
        }
        if !self.storing.is_zero() {
            stages.push(("decode, mask and write", connected, self.reading + self.storing));
        }
        let annotations = Annotations {
            messages: self.messages,
            written: self.written,
            failed: self.failed.values().sum(),
            error_type,
        };
        trace.end(&stages, self.started.elapsed(), annotations);
    }

    fn metrics(&self, error: Option<&BatchError>) -> Vec<Metric> {
        use Measured::{Count, Percent, Time};

        let flag = |is: bool| Count(u64::from(is));
        let elapsed = self.started.elapsed();
        let mut metrics = Vec::with_capacity(16);
        if let Some(messages) = self.messages {
            metrics.push(("messages", Count(messages as u64)));
        }
        if let (Some(messages), Some(written)) = (self.messages, self.written) {
            let failed: u64 = self.failed.values().sum();
            let duplicates = (messages as u64).saturating_sub(failed + written);
            let refused = self.failed.get("RowRefused").copied().unwrap_or_default();
            metrics.extend([
                ("written", Count(written)),
                ("duplicates", Count(duplicates)),
                ("failed", Count(failed)),
                ("failed_percent", Percent(share(failed, messages as u64))),
                ("refused", Count(refused)),
            ]);
        }
        metrics.extend([
            ("batch_failed", flag(error.is_some())),
            ("database_error", flag(error.is_some_and(BatchError::is_of_database))),
            ("cold_start", flag(self.start.is_some())),
        ]);
        let start = self.start.unwrap_or_default();
        let connecting = start.connecting + self.spent.connecting;
        let times = [
            ("oldest_ms", self.oldest),
            ("secrets_ms", self.start.map(|start| start.fetching)),
            ("connect_ms", Some(connecting).filter(|time| !time.is_zero())),
            ("decode_ms", Some(self.reading + self.spent.making)),
            ("write_ms", Some(self.storing.saturating_sub(self.spent.making + self.spent.connecting))),
            ("elapsed_ms", Some(elapsed)),
        ];
        metrics.extend(times.into_iter().filter_map(|(name, time)| Some((name, Time(time?)))));
        let used = elapsed.as_secs_f64() / self.allowed.as_secs_f64();
        metrics.push(("used_percent", Percent((used * 100.0).min(100.0))));
        metrics
    }

    fn line(
        &self,
        level: Level,
        message: &'static str,
        texts: &[(&'static str, &str)],
        metrics: &[Metric],
        by: Option<(&'static str, Metric)>,
    ) {
        let Self { request_id, function, .. } = *self;
        Line { level, message, request_id, function, texts, metrics, by }.write();
    }
}

/// How many of a hundred.
#[expect(clippy::cast_precision_loss, reason = "a share of a batch needs no more than three digits")]
fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 * 100.0 }
}
