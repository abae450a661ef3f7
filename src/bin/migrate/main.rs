//! Applies the migrations, sets how `login_writer` and `login_analyst` log in, and drops old entries of the ledger.
//!
//! It reads the same settings of the database as the ingest function, but logs in as a role that may create tables and
//! roles. Lambda runs it for the events in [`event`]. After the daily event it also counts the users with many tokens.
//! With `ANALYSTS=true` it keeps up the analysts' schema, with `EXPORT=true` the schema of the export, with
//! `VAULT_PUBLIC_KEY` the vault. With `VAULT_ERASURE_BUCKET` it first repeats the erasures that a restored backup does
//! not have. With `LOGIN_RETENTION_DAYS` the daily run drops old logins. A deployment and a
//! rotation drop nothing, because a locked ledger must not fail them. A `Delete` request of CloudFormation changes
//! nothing.

use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use clap::{Parser, Subcommand};
use lambda_runtime::{Context, LambdaEvent, service_fn};
use login::pii::{Masker, SaltFingerprint};
use login_etl::analytics::{self, API_LOGIN, LOGINS_PER_STEP, RollUp};
use login_etl::aws::custom_resource::{CustomResourceRequest, RequestType, ResourceData};
use login_etl::aws::secrets::{SecretError, Secrets};
use login_etl::config::{
    self, API_SECRET_ID, DatabaseSettings, EXPORT_SECRET_ID, READER_SECRET_ID, SALT_SECRET_ID, SettingError,
    Settings, VAULT_ERASURE_BUCKET, VAULT_PUBLIC_KEY, VAULT_SECRET_ID, VaultPublicKey, WRITER_SECRET_ID,
    WriterRoleLogin,
};
use login_etl::deadline::Deadline;
use login_etl::erasures::ErasureList;
use login_etl::error::StartError;
use login_etl::lake::{self, EXPORT_LOGIN};
use login_etl::memory;
use login_etl::partitions::{self, DroppedLogins};
use login_etl::resalt::{self, Resalted};
use login_etl::schema::vault::replay::{self, NotReplayed, Replayed};
use login_etl::schema::vault::{self, Folded, ROWS_PER_STEP, VAULT_LOGIN};
use login_etl::schema::{self, Finding, READER_LOGIN, RoleLogin, SchemaStatus, WRITER_ROLE, WriterLogin};
use login_etl::store::connect::{Connection, Connector};
use login_etl::store::tls::PendingTls;
use login_etl::telemetry;
use login_etl::telemetry::metrics::{Level, LogLine, MetricName, MetricValue};
use secrecy::SecretString;
use serde_json::{Value, json};
use tracing::{error, info, warn};

use self::event::MigrateEvent;

mod event;

/// The target of this program's log lines. Only targets within `login_etl` are logged.
const LOG_TARGET: &str = "login_etl::migrate";

/// Lambda sets it for every program that it starts.
const RUNTIME_API: &str = "AWS_LAMBDA_RUNTIME_API";

/// How long a run in Lambda waits for a database that is starting. A paused Aurora database takes about 15 s, or 30 s
/// and more after a day of sleep. The rest of the 300 s is for the migrations.
const PATIENCE: Duration = Duration::from_secs(90);

/// The time for a roll-up that a person starts at a terminal.
const UNLIMITED: Duration = Duration::from_hours(24);

type Outcome<T = ()> = Result<T, lambda_runtime::Error>;

/// Applies the migrations of the login database, and drops old entries of the ledger.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Accepts the salt in `SALT_SECRET_ID`. New rows cannot be joined with older rows after that.
    AcceptSalt,
    /// Replaces all tokens by those of the last salt in `SALT_SECRET_ID`, and accepts this salt.
    Resalt,
    /// Accepts the key in `VAULT_PUBLIC_KEY`. Batches that are sealed to another key are refused after that.
    AcceptVaultKey,
}

/// Whether to drop old entries of the ledger.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Prune {
    Yes,
    No,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = match arguments.command {
        None if environment(RUNTIME_API).is_some() => serve().await,
        None => start_and_migrate().await,
        Some(Command::AcceptSalt) => accept_salt().await,
        Some(Command::Resalt) => start_and_resalt().await,
        Some(Command::AcceptVaultKey) => start_and_accept_vault_key().await,
    };
    telemetry::exit_code(outcome)
}

async fn start_and_migrate() -> Outcome {
    start()?;
    migrate(Prune::Yes).await?;
    replay_erasures(Deadline::within(UNLIMITED)).await?;
    let_reader_in().await?;
    if config::export(environment)? {
        prepare_export().await?;
    }
    if let Some(key) = config::vault_public_key(environment)? {
        prepare_vault(&key).await?;
        fold(Deadline::within(UNLIMITED)).await?;
    }
    if config::analysts(environment)? {
        prepare_analysts().await?;
        roll_up(Deadline::within(UNLIMITED)).await?;
    }
    drop_old_logins().await
}

async fn serve() -> Outcome {
    start()?;
    Box::pin(lambda_runtime::run(service_fn(handle))).await
}

/// Handles one event, and returns the answer. The settings are read here and not at the start: CloudFormation then
/// receives their errors, and does not wait for a response until its timeout.
async fn handle(event: LambdaEvent<Value>) -> Outcome<Value> {
    let deadline = Deadline::before(event.context.deadline());
    let outcome = match MigrateEvent::read(event.payload) {
        Ok(migrate_event) => run(migrate_event, &event.context, deadline).await,
        Err(error) => Err(error.into()),
    };
    // The schedule reads no answer, so only the log says why the daily run failed.
    if let Err(error) = &outcome {
        error!(target: LOG_TARGET, error = %error, "the run failed");
    }
    outcome
}

async fn run(event: MigrateEvent, context: &Context, deadline: Deadline) -> Outcome<Value> {
    match event {
        MigrateEvent::Deployment(request) => deploy(&request, deadline).await.map(|()| Value::Null),
        MigrateEvent::Daily => {
            migrate_within(deadline, Prune::Yes).await?;
            // Without it, nothing is folded, and nobody gets a login. The rest of the run does not depend on it.
            let replayed = replay_within(deadline).await;
            if let Err(error) = &replayed {
                error!(target: LOG_TARGET, error = %error, "the erasure list was not replayed");
            }
            report_users_with_many_tokens(context, deadline).await;
            let folded = match config::vault_public_key(environment)? {
                Some(key) if replayed.is_ok() => fold_within(&key, context, deadline).await,
                _ => Ok(()),
            };
            if let Err(error) = &folded {
                error!(target: LOG_TARGET, error = %error, "the vault was not folded");
            }
            // Only reported, because the rest of the run has succeeded. The hourly roll-up repeats the error.
            if config::analysts(environment)?
                && let Err(error) = roll_up_within(context, deadline).await
            {
                error!(target: LOG_TARGET, error = %error, "the roll-up failed");
            }
            // Last, because a day stays until its roll-up is closed.
            deadline.timeout(Box::pin(drop_old_logins())).await??;
            // After the rest of the run: nothing else repeats this error, and the values would pile up.
            replayed?;
            folded.map(|()| Value::Null)
        }
        MigrateEvent::Rotate => prepare_within(deadline).await.map(|()| Value::Null),
        MigrateEvent::RollUp => {
            if !config::analysts(environment)? {
                let problem = "is not true, so there is nothing to roll up";
                return Err(SettingError::Invalid { variable: config::ANALYSTS, problem }.into());
            }
            let RollUp { days, days_left } = roll_up_within(context, deadline).await?;
            Ok(json!({ "days": days, "days_left": days_left }))
        }
        MigrateEvent::Status => {
            let status = deadline.timeout(Box::pin(status())).await??;
            Ok(serde_json::to_value(status)?)
        }
        MigrateEvent::AcceptSalt(fingerprint) => {
            let settings = DatabaseSettings::read(environment)?;
            let secrets = Secrets::from_env().await;
            let changed =
                deadline.timeout(Box::pin(accept_fingerprint(settings, secrets, &fingerprint))).await??;
            Ok(json!({ "changed": changed }))
        }
        MigrateEvent::Resalt => {
            let resalted = deadline.timeout(Box::pin(resalt(deadline))).await??;
            Ok(serde_json::to_value(resalted)?)
        }
        MigrateEvent::AcceptVaultKey(key) => {
            let changed = deadline.timeout(Box::pin(accept_vault_key(key))).await??;
            Ok(json!({ "changed": changed }))
        }
        MigrateEvent::ReplayErasures => {
            let replayed = deadline.timeout(Box::pin(replay_erasures(deadline))).await??;
            let Replayed { listed, erasures, tokens, rows, .. } =
                replayed.ok_or(SettingError::Missing(VAULT_ERASURE_BUCKET))?;
            Ok(json!({ "listed": listed, "erasures": erasures, "tokens": tokens, "rows": rows }))
        }
    }
}

async fn deploy(request: &CustomResourceRequest, deadline: Deadline) -> Outcome {
    let outcome = match request.request_type {
        RequestType::Create | RequestType::Update => prepare_within(deadline).await,
        // The data outlive the stack.
        RequestType::Delete => Ok(()),
    };
    if let Err(error) = &outcome {
        error!(target: LOG_TARGET, error = %error, "the deployment failed");
    }
    Ok(request.respond(outcome.map(|()| ResourceData::new()), environment).await?)
}

async fn status() -> Outcome<SchemaStatus> {
    let settings = DatabaseSettings::read(environment)?;
    let schema = settings.schema.clone();
    let mut connection = connect(settings, Secrets::from_env().await).await?;
    Ok(schema::status(connection.client_mut(), &schema).await?)
}

async fn migrate_within(deadline: Deadline, prune: Prune) -> Outcome {
    deadline.timeout(Box::pin(migrate(prune))).await?
}

async fn migrate(prune: Prune) -> Outcome {
    let secrets = Secrets::from_env().await;
    let settings = DatabaseSettings::read(environment)?;
    let schema = settings.schema.clone();
    let mut connection = connect(settings, secrets.clone()).await?;
    let writer_login = writer_login(&secrets).await?;
    // A deployment must fail for a wrong setting, and not the next daily run.
    config::login_retention_days(environment)?;
    let migrated = schema::migrate(connection.client_mut(), &schema, &writer_login).await?;
    for migration in migrated.migrations {
        info!(target: LOG_TARGET, migration, "migration applied");
    }
    let missing_days = partitions::add_days(connection.client_mut(), &schema, SystemTime::now()).await?;
    for Finding { problem, remedy } in migrated.warnings.into_iter().chain(missing_days) {
        warn!(target: LOG_TARGET, problem, remedy, "the database may cause failures");
    }
    info!(target: LOG_TARGET, "the schema is up to date");
    if prune == Prune::Yes {
        schema::prune(connection.client_mut(), &schema).await?;
    }
    Ok(())
}

/// As [`replay_list`]. An erasure that is left out is an error, after the others were replayed.
async fn replay_erasures(deadline: Deadline) -> Outcome<Option<Replayed>> {
    Ok(replay_list(deadline).await?.map(Replayed::complete).transpose()?)
}

/// Repeats the erasures of the erasure list that the database does not have. Returns what was replayed, and `None`
/// without a list.
async fn replay_list(deadline: Deadline) -> Outcome<Option<Replayed>> {
    let Some(bucket) = config::erasure_bucket(environment) else { return Ok(None) };
    let secrets = Secrets::from_env().await;
    let list = ErasureList::new(&secrets, &bucket);
    let settings = DatabaseSettings::read(environment)?;
    let schema = settings.schema.clone();
    let mut connection = connect(settings, secrets).await?;
    let replayed = replay::replay(connection.client_mut(), &schema, &list, deadline).await?;
    let Replayed { listed, erasures, tokens, rows, left } = &replayed;
    info!(target: LOG_TARGET, listed, erasures, tokens, rows, left = left.len(), "the erasure list is replayed");
    Ok(Some(replayed))
}

/// Replays, and then lets those in who may read the logins.
async fn replay_within(deadline: Deadline) -> Outcome {
    deadline.timeout(Box::pin(replay_erasures(deadline))).await??;
    deadline.timeout(Box::pin(let_reader_in())).await?
}

/// Sets the login of the analysts, after the erasures that a restored backup does not have.
async fn let_reader_in() -> Outcome {
    let Some(secret_id) = config::secret_id(environment, READER_SECRET_ID) else { return Ok(()) };
    let secrets = Secrets::from_env().await;
    let settings = DatabaseSettings::read(environment)?;
    let schema = settings.schema.clone();
    let mut connection = connect(settings, secrets.clone()).await?;
    let problem = "the username in the secret is not login_analyst";
    let password = password_of(&secrets, READER_SECRET_ID, &secret_id, READER_LOGIN, problem).await?;
    Ok(schema::set_reader_login(connection.client_mut(), &schema, &password).await?)
}

/// Drops the logins that `LOGIN_RETENTION_DAYS` no longer keeps.
async fn drop_old_logins() -> Outcome {
    let Some(days) = config::login_retention_days(environment)? else { return Ok(()) };
    let settings = DatabaseSettings::read(environment)?;
    let schema = settings.schema.clone();
    let mut connection = connect(settings, Secrets::from_env().await).await?;
    let dropped = partitions::drop_old(connection.client_mut(), &schema, days, SystemTime::now()).await?;
    let DroppedLogins { partitions, rows, warnings } = dropped;
    for Finding { problem, remedy } in warnings {
        warn!(target: LOG_TARGET, problem, remedy, "old logins were kept");
    }
    info!(target: LOG_TARGET, partitions = partitions.join(" "), rows, "old logins dropped");
    Ok(())
}

/// Brings everything up to date except the counts, which may take long.
async fn prepare_within(deadline: Deadline) -> Outcome {
    migrate_within(deadline, Prune::No).await?;
    replay_within(deadline).await?;
    if config::analysts(environment)? {
        deadline.timeout(Box::pin(prepare_analysts())).await??;
    }
    if config::export(environment)? {
        deadline.timeout(Box::pin(prepare_export())).await??;
    }
    if let Some(key) = config::vault_public_key(environment)? {
        deadline.timeout(Box::pin(prepare_vault(&key))).await??;
    }
    Ok(())
}

/// Creates the analysts' schema and the login of their API.
async fn prepare_analysts() -> Outcome {
    let secrets = Secrets::from_env().await;
    let settings = DatabaseSettings::read(environment)?;
    let schema = settings.schema.clone();
    let mut connection = connect(settings, secrets.clone()).await?;
    analytics::create(connection.client_mut(), &schema).await?;
    let problem = "the username in the secret is not login_api";
    if let Some(login) = role_login(&secrets, API_SECRET_ID, API_LOGIN, problem).await? {
        analytics::set_api_login(connection.client_mut(), &schema, &login).await?;
    }
    info!(target: LOG_TARGET, "the analysts' schema is ready");
    Ok(())
}

/// Creates the schema and the login of the export.
async fn prepare_export() -> Outcome {
    let secrets = Secrets::from_env().await;
    let settings = DatabaseSettings::read(environment)?;
    let schema = settings.schema.clone();
    let mut connection = connect(settings, secrets.clone()).await?;
    lake::create(connection.client_mut(), &schema).await?;
    let problem = "the username in the secret is not login_export";
    if let Some(login) = role_login(&secrets, EXPORT_SECRET_ID, EXPORT_LOGIN, problem).await? {
        lake::set_export_login(connection.client_mut(), &schema, &login).await?;
    }
    info!(target: LOG_TARGET, "the schema of the export is ready");
    Ok(())
}

/// Pins the key of the vault, unless one is pinned, and creates the login of the broker.
async fn prepare_vault(key: &VaultPublicKey) -> Outcome {
    let kms_key = config::vault_kms_key(environment)?;
    let secrets = Secrets::from_env().await;
    let settings = DatabaseSettings::read(environment)?;
    let schema = settings.schema.clone();
    let mut connection = connect(settings, secrets.clone()).await?;
    let is_new = vault::create(connection.client_mut(), &schema, key, &kms_key).await?;
    let problem = "the username in the secret is not login_vault";
    if let Some(login) = role_login(&secrets, VAULT_SECRET_ID, VAULT_LOGIN, problem).await? {
        vault::set_vault_login(connection.client_mut(), &schema, &login).await?;
    }
    info!(target: LOG_TARGET, key_is_new = is_new, "the vault is ready");
    Ok(())
}

/// Folds what the batches sealed, and writes the metrics of the fold.
async fn fold_within(key: &VaultPublicKey, context: &Context, deadline: Deadline) -> Outcome {
    let started = Instant::now();
    let work = async {
        prepare_vault(key).await?;
        // The rest of the time is for the roll-up.
        fold(deadline.halved()).await
    };
    let folded = deadline.timeout(Box::pin(work)).await??;
    LogLine {
        level: Level::Info,
        message: "vault folded",
        request_id: &context.request_id,
        function: &context.env_config.function_name,
        texts: &[],
        metrics: &[
            (MetricName::VaultRowsFolded, MetricValue::Count(folded.rows)),
            (MetricName::VaultRowsLeft, MetricValue::Count(folded.rows_left)),
            (MetricName::VaultOldestMs, MetricValue::Time(folded.oldest)),
            (MetricName::ElapsedMs, MetricValue::Time(started.elapsed())),
        ],
        second_dimension: None,
    }
    .write();
    Ok(())
}

async fn fold(deadline: Deadline) -> Outcome<Folded> {
    let settings = DatabaseSettings::read(environment)?;
    let schema = settings.schema.clone();
    let mut connection = connect(settings, Secrets::from_env().await).await?;
    Ok(vault::fold(connection.client_mut(), &schema, ROWS_PER_STEP, deadline).await?)
}

async fn roll_up(deadline: Deadline) -> Outcome<RollUp> {
    let settings = DatabaseSettings::read(environment)?;
    let schema = settings.schema.clone();
    let mut connection = connect(settings, Secrets::from_env().await).await?;
    let now = SystemTime::now();
    Ok(analytics::roll_up(connection.client_mut(), &schema, now, LOGINS_PER_STEP, deadline).await?)
}

/// Brings the analysts' schema up to date, and writes the metrics of the roll-up.
async fn roll_up_within(context: &Context, deadline: Deadline) -> Outcome<RollUp> {
    let started = Instant::now();
    let work = async {
        prepare_analysts().await?;
        roll_up(deadline).await
    };
    let rolled_up = deadline.timeout(Box::pin(work)).await??;
    LogLine {
        level: Level::Info,
        message: "rolled up",
        request_id: &context.request_id,
        function: &context.env_config.function_name,
        texts: &[],
        metrics: &[
            (MetricName::DaysRolledUp, MetricValue::Count(rolled_up.days)),
            (MetricName::DaysLeft, MetricValue::Count(rolled_up.days_left)),
            (MetricName::ElapsedMs, MetricValue::Time(started.elapsed())),
        ],
        second_dimension: None,
    }
    .write();
    Ok(rolled_up)
}

async fn writer_login(secrets: &Secrets) -> Result<WriterLogin, lambda_runtime::Error> {
    match WriterRoleLogin::read(environment)? {
        WriterRoleLogin::Unchanged => Ok(WriterLogin::Unchanged),
        WriterRoleLogin::Iam => Ok(WriterLogin::Iam),
        WriterRoleLogin::Password { secret_id } => {
            let problem = "the username in the secret is not login_writer";
            let password = password_of(secrets, WRITER_SECRET_ID, &secret_id, WRITER_ROLE, problem).await?;
            Ok(WriterLogin::Password(password))
        }
    }
}

/// Returns how a role beside `login_writer` shall log in: with the password of the secret that the setting names; without
/// this setting by IAM, if `login_writer` logs in by IAM. Otherwise its login stays as it is.
async fn role_login(
    secrets: &Secrets,
    setting: &'static str,
    role: &'static str,
    problem: &'static str,
) -> Outcome<Option<RoleLogin>> {
    let by_iam = WriterRoleLogin::read(environment)? == WriterRoleLogin::Iam;
    match config::secret_id(environment, setting) {
        Some(secret_id) => {
            let password = password_of(secrets, setting, &secret_id, role, problem).await?;
            Ok(Some(RoleLogin::Password(password)))
        }
        None => Ok(by_iam.then_some(RoleLogin::Iam)),
    }
}

/// Reads the password that `migrate` sets for a role, from the secret that a setting names. `problem` says that the
/// secret belongs to another role.
async fn password_of(
    secrets: &Secrets,
    setting: &'static str,
    secret_id: &str,
    role: &str,
    problem: &'static str,
) -> Result<SecretString, SecretError> {
    let credentials = secrets.credentials(setting, secret_id).await?;
    if credentials.username != role {
        return Err(SecretError::WrongShape { setting, problem });
    }
    Ok(credentials.password)
}

/// Writes the metric for the template's alarm `token-guesses`. A failed count only warns, because the rest of the run
/// has succeeded.
async fn report_users_with_many_tokens(context: &Context, deadline: Deadline) {
    match deadline.timeout(Box::pin(users_with_many_tokens())).await.unwrap_or_else(|late| Err(late.into())) {
        Ok(count) => LogLine {
            level: Level::Info,
            message: "tokens counted",
            request_id: &context.request_id,
            function: &context.env_config.function_name,
            texts: &[],
            metrics: &[(MetricName::UsersWithManyTokens, MetricValue::Count(count))],
            second_dimension: None,
        }
        .write(),
        Err(error) => warn!(target: LOG_TARGET, error = %error, "tokens were not counted"),
    }
}

async fn users_with_many_tokens() -> Result<u64, lambda_runtime::Error> {
    let settings = DatabaseSettings::read(environment)?;
    let schema = settings.schema.clone();
    let mut connection = connect(settings, Secrets::from_env().await).await?;
    Ok(schema::users_with_many_tokens(connection.client_mut(), &schema).await?)
}

async fn accept_salt() -> Outcome {
    start()?;
    let settings = Settings::read(environment)?;
    let secrets = Secrets::from_env().await;
    let maskers = secrets.salts(&settings.salt_secret_id).await?.maskers().map_err(StartError::Salt)?;
    let mut generations: Vec<_> = maskers.iter().map(Masker::salt_fingerprint).collect();
    let Some(salt_fingerprint) = generations.pop() else {
        unreachable!("there is a masker for each salt");
    };
    let accepted = status().await?.accepted_salt;
    if accepted.is_some_and(|accepted| generations.iter().any(|salt| salt.as_str() == accepted.fingerprint)) {
        return Err("the secret has the accepted salt and a later salt: run migrate resalt, which replaces the tokens".into());
    }
    accept_fingerprint(settings.database, secrets, &salt_fingerprint).await.map(drop)
}

/// Returns whether the salt differs from the salt that was accepted before.
async fn accept_fingerprint(
    settings: DatabaseSettings,
    secrets: Secrets,
    salt_fingerprint: &SaltFingerprint,
) -> Outcome<bool> {
    let schema = settings.schema.clone();
    let mut connection = connect(settings, secrets).await?;
    let changed = schema::accept_salt(connection.client_mut(), &schema, salt_fingerprint).await?;
    info!(target: LOG_TARGET, changed, fingerprint = salt_fingerprint.as_str(), "the salt is accepted");
    Ok(changed)
}

async fn start_and_resalt() -> Outcome {
    start()?;
    resalt(Deadline::within(UNLIMITED)).await.map(drop)
}

async fn resalt(deadline: Deadline) -> Outcome<Resalted> {
    let salt_secret_id =
        config::secret_id(environment, SALT_SECRET_ID).ok_or(SettingError::Missing(SALT_SECRET_ID))?;
    let settings = DatabaseSettings::read(environment)?;
    let schema = settings.schema.clone();
    let secrets = Secrets::from_env().await;
    let salts = secrets.salts(&salt_secret_id).await?;
    // Afterwards, the tokens in the list would be of another salt. Those that are of a later salt already, after a
    // restore, are replayed by the next run.
    if let Some(mut replayed) = replay_list(deadline).await? {
        replayed.left.retain(|left| left.reason != NotReplayed::OtherSalt);
        replayed.complete()?;
    }
    let mut reader = connect(DatabaseSettings::read(environment)?, secrets.clone()).await?;
    let mut writer = connect(settings, secrets).await?;
    let resalted =
        resalt::resalt(reader.client_mut(), writer.client_mut(), &schema, &salts, deadline).await?;
    let Resalted { done, rows, parts_left, others } = resalted;
    info!(target: LOG_TARGET, done, rows, parts_left, others, "the tokens are replaced");
    Ok(resalted)
}

async fn start_and_accept_vault_key() -> Outcome {
    start()?;
    accept_vault_key(None).await.map(drop)
}

/// Returns whether the key differs from the current key before. Without a key, it is that of the settings.
async fn accept_vault_key(key: Option<(VaultPublicKey, String)>) -> Outcome<bool> {
    let (key, kms_key) = if let Some(key) = key {
        key
    } else {
        let key = config::vault_public_key(environment)?.ok_or(SettingError::Missing(VAULT_PUBLIC_KEY))?;
        (key, config::vault_kms_key(environment)?)
    };
    let settings = DatabaseSettings::read(environment)?;
    let schema = settings.schema.clone();
    let mut connection = connect(settings, Secrets::from_env().await).await?;
    let changed = vault::accept_key(connection.client_mut(), &schema, &key, &kms_key).await?;
    info!(target: LOG_TARGET, changed, kms_key, "the key of the vault is accepted");
    Ok(changed)
}

fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Starts the log, and keeps the memory with the owner's password to this process.
fn start() -> Outcome {
    telemetry::start(environment)?;
    Ok(memory::keep_private()?)
}

/// Connects. In Lambda, this waits for a database that is starting; a person at a terminal can run the program again.
async fn connect(settings: DatabaseSettings, secrets: Secrets) -> Outcome<Connection> {
    let tls = PendingTls::start(&settings)?;
    let connector = Connector::new(settings, tls, secrets);
    let patience = if environment(RUNTIME_API).is_some() { PATIENCE } else { Duration::ZERO };
    Ok(connector.connect_within(&connector.config().await?, patience).await?)
}
