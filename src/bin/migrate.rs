//! Brings the database's schema up to date, and drops old entries of the ledger.
//!
//! It takes the database's settings as the function does, and a role that may create tables and
//! roles.

use std::process::ExitCode;

use login_etl::config::DatabaseSettings;
use login_etl::secrets::Secrets;
use login_etl::store::connect::Connector;
use login_etl::{schema, telemetry};
use tracing::info;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match migrate().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            telemetry::fatal(&*error);
            ExitCode::FAILURE
        }
    }
}

async fn migrate() -> Result<(), Box<dyn std::error::Error>> {
    let variable = |name: &str| std::env::var(name).ok();
    telemetry::start(variable(telemetry::RUST_LOG).as_deref())?;
    let connector = Connector::new(DatabaseSettings::read(variable)?, Secrets::from_env().await)?;
    let mut connection = connector.connect(&connector.config(false).await?).await?;
    for migration in schema::migrate(connection.client_mut()).await? {
        info!(target: "login_etl::migrate", migration, "migration applied");
    }
    schema::prune(connection.client()).await?;
    info!(target: "login_etl::migrate", "the schema is up to date");
    Ok(())
}
