//! The analysts' schema: counts that are derived from `user_logins`, and kept up to date by [`roll_up`].
//!
//! A roll-up works in steps, each of them a transaction. A step counts some days anew and stores the counts together
//! with the number of entries that the ledger had of these days. A day whose number has changed since is counted anew
//! in the next roll-up. So a roll-up that ends anywhere loses nothing, and a repeated roll-up changes nothing.

use std::time::{Duration, Instant, SystemTime};

use postgres_protocol::escape::escape_identifier;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, IsolationLevel, Transaction};

use crate::deadline::Deadline;
use crate::ledger;
use crate::schema::beside::Beside;
use crate::schema::{self, RoleLogin, SchemaError};

const PREFLIGHT: &str = include_str!("analytics/preflight.sql");
const SCHEMA: &str = include_str!("analytics/schema.sql");
const FUNCTIONS: &str = include_str!("analytics/functions.sql");
const GRANTS: &str = include_str!("analytics/grants.sql");
const BEGIN: &str = include_str!("analytics/begin.sql");
const FIND_DAYS: &str = include_str!("analytics/find_days.sql");
const PICK_DAYS: &str = include_str!("analytics/pick_days.sql");
const ROLL_UP: &str = include_str!("analytics/roll_up.sql");
const FIND_RINGS: &str = include_str!("analytics/find_rings.sql");
const CREATE_API_LOGIN: &str = include_str!("analytics/create_api_login.sql");
const FINISH: &str = include_str!("analytics/finish.sql");

/// The role of the analysts' API.
pub const API_LOGIN: &str = "login_api";

/// The comment of the schema, by which the program recognises its own.
pub const MARKER: &str = "login-etl rollups, version 2";

/// Number of logins that the first step of a roll-up counts, if its newest day does not have more. The
/// step takes some seconds.
pub const LOGINS_PER_STEP: i64 = 300_000;

/// How many times larger the later steps may become. Their temporary tables take 1 KB of the server's disk for a login.
const MAX_GROWTH: i64 = 8;

/// How long a statement may take that creates something.
const CREATION_TIMEOUT: Duration = Duration::from_mins(1);

/// How long a step waits for the step of another run.
const LOCK_TIMEOUT: &str = "60s";

/// The result of a roll-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RollUp {
    /// Number of days that were counted.
    pub days: u64,
    /// Number of days that are left for the next roll-up.
    pub days_left: u64,
}

/// Returns the name of the analysts' schema that belongs to the schema of the logins.
#[must_use]
pub fn schema_name(logins_schema: &str) -> String {
    if logins_schema == "public" { "analytics".to_owned() } else { format!("{logins_schema}_analytics") }
}

/// Creates the analysts' schema beside the schema of the logins, if it does not exist. The counts are made by
/// [`roll_up`].
///
/// # Errors
///
/// [`SchemaError::NotReady`] if a schema of this name exists that this program has not made, if a right is missing, or
/// if the counts would show rows that `login_reader` may not see; and [`SchemaError::Postgres`]. Nothing was changed.
pub async fn create(client: &mut Client, logins_schema: &str) -> Result<(), SchemaError> {
    let schema = Beside { name: &schema_name(logins_schema), marker: MARKER, preflight: PREFLIGHT };
    let mut transaction = schema::begin(client, logins_schema).await?;
    if schema.create(&mut transaction, logins_schema).await? {
        begin_step(&transaction, logins_schema, CREATION_TIMEOUT).await?;
        transaction.batch_execute(SCHEMA).await?;
        transaction.batch_execute(FUNCTIONS).await?;
        transaction.batch_execute(schema::REVOKE_ALL).await?;
        transaction.batch_execute(GRANTS).await?;
    }
    Ok(transaction.commit().await?)
}

/// Brings the counts up to date as of `now`, the newest days first, until the deadline. The first step counts about
/// `logins_per_step` logins, and the next ones more while there is time.
///
/// Readers see the counts before a step or after it. Batches do not wait for a step: it only reads `user_logins` and the
/// ledger. Another run at the same time waits for the step.
///
/// # Errors
///
/// [`SchemaError::Busy`] if another run does not finish its step in time, and [`SchemaError::RollUp`]. The steps that
/// were committed before are kept.
pub async fn roll_up(
    client: &mut Client,
    logins_schema: &str,
    now: SystemTime,
    logins_per_step: i64,
    deadline: Deadline,
) -> Result<RollUp, SchemaError> {
    let mut done = RollUp::default();
    let mut logins = logins_per_step;
    loop {
        let started = Instant::now();
        let step =
            step(client, logins_schema, now, logins, deadline).await.map_err(|error| match error.code() {
                Some(code) if *code == SqlState::LOCK_NOT_AVAILABLE => SchemaError::Busy,
                Some(code) => SchemaError::RollUp { sqlstate: code.code().to_owned() },
                None => SchemaError::from(error),
            })?;
        done = RollUp { days: done.days + step.days, days_left: step.days_left };
        tracing::info!(
            days = step.days,
            days_left = step.days_left,
            elapsed_ms = started.elapsed().as_millis(),
            "days rolled up"
        );
        let elapsed = started.elapsed();
        // The next step may take longer than this step.
        if step.days == 0 || step.days_left == 0 || deadline.left() < elapsed * 2 {
            return Ok(done);
        }
        // Each step counts its tokens over all days, so few large steps are faster than many small ones.
        if deadline.left() > elapsed * 4 {
            logins = (logins * 2).min(logins_per_step * MAX_GROWTH);
        }
    }
}

/// Creates [`API_LOGIN`] if it does not exist, makes it a member of `login_reader`, and lets it log in. Its sessions look
/// for names in the analysts' schema first, and only read.
///
/// # Errors
///
/// [`SchemaError::NoIam`], [`SchemaError::MayNotGrantIam`], [`SchemaError::MayNotRevokeIam`] and
/// [`SchemaError::Postgres`]: nothing was changed.
pub async fn set_api_login(
    client: &mut Client,
    logins_schema: &str,
    login: &RoleLogin,
) -> Result<(), SchemaError> {
    let transaction = schema::begin(client, logins_schema).await?;
    begin_step(&transaction, logins_schema, CREATION_TIMEOUT).await?;
    transaction.batch_execute(CREATE_API_LOGIN).await?;
    schema::set_login(&transaction, API_LOGIN, login).await?;
    Ok(transaction.commit().await?)
}

async fn step(
    client: &mut Client,
    logins_schema: &str,
    now: SystemTime,
    logins_per_step: i64,
    deadline: Deadline,
) -> Result<RollUp, tokio_postgres::Error> {
    // The ledger and the logins must be read in the same snapshot.
    let builder = client.build_transaction().isolation_level(IsolationLevel::RepeatableRead).read_only(false);
    let transaction = builder.start().await?;
    // First of all: a snapshot from before the lock would not have the step that this run has waited for. These two
    // statements take no snapshot.
    let lock = format!(
        "SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'; LOCK TABLE {}.state IN SHARE ROW EXCLUSIVE MODE",
        escape_identifier(&schema_name(logins_schema)),
    );
    transaction.batch_execute(&lock).await?;
    begin_step(&transaction, logins_schema, deadline.left()).await?;
    let limits = "CREATE TEMPORARY TABLE limits (now timestamptz, today date, final date, max_logins bigint) ON COMMIT DROP";
    transaction.batch_execute(limits).await?;
    let limits = format!(
        "INSERT INTO pg_temp.limits SELECT now, today, final, $2 FROM ({}) AS limits",
        ledger::LIMITS
    );
    transaction.execute_typed(&limits, &[(&now, Type::TIMESTAMPTZ), (&logins_per_step, Type::INT8)]).await?;
    let days_are_known = "SELECT logins_without_date IS NOT NULL FROM state";
    if !transaction.query_typed(days_are_known, &[]).await?[0].try_get::<_, bool>(0)? {
        transaction.batch_execute(FIND_DAYS).await?;
    }
    // The ledger is read in the same snapshot as the logins: a batch is in both or in neither.
    let count_ledger = format!(
        "CREATE TEMPORARY TABLE ledger_day ON COMMIT DROP AS
         SELECT day, sum(entries)::bigint AS entries FROM ({}) AS counted GROUP BY day",
        ledger::COUNT_DAYS
    );
    transaction.batch_execute(&count_ledger).await?;
    transaction.batch_execute(PICK_DAYS).await?;
    let days: i64 =
        transaction.query_typed("SELECT count(*) FROM pg_temp.picked", &[]).await?[0].try_get(0)?;
    if days > 0 {
        transaction.batch_execute(ROLL_UP).await?;
        transaction.batch_execute(FIND_RINGS).await?;
    }
    transaction.batch_execute(FINISH).await?;
    let days_left: i32 = transaction.query_typed("SELECT days_left FROM state", &[]).await?[0].try_get(0)?;
    transaction.commit().await?;
    Ok(RollUp { days: days.unsigned_abs(), days_left: days_left.unsigned_abs().into() })
}

async fn begin_step(
    transaction: &Transaction<'_>,
    logins_schema: &str,
    time_limit: Duration,
) -> Result<(), tokio_postgres::Error> {
    let schema = schema_name(logins_schema);
    let time_limit = format!("{}ms", time_limit.as_millis().clamp(1, i32::MAX as u128));
    let parameters =
        [(&schema as _, Type::TEXT), (&logins_schema as _, Type::TEXT), (&time_limit as _, Type::TEXT)];
    transaction.execute_typed(BEGIN, &parameters).await.map(drop)
}
