//! The vault's broker: an executable for Lambda's `provided` runtimes.

use std::process::ExitCode;

use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use login_etl::{memory, telemetry};
use login_etl_vault::program::Program;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    telemetry::exit_code(serve().await)
}

async fn serve() -> Result<(), Error> {
    telemetry::start(environment)?;
    memory::keep_private()?;
    let program = Program::start(environment).await;
    let handle = async |event: LambdaEvent<_>| program.handle(event, environment).await;
    Box::pin(run(service_fn(handle))).await
}

fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
