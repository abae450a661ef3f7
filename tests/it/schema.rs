//! Migrations: every older schema becomes the newest schema and loses nothing.

use std::path::Path;
use std::process::Command;

use std::time::Duration;

use login_etl::schema::{self, Migrated, SchemaError, WriterLogin};
use refinery::{Migration, Target};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::support::{Database, connect, superuser, unique_name, variable};

mod embedded {
    refinery::embed_migrations!("migrations");
}

/// The whole schema in one file, for readers.
const SCHEMA: &str = include_str!("../../migrations/schema.sql");

async fn migrate(admin: &mut Client) -> Result<Migrated, SchemaError> {
    schema::migrate(admin, "public", &WriterLogin::Unchanged).await
}

/// Creates a database with the schema of this version, as refinery's own runner recorded it until version 8; version
/// 0 is an empty database.
async fn database_at(version: i32) -> Client {
    named_database_at(&unique_name(), version).await
}

async fn named_database_at(name: &str, version: i32) -> Client {
    connect(&superuser()).await.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
    let mut admin = connect(superuser().dbname(name)).await;
    if version > 0 {
        let runner = embedded::migrations::runner().set_target(Target::Version(version));
        runner.run_async(&mut admin).await.unwrap();
    }
    admin
}

fn newest_version() -> i32 {
    newest_migration().version()
}

fn newest_migration() -> Migration {
    let runner = embedded::migrations::runner();
    runner.get_migrations().iter().max_by_key(|migration| migration.version()).unwrap().clone()
}

/// Returns the schema of a database as the server's own `pg_dump` writes it, without the history of migrations and
/// without the `\restrict` lines, which hold a random key.
fn dump(database: &str) -> Vec<String> {
    let server = superuser();
    let output = Command::new(Path::new(&variable("TEST_POSTGRES_BIN")).join("pg_dump"))
        .args(["--schema-only", "--exclude-table=*_schema_history|login_etl_migrations", database])
        .env("PGHOST", "localhost")
        .env("PGPORT", server.get_ports()[0].to_string())
        .env("PGUSER", server.get_user().unwrap())
        .env("PGPASSWORD", str::from_utf8(server.get_password().unwrap()).unwrap())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().filter(|line| !line.starts_with('\\')).map(ToOwned::to_owned).collect()
}

/// Returns the lines of `left` that `right` lacks: short enough to read in a failed assertion.
fn missing<'l>(left: &'l [String], right: &[String]) -> Vec<&'l str> {
    left.iter().filter(|line| !right.contains(line)).map(String::as_str).collect()
}

async fn user_ids(admin: &Client) -> Vec<String> {
    let sql = "SELECT user_id FROM user_logins ORDER BY user_id";
    admin.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn every_older_schema_is_upgraded_with_its_rows() {
    for version in 1..=newest_version() {
        let mut admin = database_at(version).await;
        admin.batch_execute("INSERT INTO user_logins (user_id) VALUES ('kept')").await.unwrap();

        let applied = migrate(&mut admin).await.unwrap().migrations;
        let repeated = migrate(&mut admin).await.unwrap().migrations;

        assert_eq!(applied.len(), usize::try_from(newest_version() - version).unwrap());
        assert_eq!(repeated, [""; 0]);
        assert_eq!(user_ids(&admin).await, ["kept"]);
    }
}

#[tokio::test]
async fn ledger_of_an_older_schema_still_counts() {
    let entry = "INSERT INTO processed_messages (slot, sent_at, message_id)
                 VALUES (9, '1970-01-10', '059f36b4-87a3-44ab-83d2-661975830a7d')";
    for version in 2..=newest_version() {
        let mut admin = database_at(version).await;
        admin.batch_execute(entry).await.unwrap();

        migrate(&mut admin).await.unwrap();

        let refusal = admin.batch_execute(entry).await.unwrap_err();
        assert_eq!(refusal.code(), Some(&SqlState::UNIQUE_VIOLATION));
    }
}

#[tokio::test]
async fn newer_schema_is_not_altered() {
    let mut admin = database_at(0).await;
    migrate(&mut admin).await.unwrap();
    let newer_migration = format!(
        "INSERT INTO login_etl_migrations SELECT {}, 'newer', applied_on, '1'
         FROM login_etl_migrations WHERE version = {}",
        newest_version() + 1,
        newest_version()
    );
    admin.batch_execute(&newer_migration).await.unwrap();

    let applied = migrate(&mut admin).await.unwrap().migrations;

    assert_eq!(applied, [""; 0]);
}

#[tokio::test]
async fn changed_migration_is_refused() {
    let mut admin = database_at(0).await;
    migrate(&mut admin).await.unwrap();
    for column in ["checksum", "name"] {
        let change = format!("UPDATE login_etl_migrations SET {column} = '1' WHERE version = 1");
        admin.batch_execute(&change).await.unwrap();

        let refusal = migrate(&mut admin).await.unwrap_err().to_string();

        let expected =
            "a migration failed: applied migration V1__user_logins is different from this program's";
        assert_eq!(refusal, expected);
    }
}

#[tokio::test]
async fn failed_migration_is_explained_and_can_continue() {
    let mut admin = database_at(1).await;
    let blocking_table =
        "INSERT INTO user_logins (user_id) VALUES ('kept'); CREATE TABLE processed_messages ()";
    admin.batch_execute(blocking_table).await.unwrap();

    let refusal = migrate(&mut admin).await.unwrap_err().to_string();
    admin.batch_execute("DROP TABLE processed_messages").await.unwrap();
    let applied = migrate(&mut admin).await.unwrap().migrations;

    let reason = "relation \"processed_messages\" already exists, SQLSTATE 42P07";
    assert_eq!(refusal, format!("a migration failed: {reason}"));
    assert_eq!(applied.len(), usize::try_from(newest_version() - 1).unwrap());
    assert_eq!(user_ids(&admin).await, ["kept"]);
}

#[tokio::test]
async fn missing_migration_below_newer_is_refused() {
    let mut admin = database_at(0).await;
    migrate(&mut admin).await.unwrap();
    admin.batch_execute("DELETE FROM login_etl_migrations WHERE version = 4").await.unwrap();

    let refusal = migrate(&mut admin).await.unwrap_err().to_string();

    let problem = "V4__salt_fingerprint is missing, but a newer migration is applied";
    assert_eq!(refusal, format!("a migration failed: {problem}"));
}

/// Returns the versions in a history.
async fn versions(admin: &Client, history: &str) -> Vec<i32> {
    let sql = format!("SELECT version FROM {history} ORDER BY version");
    admin.query(&sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn own_history_of_refinery_moves_over() {
    let mut admin = database_at(7).await;

    migrate(&mut admin).await.unwrap();
    migrate(&mut admin).await.unwrap();

    assert_eq!(versions(&admin, "login_etl_migrations").await, (1..=newest_version()).collect::<Vec<_>>());
    // An older `migrate` reads it after a rollback.
    assert_eq!(versions(&admin, "refinery_schema_history").await, (1..=7).collect::<Vec<_>>());
}

#[tokio::test]
async fn history_of_another_program_is_ignored() {
    let refinery = "CREATE TABLE refinery_schema_history
                        (version int PRIMARY KEY, name varchar(255), applied_on varchar(255), checksum varchar(255));
                    INSERT INTO refinery_schema_history VALUES
                        (1, 'initial', '2026-01-01T00:00:00Z', '123'), (9, 'ninth', '2026-01-01T00:00:00Z', '9')";
    let with_null = format!("{refinery}, (10, NULL, NULL, NULL)");
    let other_tool = "CREATE TABLE refinery_schema_history (id text)";
    for history in [refinery, &with_null, other_tool] {
        let mut admin = database_at(0).await;
        admin.batch_execute(history).await.unwrap();
        let before = admin.query("SELECT refinery_schema_history::text FROM refinery_schema_history", &[]);
        let before = before.await.unwrap().len();

        let first = migrate(&mut admin).await.unwrap().migrations;
        let second = migrate(&mut admin).await.unwrap().migrations;

        assert_eq!(first.len(), usize::try_from(newest_version()).unwrap());
        assert_eq!(second, [""; 0]);
        let after = admin.query("SELECT FROM refinery_schema_history", &[]).await.unwrap().len();
        assert_eq!(after, before);
    }
}

async fn relations(admin: &Client) -> i64 {
    let sql = "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace";
    admin.query_one(sql, &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn failed_run_leaves_nothing_behind() {
    let mut admin = database_at(0).await;
    admin.batch_execute("CREATE TABLE salt_fingerprint ()").await.unwrap();

    let refusal = migrate(&mut admin).await.unwrap_err().to_string();

    let reason = "relation \"salt_fingerprint\" already exists, SQLSTATE 42P07";
    assert_eq!(refusal, format!("a migration failed: {reason}"));
    assert_eq!(relations(&admin).await, 1);
}

#[tokio::test]
async fn concurrent_first_runs_all_succeed() {
    let name = unique_name();
    let admin = named_database_at(&name, 0).await;
    let mut runs = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let mut client = connect(superuser().dbname(&name)).await;
        runs.spawn(async move { migrate(&mut client).await.unwrap().migrations.len() });
    }

    let applied: usize = runs.join_all().await.into_iter().sum();

    assert_eq!(applied, usize::try_from(newest_version()).unwrap());
    assert_eq!(versions(&admin, "login_etl_migrations").await.len(), applied);
}

#[tokio::test]
async fn run_waits_for_another_and_gives_up() {
    let name = unique_name();
    let mut admin = named_database_at(&name, 0).await;
    migrate(&mut admin).await.unwrap();
    let mut other = connect(superuser().dbname(&name)).await;
    let other_run = other.transaction().await.unwrap();
    let lock = "LOCK TABLE login_etl_migrations IN SHARE UPDATE EXCLUSIVE MODE";
    other_run.batch_execute(lock).await.unwrap();

    admin.batch_execute("SET lock_timeout = '100ms'").await.unwrap();
    let refusal = migrate(&mut admin).await.unwrap_err().to_string();
    admin.batch_execute("SET lock_timeout = 0").await.unwrap();
    let (waited, ()) = tokio::join!(migrate(&mut admin), async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        other_run.rollback().await.unwrap();
    });

    assert_eq!(refusal, "another run of migrate did not finish in time; try again after it");
    waited.unwrap();
}

/// Lambda freezes or ends a function whose time has run out.
#[tokio::test]
async fn killed_run_leaves_no_lock_behind() {
    let name = unique_name();
    let admin = named_database_at(&name, 0).await;
    admin.batch_execute("CREATE TABLE user_logins (user_id varchar(128), device_type varchar(32),
        masked_ip varchar(256), masked_device_id varchar(256), locale varchar(32), app_version integer, create_date date)").await.unwrap();
    admin.batch_execute("BEGIN; LOCK TABLE user_logins IN SHARE MODE").await.unwrap();
    let mut client = connect(superuser().dbname(&name)).await;
    let pid: i32 = client.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    let run = tokio::spawn(async move { migrate(&mut client).await.unwrap_err().to_string() });
    let is_waiting =
        "SELECT 1 FROM pg_locks WHERE pid = $1 AND NOT granted AND relation = 'user_logins'::regclass";
    while admin.query(is_waiting, &[&pid]).await.unwrap().is_empty() {
        assert!(!run.is_finished(), "the run does not wait for the table");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }

    admin.execute("SELECT pg_terminate_backend($1, 5000)", &[&pid]).await.unwrap();
    let outcome = run.await.unwrap();
    admin.batch_execute("COMMIT").await.unwrap();

    assert_eq!(
        outcome,
        "Postgres refused: terminating connection due to administrator command, SQLSTATE 57P01"
    );
    assert_eq!(relations(&admin).await, 1);
    let mut next = connect(superuser().dbname(&name)).await;
    migrate(&mut next).await.unwrap();
}

/// A pooler in transaction mode gives the session to another client after the transaction.
#[tokio::test]
async fn session_is_left_as_it_was() {
    let mut admin = database_at(0).await;
    let state = "SELECT current_setting('search_path') || current_setting('lock_timeout')
                     || current_setting('statement_timeout')
                     || current_setting('idle_in_transaction_session_timeout') || current_user
                     || (SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory')
                     || (SELECT count(*) FROM pg_prepared_statements WHERE statement NOT LIKE '%pg_prepared%')";
    let before: String = admin.query_one(state, &[]).await.unwrap().get(0);

    migrate(&mut admin).await.unwrap();

    let after: String = admin.query_one(state, &[]).await.unwrap().get(0);
    assert_eq!(after, before);
}

/// A frozen run holds its locks until its session ends.
#[tokio::test]
async fn waits_of_a_run_are_limited() {
    let mut admin = database_at(0).await;
    migrate(&mut admin).await.unwrap();
    let trigger = "CREATE FUNCTION report() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                       IF current_setting('lock_timeout') = '1min' AND current_setting('statement_timeout') = '4min'
                           AND current_setting('idle_in_transaction_session_timeout') = '1min' THEN
                           RAISE EXCEPTION USING ERRCODE = 'ZX001';
                       END IF;
                       RETURN NEW;
                   END $$;
                   CREATE TRIGGER report BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION report()";
    admin.batch_execute(trigger).await.unwrap();

    let limited = migrate(&mut admin).await.unwrap().warnings;
    admin.batch_execute("SET statement_timeout = '1h'").await.unwrap();
    let limited_by_session = migrate(&mut admin).await.unwrap().warnings;

    assert_eq!(limited[0].problem, "user_logins refuses a generated row, SQLSTATE ZX001");
    assert_eq!(limited_by_session, []);
}

#[tokio::test]
async fn schema_file_equals_all_migrations() {
    let (migrated, loaded) = (unique_name(), unique_name());
    migrate(&mut named_database_at(&migrated, 0).await).await.unwrap();
    named_database_at(&loaded, 0).await.batch_execute(SCHEMA).await.unwrap();

    let (migrated, loaded) = (dump(&migrated), dump(&loaded));

    assert_eq!(missing(&migrated, &loaded), [""; 0], "these lines are missing from schema.sql");
    assert_eq!(missing(&loaded, &migrated), [""; 0], "schema.sql has these lines, and no migration does");
    assert_eq!(loaded, migrated);
}

/// A dump has no rows and no attributes of roles, so the comparison of dumps misses a migration that changes
/// only these.
#[test]
fn schema_file_names_the_newest_migration() {
    let first_line = SCHEMA.lines().next().unwrap();

    assert_eq!(first_line, format!("-- Schema as of {}", newest_migration()));
}

#[tokio::test]
async fn refused_history_is_explained() {
    let mut admin = database_at(0).await;
    admin.batch_execute("CREATE TYPE login_etl_migrations AS ENUM ()").await.unwrap();

    let refusal = migrate(&mut admin).await.unwrap_err().to_string();

    assert_eq!(refusal, "Postgres refused: type \"login_etl_migrations\" already exists, SQLSTATE 42710");
}

#[tokio::test]
async fn locked_database_is_not_called_unready() {
    let name = unique_name();
    let mut admin = named_database_at(&name, 0).await;
    migrate(&mut admin).await.unwrap();
    let setting = format!("ALTER ROLE login_writer IN DATABASE {name} SET work_mem = '1MB'");
    admin.batch_execute(&setting).await.unwrap();
    for lock in [&setting, "LOCK TABLE processed_messages IN SHARE MODE"] {
        let other = connect(superuser().dbname(&name)).await;
        other.batch_execute(&format!("BEGIN; {lock}")).await.unwrap();
        admin.batch_execute("SET lock_timeout = '100ms'").await.unwrap();

        let refusal = migrate(&mut admin).await.unwrap_err().to_string();

        assert_eq!(refusal, "Postgres refused: canceling statement due to lock timeout, SQLSTATE 55P03");
    }
}

#[tokio::test]
async fn broken_trigger_is_to_be_repaired() {
    let mut admin = database_at(0).await;
    migrate(&mut admin).await.unwrap();
    let trigger = "CREATE FUNCTION copy() RETURNS trigger LANGUAGE plpgsql AS
                       $$ BEGIN INSERT INTO nowhere DEFAULT VALUES; RETURN NEW; END $$;
                   CREATE TRIGGER copy BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION copy()";
    admin.batch_execute(trigger).await.unwrap();

    let refusal = migrate(&mut admin).await.unwrap_err().to_string();

    let problem = "login_writer cannot write a row: relation \"nowhere\" does not exist, SQLSTATE 42P01";
    let remedy = "repair the trigger, the default or the table that needs it";
    assert_eq!(refusal, format!("the database is not ready: {problem}: {remedy}"));
}

#[tokio::test]
async fn only_users_with_many_tokens_are_counted() {
    let mut admin = database_at(0).await;
    migrate(&mut admin).await.unwrap();
    let rows = "INSERT INTO user_logins (user_id, masked_ip, masked_device_id, create_date)
                    SELECT user_id, CASE WHEN is_ip THEN token END, CASE WHEN is_ip THEN NULL ELSE token END,
                        (now() AT TIME ZONE 'UTC')::date - age
                    FROM (VALUES ('ips', 101, true, 0), ('devices', 101, false, 1), ('few', 100, true, 0),
                            ('old', 101, true, 2)) AS users (user_id, tokens, is_ip, age),
                        generate_series(1, tokens) AS number, format('%s', number) AS token";
    admin.batch_execute(rows).await.unwrap();

    let users = schema::users_with_many_tokens(&mut admin, "public").await.unwrap();

    assert_eq!(users, 2);
}

#[tokio::test]
async fn only_missing_migrations_need_to_create_tables() {
    let database = Database::create().await;
    let name = &database.name;
    database
        .execute(&format!(
            "REVOKE CREATE ON SCHEMA public FROM PUBLIC; GRANT SELECT ON login_etl_migrations TO {name}"
        ))
        .await;
    let mut role = connect(superuser().user(name).password(name).dbname(name)).await;

    let complete = migrate(&mut role).await.unwrap_err().to_string();
    let newest = newest_version();
    database.execute(&format!("DELETE FROM login_etl_migrations WHERE version = {newest}")).await;
    let incomplete = migrate(&mut role).await.unwrap_err().to_string();

    let problem = "may not create tables in the schema public";
    assert!(!complete.contains(problem), "{complete}");
    assert!(incomplete.contains(problem), "{incomplete}");
}
