//! The export: an executable for Lambda's `provided` runtimes. Elsewhere it exports once, and ends.

use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use lambda_runtime::{Error, LambdaEvent, service_fn};
use login_etl::aws::secrets::Secrets;
use login_etl::config::AWS_LAMBDA_LOG_FORMAT;
use login_etl::deadline::Deadline;
use login_etl::store::connect::Connector;
use login_etl::store::tls::PendingTls;
use login_etl::telemetry::metrics::{Level, LogLine, MetricName, MetricValue};
use login_etl::{memory, telemetry};
use login_etl_export::bucket::Bucket;
use login_etl_export::error::RunError;
use login_etl_export::run::{self, Report};
use login_etl_export::session::Schemas;
use login_etl_export::settings::{RUNTIME_API, Settings};
use serde_json::Value;
use tokio_postgres::Client;

/// The target of this program's log lines. Only targets within `login_etl` are logged.
const LOG_TARGET: &str = "login_etl_export";

/// How long a run in Lambda waits for a database that is starting, such as a paused Aurora database.
const PATIENCE: Duration = Duration::from_secs(90);

/// The time for a run that a person starts at a terminal.
const UNLIMITED: Duration = Duration::from_hours(24 * 7);

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match start().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(target: LOG_TARGET, error = %error, "the export failed");
            ExitCode::FAILURE
        }
    }
}

async fn start() -> Result<(), Error> {
    let in_lambda = environment(RUNTIME_API).is_some();
    // At a terminal, the log is the output.
    let text = |name: &str| (name == AWS_LAMBDA_LOG_FORMAT && !in_lambda).then(|| "Text".to_owned());
    telemetry::start(|name| environment(name).or_else(|| text(name)))?;
    memory::keep_private()?;
    if in_lambda { Box::pin(lambda_runtime::run(service_fn(handle))).await } else { export_once().await }
}

async fn export_once() -> Result<(), Error> {
    let Report { summary, error, .. } = export(Deadline::within(UNLIMITED)).await;
    tracing::info!(target: LOG_TARGET, days = summary.days, rows = summary.rows, days_left = summary.days_left, "exported");
    error.map_or(Ok(()), |error| Err(error.into()))
}

/// Exports, whatever the event holds, and returns what was done.
async fn handle(event: LambdaEvent<Value>) -> Result<Value, Error> {
    let started = Instant::now();
    let Report { summary, failures, error } = export(Deadline::before(event.context.deadline())).await;
    LogLine {
        level: if error.is_none() { Level::Info } else { Level::Error },
        message: "exported",
        request_id: &event.context.request_id,
        function: &event.context.env_config.function_name,
        texts: &[],
        metrics: &[
            (MetricName::ExportedDays, MetricValue::Count(summary.days)),
            (MetricName::ExportedRows, MetricValue::Count(summary.rows)),
            (MetricName::ExportFailures, MetricValue::Count(failures)),
            (MetricName::DaysLeft, MetricValue::Count(summary.days_left)),
            (MetricName::ElapsedMs, MetricValue::Time(started.elapsed())),
        ],
        second_dimension: None,
    }
    .write();
    match error {
        None => Ok(serde_json::to_value(summary)?),
        // The schedule reads no answer, so only the log says why the run failed.
        Some(error) => {
            tracing::error!(target: LOG_TARGET, error = %error, "the export failed");
            Err(error.into())
        }
    }
}

async fn export(deadline: Deadline) -> Report {
    match Box::pin(connect()).await {
        Ok((mut client, connector, schemas, bucket)) => {
            let (now, second) = (SystemTime::now(), connect_again(&connector));
            Box::pin(run::run(&mut client, second, &schemas, &bucket, now, deadline)).await
        }
        Err(error) => error.into(),
    }
}

/// Connects for this run only: a connection would not survive the hour until the next run.
async fn connect() -> Result<(Client, Connector, Schemas, Bucket), RunError> {
    let Settings { database, bucket, in_lambda } = Settings::read(environment)?;
    let schemas = Schemas::of(&database.schema);
    let secrets = Secrets::from_env().await;
    let bucket = Bucket::new(&secrets, bucket);
    let tls = PendingTls::start(&database)?;
    let connector = Connector::new(database, tls, secrets);
    let patience = if in_lambda { PATIENCE } else { Duration::ZERO };
    let connection = connector.connect_within(&connector.config().await?, patience).await?;
    Ok((connection.into_client(), connector, schemas, bucket))
}

/// Opens the second connection, if Postgres has one to spare.
async fn connect_again(connector: &Connector) -> Option<Client> {
    let connected = async { Ok::<_, RunError>(connector.connect(&connector.config().await?).await?) };
    match connected.await {
        Ok(connection) => Some(connection.into_client()),
        Err(error) => {
            tracing::warn!(target: LOG_TARGET, error = %error, "no second connection; the run takes longer");
            None
        }
    }
}

fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
