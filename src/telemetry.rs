//! Logs and metrics: lines on standard output, which Lambda sends to CloudWatch.
//!
//! Only this crate's own lines are logged, whatever the filter says. Libraries log personal values: the
//! Lambda runtime logs the event at `trace`, and the Postgres client logs its parameters at `debug`.

use std::fmt::{self, Debug};
use std::panic::PanicHookInfo;
use std::process::ExitCode;

use tracing::field::Field;
use tracing::{Event, Subscriber, error};
use tracing_subscriber::filter::{Targets, filter_fn};
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::{FmtContext, MakeWriter};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use self::metrics::METRICS_TARGET;
use crate::config::{AWS_LAMBDA_LOG_FORMAT, AWS_LAMBDA_LOG_LEVEL, RUST_LOG, SettingError, not_blank};

pub mod batch;
pub mod metrics;
pub mod trace;

/// The format of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A JSON object.
    Json,
    /// Text for people.
    Text,
}

/// Starts to log to standard output. `environment` returns the value of an environment variable, if it is
/// set. The variables set the filter, such as `info` (the default) or `login_etl::store=debug`, and the
/// format, by default JSON.
///
/// # Errors
///
/// [`SettingError`] if `RUST_LOG` is not a filter. Logging starts all the same, at `info`.
pub fn start(environment: impl Fn(&str) -> Option<String>) -> Result<(), SettingError> {
    let parsed = filter(&environment);
    let filter = parsed.clone().unwrap_or_else(|_| Targets::new().with_default(tracing::Level::INFO));
    let is_text =
        environment(AWS_LAMBDA_LOG_FORMAT).is_some_and(|format| format.eq_ignore_ascii_case("text"));
    let format = if is_text { Format::Text } else { Format::Json };
    tracing_subscriber::registry().with(log_layer(filter, format, std::io::stdout)).init();
    std::panic::set_hook(Box::new(log_panic));
    parsed.map(drop)
}

/// Makes the layer that writes this crate's events, if they pass the filter, and the lines of [`metrics`]. No
/// filter applies to the metrics, and they are always JSON, because CloudWatch reads them.
pub fn log_layer<S, W>(filter: Targets, format: Format, writer: W) -> impl Layer<S>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    W: for<'w> MakeWriter<'w> + Clone + Send + Sync + 'static,
{
    let layer = tracing_subscriber::fmt::layer().with_writer(writer.clone());
    let layer = match format {
        Format::Json => {
            layer.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed()
        }
        Format::Text => layer.with_ansi(false).boxed(),
    };
    let ours = filter_fn(|metadata| {
        metadata.target().starts_with("login_etl") && metadata.target() != METRICS_TARGET
    });
    let log = layer.with_filter(filter).with_filter(ours);
    let metrics = tracing_subscriber::fmt::layer().event_format(Verbatim).with_writer(writer);
    log.and_then(metrics.with_filter(filter_fn(|metadata| metadata.target() == METRICS_TARGET)))
}

/// Returns the exit status of a program, and logs the error that ended it.
pub fn exit_code(outcome: Result<(), lambda_runtime::Error>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!(error = %error, "startup failed");
            ExitCode::FAILURE
        }
    }
}

/// Writes the only field of an event, without formatting it.
struct Verbatim;

impl<S, N> FormatEvent<S, N> for Verbatim
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    N: for<'w> FormatFields<'w> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut written = Ok(());
        event.record(&mut |_: &Field, line: &dyn Debug| written = writeln!(writer, "{line:?}"));
        written
    }
}

fn filter(environment: impl Fn(&str) -> Option<String>) -> Result<Targets, SettingError> {
    let environment = |name| environment(name).and_then(not_blank);
    if let Some(filter) = environment(RUST_LOG) {
        let invalid = SettingError::Invalid { variable: RUST_LOG, problem: "is not a log filter" };
        return filter.parse().map_err(|_| invalid);
    }
    let level = match environment(AWS_LAMBDA_LOG_LEVEL) {
        // `tracing` has no level FATAL.
        Some(level) if level.eq_ignore_ascii_case("fatal") => tracing::Level::ERROR,
        Some(level) => level.parse().unwrap_or(tracing::Level::INFO),
        None => tracing::Level::INFO,
    };
    Ok(Targets::new().with_default(level))
}

/// Logs where a panic happened. The panic's message may quote a value, so it is not logged.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    error!(place, "panicked");
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use super::*;

    fn filter_of(variables: &[(&str, &str)]) -> Result<String, SettingError> {
        let environment = |name: &str| {
            let set = variables.iter().find(|(variable, _)| *variable == name);
            set.map(|(_, value)| (*value).to_owned())
        };
        filter(environment).map(|filter| filter.to_string())
    }

    #[test]
    fn rust_log_overrides_the_level() {
        let coarse = (AWS_LAMBDA_LOG_LEVEL, "WARN");

        assert_eq!(filter_of(&[]).unwrap(), "info");
        assert_eq!(filter_of(&[coarse]).unwrap(), "warn");
        assert_eq!(filter_of(&[(AWS_LAMBDA_LOG_LEVEL, "FATAL")]).unwrap(), "error");
        assert_eq!(
            filter_of(&[coarse, (RUST_LOG, "login_etl::store=debug")]).unwrap(),
            "login_etl::store=debug"
        );
        assert_eq!(filter_of(&[coarse, (RUST_LOG, " ")]).unwrap(), "warn");
    }

    #[test]
    fn metrics_pass_every_filter_and_format() {
        let log = Log::default();
        let writer = log.clone();
        let strict = Targets::new().with_default(tracing::Level::ERROR);
        let layer = log_layer(strict, Format::Text, move || writer.clone());

        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            tracing::warn!("a line below the level");
            tracing::error!("a line for people");
            tracing::error!(target: "tokio_postgres", "a line of a library");
            let mut batch = batch::BatchLog::start("request", "function", Duration::from_secs(1));
            batch.event_read(1, None, None);
            batch.batch_done(1);
        });

        let log = log.0.lock().unwrap();
        let [text, metrics] = &log.lines().collect::<Vec<_>>()[..] else { panic!("{log}") };
        assert!(text.ends_with("ERROR login_etl::telemetry::tests: a line for people"), "{text}");
        let metrics: serde_json::Value = serde_json::from_str(metrics).unwrap();
        assert_eq!(metrics["message"], "batch done");
        assert_eq!(metrics["_aws"]["CloudWatchMetrics"][0]["Namespace"], "login-etl");
    }

    #[test]
    fn panic_is_logged_without_its_message() {
        let log = Log::default();
        let writer = log.clone();
        let everything = Targets::new().with_default(tracing::Level::TRACE);
        let layer = log_layer(everything, Format::Text, move || writer.clone());
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(log_panic));

        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            std::panic::catch_unwind(|| panic!("leak-me")).unwrap_err();
        });

        std::panic::set_hook(hook);
        let log = log.0.lock().unwrap();
        let (_, text) = log.trim_end().split_once("ERROR ").unwrap();
        let place = format!("login_etl::telemetry: panicked place=\"{}:", file!());
        assert!(text.starts_with(&place), "{text}");
        assert!(!log.contains("leak-me"), "the log holds the panic's message");
    }

    #[test]
    fn bad_filter_is_refused() {
        assert!(filter_of(&[(RUST_LOG, "a=b=c")]).is_err());
    }

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<String>>);

    impl std::io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().push_str(std::str::from_utf8(bytes).unwrap());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
}
