//! Logs: JSON lines on standard output, which Lambda sends to CloudWatch.
//!
//! Only this crate's own lines are logged, whatever the filter says. Those of libraries are not ours
//! to vouch for: at `trace` the Lambda runtime prints the payload, and at `debug` the Postgres client
//! prints what it sends.

use std::panic::PanicHookInfo;

use tracing::{Subscriber, error};
use tracing_subscriber::filter::{Targets, filter_fn};
use tracing_subscriber::fmt::{self, MakeWriter};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::SettingError;

/// The log filter: a level, or pairs of a module's path and a level.
pub const RUST_LOG: &str = "RUST_LOG";

/// Starts logging to standard output, with a filter like `info` or `login_etl::store=debug`; the
/// default is `info`.
///
/// # Errors
///
/// [`SettingError`] if the filter is not one. Logging has started all the same, at `info`.
pub fn start(filter: Option<&str>) -> Result<(), SettingError> {
    let parsed: Result<Targets, _> = filter.unwrap_or("info").parse();
    let valid = parsed.is_ok();
    let filter = parsed.unwrap_or_else(|_| Targets::new().with_default(tracing::Level::INFO));
    tracing_subscriber::registry().with(lines(filter, std::io::stdout)).init();
    std::panic::set_hook(Box::new(log_panic));
    if valid {
        return Ok(());
    }
    Err(SettingError::Invalid { variable: RUST_LOG, problem: "is not a log filter" })
}

/// The log: this crate's events that pass the filter, each a JSON object on a line.
pub fn lines<S, W>(filter: Targets, writer: W) -> impl Layer<S>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    fmt::layer()
        .json()
        .flatten_event(true)
        .with_current_span(false)
        .with_span_list(false)
        .with_writer(writer)
        .with_filter(filter)
        .with_filter(filter_fn(|metadata| metadata.target().starts_with("login_etl")))
}

/// Logs what ends the process.
pub fn fatal(error: &dyn std::error::Error) {
    error!(error = %error, "cannot go on");
}

/// A panic's message may quote a value; its place does not.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    error!(place, "panicked");
}
