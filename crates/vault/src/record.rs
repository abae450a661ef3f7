//! What the log says of a request. It holds no value, no token, and nothing of a body that was refused.

use std::time::{Duration, Instant};

use lambda_runtime::Context;
use login_etl::telemetry::metrics::{Level, LogLine, Metric, MetricName, MetricValue};

use crate::audit::{Outcome, Verb};
use crate::event::Caller;
use crate::failure::Failure;
use crate::requests::Purpose;

/// What the log says of a request.
#[derive(Debug)]
pub struct Record {
    started: Instant,
    /// Who sent the request.
    pub caller: Option<Caller>,
    /// What the caller asks for.
    pub verb: Option<Verb>,
    /// Why.
    pub purpose: Option<Purpose>,
    /// The audit entry.
    pub entry: Option<i64>,
    /// The audit entries of values that were chosen at random.
    pub sampled: Vec<i64>,
    /// Number of values that did not open, of those that were chosen at random.
    pub unopenable: u32,
    /// Whether the caller asked for a honey token.
    pub is_honey: bool,
    /// The id of the request to KMS, if KMS answered.
    pub kms_request_id: Option<String>,
    /// How long KMS took.
    pub kms_time: Option<Duration>,
    /// Why the request failed.
    pub failure: Option<Failure>,
}

impl Record {
    /// Begins with nothing.
    #[must_use]
    pub fn start() -> Self {
        Self {
            started: Instant::now(),
            caller: None,
            verb: None,
            purpose: None,
            entry: None,
            sampled: Vec::new(),
            unopenable: 0,
            is_honey: false,
            kms_request_id: None,
            kms_time: None,
            failure: None,
        }
    }

    /// Writes the line to the log.
    pub fn write(&self, status: u16, context: &Context) {
        let status_text = status.to_string();
        let entries: Vec<_> = self.entry.iter().chain(&self.sampled).map(ToString::to_string).collect();
        let entries = (!entries.is_empty()).then(|| entries.join(" "));
        let error = self.failure.as_ref().map(ToString::to_string);
        let purpose = self.purpose.as_ref();
        let texts: Vec<_> = [
            ("verb", self.verb.map(Verb::name)),
            ("status", Some(&*status_text)),
            ("outcome", self.outcome().map(Outcome::name)),
            ("audit_entry", entries.as_deref()),
            ("kms_request_id", self.kms_request_id.as_deref()),
            ("caller", self.caller.as_ref().map(|Caller(arn)| &**arn)),
            ("reason", purpose.map(|purpose| purpose.reason.code())),
            ("ticket", purpose.map(|purpose| purpose.ticket.as_str())),
            ("error_type", self.failure.as_ref().and_then(Failure::error_type)),
            ("error", error.as_deref()),
        ]
        .into_iter()
        .filter_map(|(name, text)| Some((name, text?)))
        .collect();
        LogLine {
            level: match status {
                500.. => Level::Error,
                400.. => Level::Warn,
                _ => Level::Info,
            },
            message: "request",
            request_id: &context.request_id,
            function: &context.env_config.function_name,
            texts: &texts,
            metrics: &self.metrics(status),
            second_dimension: None,
        }
        .write();
    }

    /// Returns the outcome of a request with an audit entry.
    fn outcome(&self) -> Option<Outcome> {
        self.entry?;
        Some(self.failure.as_ref().map_or(Outcome::Done, Failure::outcome))
    }

    fn metrics(&self, status: u16) -> Vec<Metric> {
        let outcome = self.outcome();
        let is_done = MetricValue::Count((outcome == Some(Outcome::Done)).into());
        let is_honey = (MetricName::HoneyTokensAsked, MetricValue::Count(self.is_honey.into()));
        let mut metrics = match self.verb {
            Some(Verb::Reveal) => {
                let failed = outcome.is_some_and(|outcome| outcome != Outcome::Done);
                let unopenable = outcome == Some(Outcome::Unopenable);
                vec![
                    (MetricName::Reveals, is_done),
                    (MetricName::FailedReveals, MetricValue::Count(failed.into())),
                    (MetricName::UnopenableValues, MetricValue::Count(unopenable.into())),
                    is_honey,
                ]
            }
            Some(Verb::Erase | Verb::EraseUser) => vec![(MetricName::Erasures, is_done), is_honey],
            Some(Verb::Verify) => {
                vec![(MetricName::UnopenableValues, MetricValue::Count(self.unopenable.into()))]
            }
            Some(Verb::Token | Verb::Audit | Verb::Honey) | None => Vec::new(),
        };
        metrics.extend(self.kms_time.map(|time| (MetricName::KmsMs, MetricValue::Time(time))));
        metrics.push((MetricName::ServerError, MetricValue::Count((status >= 500).into())));
        metrics.push((MetricName::ElapsedMs, MetricValue::Time(self.started.elapsed())));
        metrics
    }
}
