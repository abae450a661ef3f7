//! Brings the database's schema up to date, and drops old entries of the ledger.
//!
//! It takes the database's settings as the function does, and a role that may create tables and
//! roles.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use login_etl::config::{DatabaseSettings, Settings, StartError};
use login_etl::pii::Masker;
use login_etl::secrets::Secrets;
use login_etl::store::connect::{Connection, Connector};
use login_etl::{schema, telemetry};
use tracing::info;

/// The target of this program's log lines: those of `login_etl` alone are logged.
const LOG: &str = "login_etl::migrate";

/// Brings the schema of the login database up to date, and drops old entries of the ledger.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Accepts the salt that `SALT_SECRET_ID` holds now, after which tokens match no older row.
    AcceptSalt,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = match arguments.command {
        None => migrate().await,
        Some(Command::AcceptSalt) => accept_salt().await,
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            telemetry::fatal(&*error);
            ExitCode::FAILURE
        }
    }
}

async fn migrate() -> Result<(), Box<dyn std::error::Error>> {
    start_log()?;
    let secrets = Secrets::from_env().await;
    let mut connection = connect(DatabaseSettings::read(variable)?, secrets).await?;
    for migration in schema::migrate(connection.client_mut()).await? {
        info!(target: LOG, migration, "migration applied");
    }
    schema::prune(connection.client()).await?;
    info!(target: LOG, "the schema is up to date");
    Ok(())
}

async fn accept_salt() -> Result<(), Box<dyn std::error::Error>> {
    start_log()?;
    let settings = Settings::read(variable)?;
    let secrets = Secrets::from_env().await;
    let salt = secrets.salt(&settings.salt_secret_id).await?;
    let fingerprint = Masker::new(&salt).map_err(StartError::Salt)?.fingerprint();
    let mut connection = connect(settings.database, secrets).await?;
    let changed = schema::accept_salt(connection.client_mut(), &fingerprint).await?;
    info!(target: LOG, changed, "the salt is accepted");
    Ok(())
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn start_log() -> Result<(), Box<dyn std::error::Error>> {
    Ok(telemetry::start(variable)?)
}

async fn connect(
    settings: DatabaseSettings,
    secrets: Secrets,
) -> Result<Connection, Box<dyn std::error::Error>> {
    let connector = Connector::new(settings, secrets)?;
    Ok(connector.connect(&connector.config(false).await?).await?)
}
