//! The analysts' API: an executable for Lambda's `provided` runtimes, and a plain server elsewhere.

use std::process::ExitCode;

use lambda_http::Error;
use login_etl::aws::secrets::Secrets;
use login_etl::store::tls::PendingTls;
use login_etl::{memory, telemetry};
use login_etl_api::authenticator::Authenticator;
use login_etl_api::database::Database;
use login_etl_api::router::router;
use login_etl_api::settings::{Runtime, Settings};
use login_etl_api::{lambda, server};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    telemetry::exit_code(run().await)
}

async fn run() -> Result<(), Error> {
    let environment = |name: &str| std::env::var(name).ok();
    telemetry::start(environment)?;
    memory::keep_private()?;
    let settings = Settings::read(environment)?;
    // First, because the SDK takes milliseconds to read the certificates that it trusts.
    let tls = PendingTls::start(&settings.database)?;
    let database = Database::new(settings.database, tls, Secrets::from_env().await, settings.connections);
    database.warm_up().await;
    let router = router(database, Authenticator::new(settings.load_balancer));
    match settings.runtime {
        Runtime::Lambda => lambda::serve(router).await,
        Runtime::Server(address) => Ok(server::serve(address, router).await?),
    }
}
