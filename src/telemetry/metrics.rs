//! Metrics: log lines in CloudWatch's [Embedded Metric Format][emf].
//!
//! A batch writes one line at its end, so that the log and the metrics have the same figures under the same
//! names. No crate does this: AWS's `metrique` would bring three dozen crates, and the `metrics` facade
//! counts for the whole process, not for a batch.
//!
//! No line holds a personal value: a metric is a number or a time, and the texts are names, ids and error
//! texts, which hold no value.
//!
//! [emf]: https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html

use std::time::{Duration, SystemTime};

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{self, FormatTime};

/// The target of the lines. No log filter applies to it.
pub const METRICS_TARGET: &str = "login_etl::metrics";

/// The namespace of the metrics.
const NAMESPACE: &str = "login-etl";

/// The dimension of every metric: the function's name, which differs between stacks.
const FUNCTION: &str = "function";

/// A log line with metrics.
#[derive(Debug)]
pub struct LogLine<'a> {
    /// The severity.
    pub level: Level,
    /// What happened: the line's name.
    pub message: &'static str,
    /// The id of the invocation.
    pub request_id: &'a str,
    /// The function's name.
    pub function: &'a str,
    /// The line's other fields, which are not metrics.
    pub texts: &'a [(&'static str, &'a str)],
    /// The metrics of the function.
    pub metrics: &'a [Metric],
    /// A text's name, and a metric with this text as a second dimension. CloudWatch charges for each value of
    /// the text, so the values must be few.
    pub second_dimension: Option<(&'static str, Metric)>,
}

/// The level of a line, spelled as Lambda spells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Level {
    /// A batch was written.
    Info,
    /// Messages failed.
    Warn,
    /// The batch failed.
    Error,
}

/// The metrics, whose names are their fields in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "docs/operations.md explains each")]
pub enum MetricName {
    Messages,
    Written,
    Duplicates,
    Suppressed,
    UnparsedIps,
    Failed,
    FailedPercent,
    Refused,
    Sealed,
    LeftInFlight,
    BatchFailed,
    DatabaseError,
    ColdStart,
    OldestMs,
    SecretsMs,
    ConnectMs,
    DecodeMs,
    WriteMs,
    ElapsedMs,
    UsedPercent,
    UsersWithManyTokens,
    ServerError,
    DaysRolledUp,
    DaysLeft,
    ExportedDays,
    ExportedRows,
    ExportFailures,
    VaultRowsFolded,
    VaultRowsLeft,
    VaultOldestMs,
    Reveals,
    FailedReveals,
    UnopenableValues,
    Erasures,
    HoneyTokensAsked,
    KmsMs,
}

/// A metric's name and its value.
pub type Metric = (MetricName, MetricValue);

/// The value of a metric.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MetricValue {
    /// A number of things.
    Count(u64),
    /// 0 to 100.
    Percent(f64),
    /// A time, written in milliseconds.
    Time(Duration),
}

impl LogLine<'_> {
    /// Writes the line to the log.
    pub fn write(&self) {
        if let Ok(line) = serde_json::to_string(self) {
            tracing::info!(target: METRICS_TARGET, %line);
        }
    }
}

impl Serialize for LogLine<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("timestamp", &timestamp())?;
        map.serialize_entry("level", &self.level)?;
        map.serialize_entry("message", self.message)?;
        map.serialize_entry("request_id", self.request_id)?;
        map.serialize_entry(FUNCTION, self.function)?;
        for (name, text) in self.texts {
            map.serialize_entry(name, text)?;
        }
        for (name, value) in self.metrics {
            map.serialize_entry(name, value)?;
        }
        let metric = self.second_dimension.map(|(_, metric)| metric);
        // A metric that is also in `metrics` has its field already.
        if let Some((name, value)) = metric.filter(|metric| !self.metrics.contains(metric)) {
            map.serialize_entry(&name, &value)?;
        }
        map.serialize_entry("_aws", &Metadata::of(self))?;
        map.end()
    }
}

impl Serialize for MetricValue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Count(count) => serializer.serialize_u64(*count),
            Self::Percent(percent) => serializer.serialize_f64((percent * 10.0).round() / 10.0),
            Self::Time(time) => serializer.serialize_f64((time.as_secs_f64() * 1e6).round() / 1e3),
        }
    }
}

/// Lists the fields that are metrics.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Metadata {
    /// In milliseconds since 1970.
    timestamp: u64,
    #[serde(rename = "CloudWatchMetrics")]
    directives: Vec<Directive>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Directive {
    namespace: &'static str,
    dimensions: [Vec<&'static str>; 1],
    metrics: Vec<Definition>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Definition {
    name: MetricName,
    unit: &'static str,
}

impl Metadata {
    fn of(line: &LogLine<'_>) -> Self {
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let function_directive = Directive::new(vec![FUNCTION], line.metrics);
        let text_directive =
            line.second_dimension.map(|(text, metric)| Directive::new(vec![FUNCTION, text], &[metric]));
        Self {
            timestamp: since_1970.as_millis().try_into().unwrap_or_default(),
            directives: text_directive
                .into_iter()
                .chain((!line.metrics.is_empty()).then_some(function_directive))
                .collect(),
        }
    }
}

impl Directive {
    fn new(dimensions: Vec<&'static str>, metrics: &[Metric]) -> Self {
        let definition = |(name, value): &Metric| {
            let unit = match value {
                MetricValue::Count(_) => "Count",
                MetricValue::Percent(_) => "Percent",
                MetricValue::Time(_) => "Milliseconds",
            };
            Definition { name: *name, unit }
        };
        Self {
            namespace: NAMESPACE,
            dimensions: [dimensions],
            metrics: metrics.iter().map(definition).collect(),
        }
    }
}

/// Formats the current time as the other log lines do.
fn timestamp() -> String {
    let mut text = String::with_capacity(27);
    // It fails only on a clock before 1970.
    let _ = time::SystemTime.format_time(&mut Writer::new(&mut text));
    text
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn written(line: &LogLine<'_>) -> Value {
        let mut value = serde_json::to_value(line).unwrap();
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis();
        let metadata_timestamp = value["_aws"].as_object_mut().unwrap().remove("Timestamp").unwrap();
        assert!(since_1970 - u128::from(metadata_timestamp.as_u64().unwrap()) < 60_000);
        let timestamp = value.as_object_mut().unwrap().remove("timestamp").unwrap();
        assert!(timestamp.as_str().unwrap().starts_with("20"), "{timestamp}");
        value
    }

    #[test]
    fn line_lists_its_metrics_and_dimensions() {
        let line = LogLine {
            level: Level::Error,
            message: "batch failed",
            request_id: "request",
            function: "function",
            texts: &[("error_type", "TimedOut")],
            metrics: &[
                (MetricName::Messages, MetricValue::Count(3)),
                (MetricName::FailedPercent, MetricValue::Percent(33.333)),
                (MetricName::WriteMs, MetricValue::Time(Duration::from_nanos(1_234_567_890))),
            ],
            second_dimension: Some(("error_type", (MetricName::BatchFailed, MetricValue::Count(1)))),
        };

        assert_eq!(
            written(&line),
            json!({
                "level": "ERROR",
                "message": "batch failed",
                "request_id": "request",
                "function": "function",
                "error_type": "TimedOut",
                "messages": 3,
                "failed_percent": 33.3,
                "write_ms": 1234.568,
                "batch_failed": 1,
                "_aws": {
                    "CloudWatchMetrics": [
                        {
                            "Namespace": "login-etl",
                            "Dimensions": [["function", "error_type"]],
                            "Metrics": [{ "Name": "batch_failed", "Unit": "Count" }],
                        },
                        {
                            "Namespace": "login-etl",
                            "Dimensions": [["function"]],
                            "Metrics": [
                                { "Name": "messages", "Unit": "Count" },
                                { "Name": "failed_percent", "Unit": "Percent" },
                                { "Name": "write_ms", "Unit": "Milliseconds" },
                            ],
                        },
                    ],
                },
            })
        );
    }

    #[test]
    fn metric_with_two_dimensions_is_written_once() {
        let metric = (MetricName::Failed, MetricValue::Count(2));
        let line = LogLine {
            level: Level::Warn,
            message: "failures by reason",
            request_id: "request",
            function: "function",
            texts: &[("reason", "NotJson")],
            metrics: &[metric],
            second_dimension: Some(("reason", metric)),
        };
        let alone = LogLine { metrics: &[], ..line };

        let text = serde_json::to_string(&line).unwrap();

        assert_eq!(text.matches("\"failed\":2").count(), 1, "{text}");
        assert_eq!(written(&alone)["failed"], 2);
        assert_eq!(written(&alone)["_aws"]["CloudWatchMetrics"].as_array().unwrap().len(), 1);
    }
}
