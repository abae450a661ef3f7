//! Brings the database's schema and the writer's way to log in up to date, and drops old entries of the
//! ledger.
//!
//! It takes the database's settings as the function does, and a role that may create tables and
//! roles. As a Lambda function it does the same for every event: CloudFormation's, which it answers,
//! and any other, such as the daily one.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use lambda_runtime::{LambdaEvent, service_fn};
use login::pii::Masker;
use login_etl::aws::custom_resource::{Change, ChangeKind};
use login_etl::aws::secrets::{SecretError, Secrets};
use login_etl::config::{DatabaseSettings, Settings, StartError, WRITER_SECRET_ID, WriterLogin, is_set};
use login_etl::deadline::Deadline;
use login_etl::schema::{self, WRITER};
use login_etl::store::connect::{Connection, Connector};
use login_etl::telemetry;
use serde::Deserialize;
use serde_json::Value;
use tracing::{error, info};

/// The target of this program's log lines: those of `login_etl` alone are logged.
const LOG: &str = "login_etl::migrate";

/// Set by Lambda, for whatever it starts.
const RUNTIME_API: &str = "AWS_LAMBDA_RUNTIME_API";

type Outcome = Result<(), lambda_runtime::Error>;

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
        None if variable(RUNTIME_API).is_some() => serve().await,
        None => start_and_migrate().await,
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

async fn start_and_migrate() -> Outcome {
    start_log()?;
    migrate().await
}

async fn serve() -> Outcome {
    start_log()?;
    Box::pin(lambda_runtime::run(service_fn(handle))).await
}

/// Handles one event. What is wrong with the settings comes out here and not at the start, so that
/// CloudFormation is told, and does not wait for an answer in vain.
async fn handle(event: LambdaEvent<Value>) -> Outcome {
    let deadline = Deadline::before(event.context.deadline());
    if event.payload.get("RequestType").is_none() {
        return within(deadline).await;
    }
    // The parser's error may quote what it refuses.
    let change = Change::deserialize(event.payload).map_err(|_| "the event is not CloudFormation's")?;
    let outcome = match change.kind {
        ChangeKind::Create | ChangeKind::Update => within(deadline).await,
        // The data are not the stack's to delete.
        ChangeKind::Delete => Ok(()),
    };
    if let Err(error) = &outcome {
        error!(target: LOG, error = %error, "the deployment is refused");
    }
    Ok(change.answer(outcome).await?)
}

async fn within(deadline: Deadline) -> Outcome {
    deadline.bound(Box::pin(migrate())).await?
}

async fn migrate() -> Outcome {
    let secrets = Secrets::from_env().await;
    let mut connection = connect(DatabaseSettings::read(variable)?, secrets.clone()).await?;
    for migration in schema::migrate(connection.client_mut()).await? {
        info!(target: LOG, migration, "migration applied");
    }
    match WriterLogin::read(variable)? {
        WriterLogin::Unchanged => {}
        WriterLogin::Iam => schema::let_writer_in_by_iam(connection.client()).await?,
        WriterLogin::Password { secret_id } => {
            let writer = secrets.credentials(WRITER_SECRET_ID, &secret_id).await?;
            if writer.username != WRITER {
                let problem = "the username in the secret is not login_writer";
                return Err(SecretError::WrongShape { setting: WRITER_SECRET_ID, problem }.into());
            }
            schema::let_writer_in_by_password(connection.client(), &writer.password).await?;
        }
    }
    schema::prune(connection.client()).await?;
    info!(target: LOG, "the schema is up to date");
    Ok(())
}

async fn accept_salt() -> Outcome {
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

/// The value of an environment variable; one that is set to nothing is not set.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(is_set)
}

fn start_log() -> Outcome {
    Ok(telemetry::start(variable)?)
}

async fn connect(settings: DatabaseSettings, secrets: Secrets) -> Result<Connection, lambda_runtime::Error> {
    let connector = Connector::new(settings, secrets)?;
    Ok(connector.connect(&connector.config(false).await?).await?)
}
