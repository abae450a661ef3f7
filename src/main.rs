//! The ingest function: an executable for Lambda's `provided` runtimes.

use std::process::ExitCode;

use lambda_runtime::Error;
use login_etl::config::Settings;
use login_etl::handler::Ingest;
use login_etl::memory;
use login_etl::runtime::serve;
use login_etl::telemetry;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    telemetry::exit_code(run().await)
}

async fn run() -> Result<(), Error> {
    let environment = |name: &str| std::env::var(name).ok();
    telemetry::start(environment)?;
    memory::keep_private()?;
    let settings = Settings::read(environment)?;
    let salt_secret_id = settings.salt_secret_id.clone();
    let ingest = Ingest::start(settings).await?;
    serve(ingest, &salt_secret_id).await
}
