//! Metrics: lines in CloudWatch's [Embedded Metric Format][emf], which are log lines too.
//!
//! A batch is one line, written when all of it is known, so that what is counted and what is read are
//! the same figures under the same names. Written here and not by a crate: AWS's own `metrique` would
//! bring three dozen crates along, and what the `metrics` facade counts is kept for the whole process,
//! not for a batch.
//!
//! A personal value cannot get in: what is measured is a number or a time, and the texts are named
//! one by one.
//!
//! [emf]: https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html

use std::time::{Duration, SystemTime};

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{self, FormatTime};

/// The target of the lines, which no filter concerns.
pub const TARGET: &str = "login_etl::metrics";

/// The namespace of the metrics.
const NAMESPACE: &str = "login-etl";

/// The dimension that every metric has: the function's name, which tells stages and stacks apart.
const FUNCTION: &str = "function";

/// A log line with metrics.
#[derive(Debug)]
pub struct Line<'a> {
    /// How bad it is.
    pub level: Level,
    /// What happened.
    pub message: &'static str,
    /// The id of the invocation.
    pub request_id: &'a str,
    /// The function's name.
    pub function: &'a str,
    /// What else is to be read, and is no metric.
    pub texts: &'a [(&'static str, &'a str)],
    /// The metrics of the function.
    pub metrics: &'a [Metric],
    /// The name of one of the texts, and a metric of the function and this text. Each of the text's
    /// values is one metric more to pay for, so they must be few.
    pub by: Option<(&'static str, Metric)>,
}

/// The level of a line, as Lambda reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Level {
    /// All is well.
    Info,
    /// A message failed.
    Warn,
    /// The batch failed.
    Error,
}

/// A metric's name, and what it says this time.
pub type Metric = (&'static str, Measured);

/// What a metric says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Measured {
    /// How many there were.
    Count(u64),
    /// How many of a hundred.
    Percent(f64),
    /// How long it took, in milliseconds where it is written.
    Time(Duration),
}

impl Line<'_> {
    /// Writes the line to the log.
    pub fn write(&self) {
        if let Ok(line) = serde_json::to_string(self) {
            tracing::info!(target: TARGET, %line);
        }
    }
}

impl Serialize for Line<'_> {
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
        for (name, measured) in self.metrics {
            map.serialize_entry(name, measured)?;
        }
        let metric = self.by.map(|(_, metric)| metric);
        // A metric that is counted in both ways stands there once.
        if let Some((name, measured)) = metric.filter(|metric| !self.metrics.contains(metric)) {
            map.serialize_entry(name, &measured)?;
        }
        map.serialize_entry("_aws", &Metadata::of(self))?;
        map.end()
    }
}

impl Serialize for Measured {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Count(count) => serializer.serialize_u64(*count),
            Self::Percent(percent) => serializer.serialize_f64((percent * 10.0).round() / 10.0),
            Self::Time(time) => serializer.serialize_f64((time.as_secs_f64() * 1e6).round() / 1e3),
        }
    }
}

/// What tells CloudWatch which of the line's members are metrics.
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
    name: &'static str,
    unit: &'static str,
}

impl Metadata {
    fn of(line: &Line<'_>) -> Self {
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let of_the_function = Directive::new(vec![FUNCTION], line.metrics);
        let of_the_text = line.by.map(|(text, metric)| Directive::new(vec![FUNCTION, text], &[metric]));
        Self {
            timestamp: since_1970.as_millis().try_into().unwrap_or_default(),
            directives: of_the_text
                .into_iter()
                .chain((!line.metrics.is_empty()).then_some(of_the_function))
                .collect(),
        }
    }
}

impl Directive {
    fn new(dimensions: Vec<&'static str>, metrics: &[Metric]) -> Self {
        let definition = |(name, measured): &Metric| {
            let unit = match measured {
                Measured::Count(_) => "Count",
                Measured::Percent(_) => "Percent",
                Measured::Time(_) => "Milliseconds",
            };
            Definition { name, unit }
        };
        Self {
            namespace: NAMESPACE,
            dimensions: [dimensions],
            metrics: metrics.iter().map(definition).collect(),
        }
    }
}

/// The time as the other lines have it.
fn timestamp() -> String {
    let mut text = String::with_capacity(27);
    // Only a clock before 1970 cannot be written.
    let _ = time::SystemTime.format_time(&mut Writer::new(&mut text));
    text
}
