//! The log of a batch: a line with its metrics, a line for each message that failed, and a metric for each
//! reason.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use login::event::SqsMessage;
use login::failures::FailureReason;
use tracing::warn;

use super::metrics::{Level, LogLine, Metric, MetricName, MetricValue};
use super::trace::{Annotations, Stage, Trace};
use crate::aws::login_queue::LeftInFlight;
use crate::error::BatchError;
use crate::store::ColdStartTimings;

/// The log lines, metrics and trace of one batch.
#[derive(Debug)]
pub struct BatchLog<'a> {
    /// Time spent on decoding and masking.
    pub decoding: DecodingTime,
    /// Time spent on connecting to Postgres; zero where there was a connection.
    pub connecting: Duration,
    /// Number of rows that a trigger or a rule on `user_logins` suppressed.
    pub suppressed: u64,
    /// Number of values of `ip` that are not an IP address.
    pub unparsed_ips: u64,
    /// Number of values that were sealed for the vault; `None` without a vault.
    pub sealed: Option<u64>,
    /// The traced invocation; `None` where it is not sampled.
    pub trace: Option<Trace<'a>>,
    request_id: &'a str,
    function: &'a str,
    started: Instant,
    /// How long the batch may take.
    time_limit: Duration,
    /// Cold-start timings, on the first batch of a process.
    cold_start: Option<ColdStartTimings>,
    messages: Option<usize>,
    /// The name of the queue: a redrive reads another queue than the login queue.
    queue: Option<String>,
    /// The age of the oldest message when the event was read.
    oldest_age: Option<Duration>,
    /// Time spent on reading the event.
    reading: Duration,
    /// Time from the end of reading to the end of writing: decoding, connecting and writing.
    decoding_to_commit: Duration,
    written: Option<u64>,
    /// Number of failed messages by reason.
    failures_by_reason: BTreeMap<&'static str, u64>,
    /// Number of rows that Postgres refused.
    refused_rows: u64,
    /// Number of hopeless messages that stay in flight.
    left_in_flight: usize,
}

/// The time spent on decoding and masking.
#[derive(Clone, Copy, Debug, Default)]
pub struct DecodingTime {
    /// The rows of the first statement, before the connection is made.
    first_rows: Option<Duration>,
    all_rows: Duration,
}

impl DecodingTime {
    /// Adds the time that the rows of a statement took.
    pub fn add(&mut self, time: Duration) {
        self.first_rows.get_or_insert(time);
        self.all_rows += time;
    }
}

impl<'a> BatchLog<'a> {
    /// Starts to measure a batch, which may take `time_limit`.
    #[must_use]
    pub fn start(request_id: &'a str, function: &'a str, time_limit: Duration) -> Self {
        Self {
            decoding: DecodingTime::default(),
            connecting: Duration::ZERO,
            suppressed: 0,
            unparsed_ips: 0,
            sealed: None,
            trace: None,
            request_id,
            function,
            started: Instant::now(),
            time_limit,
            cold_start: None,
            messages: None,
            queue: None,
            oldest_age: None,
            reading: Duration::ZERO,
            decoding_to_commit: Duration::ZERO,
            written: None,
            failures_by_reason: BTreeMap::new(),
            refused_rows: 0,
            left_in_flight: 0,
        }
    }

    /// Marks the batch as the first of its process.
    pub fn cold_start(&mut self, timings: ColdStartTimings) {
        self.cold_start = Some(timings);
    }

    /// Marks the event as read. `oldest_sent_at` is the time at which the oldest message was sent.
    pub fn event_read(&mut self, messages: usize, queue: Option<&str>, oldest_sent_at: Option<SystemTime>) {
        self.messages = Some(messages);
        self.queue = queue.map(ToOwned::to_owned);
        // If the sender's clock is ahead of ours, the age is zero.
        self.oldest_age =
            oldest_sent_at.map(|sent_at| SystemTime::now().duration_since(sent_at).unwrap_or_default());
        self.reading = self.started.elapsed();
    }

    /// Marks the writing as ended, also on failure.
    pub fn writing_ended(&mut self) {
        self.decoding_to_commit = self.started.elapsed().saturating_sub(self.reading);
    }

    /// Logs and counts a message that failed.
    pub fn message_failed(&mut self, message: &SqsMessage<'_>, reason: &FailureReason) {
        *self.failures_by_reason.entry(reason.code()).or_default() += 1;
        self.refused_rows += u64::from(matches!(reason, FailureReason::RowRefused { .. }));
        warn!(
            request_id = self.request_id,
            message_id = &*message.id,
            reason = reason.code(),
            field = reason.field(),
            sqlstate = reason.sqlstate(),
            receive_count = message.receive_count(),
            queue = message.queue_name(),
            error = %reason,
            "message failed"
        );
    }

    /// Logs and counts hopeless messages that stay in flight.
    pub fn left_in_flight(&mut self, error: &LeftInFlight) {
        self.left_in_flight = error.messages;
        warn!(request_id = self.request_id, messages = error.messages, error = %error, "messages left in flight");
    }

    /// Logs a batch that was written, with the number of rows inserted.
    pub fn batch_done(mut self, inserted: u64) {
        self.written = Some(inserted);
        self.end_trace(None);
        self.write_line(Level::Info, "batch done", &[], &self.metrics(None), None);
        for (reason, count) in &self.failures_by_reason {
            let by_reason = ("reason", (MetricName::Failed, MetricValue::Count(*count)));
            self.write_line(Level::Warn, "failures by reason", &[("reason", reason)], &[], Some(by_reason));
        }
    }

    /// Logs a batch that failed as a whole.
    pub fn batch_failed(self, error: &BatchError) {
        self.end_trace(Some(error.error_type()));
        let text = error.to_string();
        let mut texts = vec![("error_type", error.error_type()), ("error", &text)];
        texts.extend(error.sqlstate().map(|sqlstate| ("sqlstate", sqlstate)));
        texts.extend(self.queue.as_deref().map(|queue| ("queue", queue)));
        let by_error_type = ("error_type", (MetricName::BatchFailed, MetricValue::Count(1)));
        self.write_line(
            Level::Error,
            "batch failed",
            &texts,
            &self.metrics(Some(error)),
            Some(by_error_type),
        );
    }

    fn end_trace(&self, error_type: Option<&'static str>) {
        let Some(trace) = &self.trace else {
            return;
        };
        let annotations = Annotations {
            messages: self.messages,
            written: self.written,
            failed: self.failures_by_reason.values().sum(),
            error_type,
        };
        trace.end(&self.stages(), self.started.elapsed(), annotations);
    }

    /// Returns the stages that the batch reached, in the order in which they happened. The rows after the
    /// first statement are decoded while Postgres writes.
    fn stages(&self) -> Vec<Stage> {
        let decoded = self.reading + self.decoding.first_rows.unwrap_or_default();
        let connected = decoded + self.connecting;
        let mut stages = vec![("read", Duration::ZERO, self.reading)];
        if !self.decoding_to_commit.is_zero() {
            stages.push(("decode", self.reading, decoded));
            if !self.connecting.is_zero() {
                stages.push(("connect", decoded, connected));
            }
            stages.push(("write", connected, self.reading + self.decoding_to_commit));
        }
        stages
    }

    fn metrics(&self, error: Option<&BatchError>) -> Vec<Metric> {
        use MetricValue::{Count, Percent, Time};

        let flag = |is: bool| Count(u64::from(is));
        let elapsed = self.started.elapsed();
        let mut metrics = Vec::with_capacity(19);
        if let Some(messages) = self.messages {
            metrics.push((MetricName::Messages, Count(messages as u64)));
        }
        if let (Some(messages), Some(written)) = (self.messages, self.written) {
            let failed: u64 = self.failures_by_reason.values().sum();
            let duplicates = (messages as u64).saturating_sub(failed + written + self.suppressed);
            metrics.extend([
                (MetricName::Written, Count(written)),
                (MetricName::Duplicates, Count(duplicates)),
                (MetricName::Suppressed, Count(self.suppressed)),
                (MetricName::UnparsedIps, Count(self.unparsed_ips)),
                (MetricName::Failed, Count(failed)),
                (MetricName::FailedPercent, Percent(percent(failed, messages as u64))),
                (MetricName::Refused, Count(self.refused_rows)),
            ]);
            metrics.extend(self.sealed.map(|sealed| (MetricName::Sealed, Count(sealed))));
        }
        if self.left_in_flight > 0 {
            metrics.push((MetricName::LeftInFlight, Count(self.left_in_flight as u64)));
        }
        metrics.extend([
            (MetricName::BatchFailed, flag(error.is_some())),
            (MetricName::DatabaseError, flag(error.is_some_and(BatchError::is_database_error))),
            (MetricName::ColdStart, flag(self.cold_start.is_some())),
        ]);
        let connecting = self.cold_start.unwrap_or_default().connecting + self.connecting;
        let writing = self.decoding_to_commit.saturating_sub(self.decoding.all_rows + self.connecting);
        let times = [
            (MetricName::OldestMs, self.oldest_age),
            (MetricName::SecretsMs, self.cold_start.map(|timings| timings.fetching_secrets)),
            (MetricName::ConnectMs, Some(connecting).filter(|time| !time.is_zero())),
            (MetricName::DecodeMs, Some(self.reading + self.decoding.all_rows)),
            (MetricName::WriteMs, Some(writing)),
            (MetricName::ElapsedMs, Some(elapsed)),
        ];
        metrics.extend(times.into_iter().filter_map(|(name, time)| Some((name, Time(time?)))));
        let used = elapsed.as_secs_f64() / self.time_limit.as_secs_f64();
        metrics.push((MetricName::UsedPercent, Percent((used * 100.0).min(100.0))));
        metrics
    }

    fn write_line(
        &self,
        level: Level,
        message: &'static str,
        texts: &[(&'static str, &str)],
        metrics: &[Metric],
        second_dimension: Option<(&'static str, Metric)>,
    ) {
        let Self { request_id, function, .. } = *self;
        LogLine { level, message, request_id, function, texts, metrics, second_dimension }.write();
    }
}

#[expect(clippy::cast_precision_loss, reason = "a percentage of a batch needs three digits at most")]
fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 * 100.0 }
}

#[cfg(test)]
mod tests {
    use MetricValue::{Count, Percent, Time};
    use login::decode::DecodeError;
    use login::event;

    use super::*;

    const MILLIS: Duration = Duration::from_millis(1);

    /// Returns the log of a batch that is written, with each time different.
    fn written_batch() -> BatchLog<'static> {
        BatchLog {
            decoding: DecodingTime { first_rows: Some(MILLIS), all_rows: 4 * MILLIS },
            connecting: 8 * MILLIS,
            messages: Some(10),
            oldest_age: Some(64 * MILLIS),
            reading: 2 * MILLIS,
            decoding_to_commit: 32 * MILLIS,
            written: Some(4),
            suppressed: 1,
            unparsed_ips: 3,
            sealed: None,
            failures_by_reason: BTreeMap::from([("NotJson", 2), ("RowRefused", 1)]),
            refused_rows: 1,
            ..BatchLog::start("request", "function", Duration::from_secs(1))
        }
    }

    /// Returns the metrics, except those of the time since the start, which a test cannot predict.
    fn fixed_metrics(log: &BatchLog<'_>, error: Option<&BatchError>) -> Vec<Metric> {
        let mut metrics = log.metrics(error);
        metrics.retain(|(name, _)| !matches!(name, MetricName::ElapsedMs | MetricName::UsedPercent));
        metrics
    }

    #[test]
    fn written_batch_has_every_count_and_time() {
        let metrics = fixed_metrics(&written_batch(), None);

        assert_eq!(
            metrics,
            [
                (MetricName::Messages, Count(10)),
                (MetricName::Written, Count(4)),
                (MetricName::Duplicates, Count(2)),
                (MetricName::Suppressed, Count(1)),
                (MetricName::UnparsedIps, Count(3)),
                (MetricName::Failed, Count(3)),
                (MetricName::FailedPercent, Percent(30.0)),
                (MetricName::Refused, Count(1)),
                (MetricName::BatchFailed, Count(0)),
                (MetricName::DatabaseError, Count(0)),
                (MetricName::ColdStart, Count(0)),
                (MetricName::OldestMs, Time(64 * MILLIS)),
                (MetricName::ConnectMs, Time(8 * MILLIS)),
                (MetricName::DecodeMs, Time(6 * MILLIS)),
                (MetricName::WriteMs, Time(20 * MILLIS)),
            ]
        );
    }

    #[test]
    fn cold_start_adds_its_times() {
        let mut log = BatchLog { oldest_age: None, ..written_batch() };
        log.cold_start(ColdStartTimings { fetching_secrets: 128 * MILLIS, connecting: 256 * MILLIS });

        let metrics = fixed_metrics(&log, None);

        assert_eq!(
            metrics[10..],
            [
                (MetricName::ColdStart, Count(1)),
                (MetricName::SecretsMs, Time(128 * MILLIS)),
                (MetricName::ConnectMs, Time(264 * MILLIS)),
                (MetricName::DecodeMs, Time(6 * MILLIS)),
                (MetricName::WriteMs, Time(20 * MILLIS)),
            ]
        );
    }

    #[test]
    fn messages_left_in_flight_are_counted() {
        let mut log = written_batch();
        log.left_in_flight(&LeftInFlight { messages: 2, cause: "SQS did not answer in time".to_owned() });

        let metrics = fixed_metrics(&log, None);

        assert_eq!(metrics[7..9], [(MetricName::Refused, Count(1)), (MetricName::LeftInFlight, Count(2))]);
    }

    #[test]
    fn unread_batch_counts_only_its_failure() {
        let log = BatchLog::start("request", "function", Duration::from_secs(1));
        let error = BatchError::Event(event::EventError::MissingMessageId { position: 0 });

        let metrics = fixed_metrics(&log, Some(&error));

        assert_eq!(
            metrics,
            [
                (MetricName::BatchFailed, Count(1)),
                (MetricName::DatabaseError, Count(0)),
                (MetricName::ColdStart, Count(0)),
                (MetricName::DecodeMs, Time(Duration::ZERO)),
                (MetricName::WriteMs, Time(Duration::ZERO)),
            ]
        );
    }

    #[test]
    fn elapsed_time_is_part_of_the_limit() {
        let started = Instant::now().checked_sub(Duration::from_mins(10)).unwrap();
        let limits = [Duration::from_mins(40), Duration::from_mins(5)];

        let used = limits.map(|time_limit| {
            let log = BatchLog { started, time_limit, ..written_batch() };
            let metrics = log.metrics(None);
            let [.., (elapsed, Time(time)), (used, Percent(percent))] = metrics[..] else {
                panic!("{metrics:?}")
            };
            assert_eq!((elapsed, used), (MetricName::ElapsedMs, MetricName::UsedPercent));
            (time.as_secs() / 60, percent.floor())
        });

        assert_eq!(used, [(10, 25.0), (10, 100.0)]);
    }

    #[test]
    fn stages_follow_each_other() {
        let read = ("read", Duration::ZERO, 2 * MILLIS);
        let decode = ("decode", 2 * MILLIS, 3 * MILLIS);
        let connected = written_batch();
        let kept_connection = || BatchLog { connecting: Duration::ZERO, ..written_batch() };
        let unread = BatchLog { decoding_to_commit: Duration::ZERO, ..kept_connection() };

        assert_eq!(
            connected.stages(),
            [read, decode, ("connect", 3 * MILLIS, 11 * MILLIS), ("write", 11 * MILLIS, 34 * MILLIS)]
        );
        assert_eq!(kept_connection().stages(), [read, decode, ("write", 3 * MILLIS, 34 * MILLIS)]);
        assert_eq!(unread.stages(), [read]);
    }

    #[test]
    fn first_rows_are_timed_apart() {
        let mut time = DecodingTime::default();

        for millis in [1, 2, 4] {
            time.add(millis * MILLIS);
        }

        assert_eq!((time.first_rows, time.all_rows), (Some(MILLIS), 7 * MILLIS));
    }

    #[test]
    fn failures_are_counted_by_reason() {
        let messages = event::read(br#"{"Records": [{"messageId": "m"}]}"#).unwrap();
        let mut log = BatchLog::start("request", "function", Duration::from_secs(1));
        let refused = FailureReason::RowRefused { sqlstate: "23514".to_owned() };

        for reason in [&refused, &refused, &DecodeError::MissingBody.into()] {
            log.message_failed(&messages[0], reason);
        }

        assert_eq!(log.failures_by_reason, BTreeMap::from([("MissingBody", 1), ("RowRefused", 2)]));
        assert_eq!(log.refused_rows, 2);
    }

    #[test]
    fn stages_of_a_batch_are_timed() {
        let mut log = BatchLog::start("request", "function", Duration::from_secs(1));
        log.started -= 100 * MILLIS;

        log.event_read(3, Some("logins"), Some(SystemTime::now() - Duration::from_mins(1)));
        log.started -= 1000 * MILLIS;
        log.writing_ended();

        assert_eq!((log.messages, log.queue.as_deref()), (Some(3), Some("logins")));
        assert_eq!(log.oldest_age.unwrap().as_secs(), 60);
        assert!((100..900).contains(&log.reading.as_millis()), "{:?}", log.reading);
        assert!((1000..1900).contains(&log.decoding_to_commit.as_millis()), "{:?}", log.decoding_to_commit);
    }

    #[test]
    fn empty_batch_has_zero_percent_failed() {
        let percents = [percent(0, 0), percent(1, 4), percent(4, 4)].map(Percent);

        assert_eq!(percents, [Percent(0.0), Percent(25.0), Percent(100.0)]);
    }
}
