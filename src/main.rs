//! The ingest function: an executable for Lambda's `provided` runtimes.

use std::process::ExitCode;

use lambda_runtime::{LambdaEvent, Runtime, service_fn};
use login_etl::config::Settings;
use login_etl::handler::Ingest;
use login_etl::runtime::{self, PayloadLayer};
use login_etl::telemetry;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match serve().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            telemetry::fatal(&*error);
            ExitCode::FAILURE
        }
    }
}

async fn serve() -> Result<(), lambda_runtime::Error> {
    let variable = |name: &str| std::env::var(name).ok();
    telemetry::start(variable)?;
    keep_memory_private()?;
    let ingest = Ingest::start(Settings::read(variable)?).await?;
    let handle = async |event: LambdaEvent<()>| ingest.handle(&runtime::current(), &event.context).await;
    // Boxed, since it holds the future of every stage, many kilobytes.
    Box::pin(Runtime::new(service_fn(handle)).layer(PayloadLayer).run()).await
}

/// Keeps the memory, in which raw values and the salt are, out of core files, and from debuggers.
#[cfg(target_os = "linux")]
fn keep_memory_private() -> std::io::Result<()> {
    use rustix::process::{DumpableBehavior, set_dumpable_behavior};
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}

/// Does nothing where no function is deployed.
#[cfg(not(target_os = "linux"))]
fn keep_memory_private() -> std::io::Result<()> {
    Ok(())
}
