//! The ingest function: an executable for Lambda's `provided` runtimes.

use std::process::ExitCode;

use lambda_runtime::Error;
use login_etl::config::Settings;
use login_etl::handler::Ingest;
use login_etl::runtime::serve;
use login_etl::telemetry;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            telemetry::startup_failed(&*error);
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Error> {
    let environment = |name: &str| std::env::var(name).ok();
    telemetry::start(environment)?;
    keep_memory_private()?;
    let ingest = Ingest::start(Settings::read(environment)?).await?;
    serve(ingest).await
}

/// Keeps the process's memory, which holds raw values and the salt, out of core files and debuggers.
#[cfg(target_os = "linux")]
fn keep_memory_private() -> std::io::Result<()> {
    use rustix::process::{DumpableBehavior, set_dumpable_behavior};
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}

/// Does nothing: functions are deployed on Linux only.
#[cfg(not(target_os = "linux"))]
fn keep_memory_private() -> std::io::Result<()> {
    Ok(())
}
