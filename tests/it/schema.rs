//! The schema comes from wherever it stands to where this version wants it, and loses nothing.

use std::path::Path;
use std::process::Command;

use login_etl::schema;
use refinery::{Migration, Target};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::support::{connect, superuser, unique_name};

mod embedded {
    refinery::embed_migrations!("migrations");
}

/// The whole schema in one file, for readers.
const SCHEMA: &str = include_str!("../../migrations/schema.sql");

/// A new database, with the schema as it was at this version; zero is none at all.
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

fn newest() -> i32 {
    newest_migration().version()
}

fn newest_migration() -> Migration {
    let runner = embedded::migrations::runner();
    runner.get_migrations().iter().max_by_key(|migration| migration.version()).unwrap().clone()
}

/// The schema of a database as the server's own `pg_dump` writes it, without refinery's table and without
/// the `\restrict` lines, which hold a random key.
fn dump(database: &str) -> Vec<String> {
    let folder = std::env::var("TEST_POSTGRES_BIN").expect("TEST_POSTGRES_BIN is set, as `make test` does");
    let server = superuser();
    let output = Command::new(Path::new(&folder).join("pg_dump"))
        .args(["--schema-only", "--exclude-table=refinery_schema_history", database])
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

/// The lines of `left` that `right` lacks: short enough to read in a failed assertion.
fn missing<'l>(left: &'l [String], right: &[String]) -> Vec<&'l str> {
    left.iter().filter(|line| !right.contains(line)).map(String::as_str).collect()
}

async fn user_ids(admin: &Client) -> Vec<String> {
    let sql = "SELECT user_id FROM user_logins ORDER BY user_id";
    admin.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn every_older_schema_is_upgraded_with_its_rows() {
    for version in 1..=newest() {
        let mut admin = database_at(version).await;
        admin.batch_execute("INSERT INTO user_logins (user_id) VALUES ('kept')").await.unwrap();

        let applied = schema::migrate(&mut admin).await.unwrap();
        let again = schema::migrate(&mut admin).await.unwrap();

        assert_eq!(applied.len(), usize::try_from(newest() - version).unwrap());
        assert_eq!(again, [""; 0]);
        assert_eq!(user_ids(&admin).await, ["kept"]);
    }
}

#[tokio::test]
async fn ledger_of_an_older_schema_still_counts() {
    let entry = "INSERT INTO processed_messages (slot, sent_at, message_id)
                 VALUES (9, '1970-01-10', '059f36b4-87a3-44ab-83d2-661975830a7d')";
    for version in 2..=newest() {
        let mut admin = database_at(version).await;
        admin.batch_execute(entry).await.unwrap();

        schema::migrate(&mut admin).await.unwrap();

        let refusal = admin.batch_execute(entry).await.unwrap_err();
        assert_eq!(refusal.code(), Some(&SqlState::UNIQUE_VIOLATION));
    }
}

#[tokio::test]
async fn newer_schema_is_not_altered() {
    let mut admin = database_at(newest()).await;
    let newer = format!(
        "INSERT INTO refinery_schema_history SELECT {}, 'newer', applied_on, '1'
         FROM refinery_schema_history WHERE version = {}",
        newest() + 1,
        newest()
    );
    admin.batch_execute(&newer).await.unwrap();

    let applied = schema::migrate(&mut admin).await.unwrap();

    assert_eq!(applied, [""; 0]);
}

#[tokio::test]
async fn changed_migration_is_refused() {
    let mut admin = database_at(newest()).await;
    admin.batch_execute("UPDATE refinery_schema_history SET checksum = '1' WHERE version = 1").await.unwrap();

    let refusal = schema::migrate(&mut admin).await.unwrap_err().to_string();

    assert!(refusal.starts_with("a migration failed: applied migration V1__user_logins is different"));
}

#[tokio::test]
async fn failed_migration_is_explained_and_can_continue() {
    let mut admin = database_at(1).await;
    let in_the_way = "INSERT INTO user_logins (user_id) VALUES ('kept'); CREATE TABLE processed_messages ()";
    admin.batch_execute(in_the_way).await.unwrap();

    let refusal = schema::migrate(&mut admin).await.unwrap_err().to_string();
    admin.batch_execute("DROP TABLE processed_messages").await.unwrap();
    let applied = schema::migrate(&mut admin).await.unwrap();

    let reason = "relation \"processed_messages\" already exists, SQLSTATE 42P07";
    assert_eq!(refusal, format!("a migration failed: {reason}"));
    assert_eq!(applied.len(), usize::try_from(newest() - 1).unwrap());
    assert_eq!(user_ids(&admin).await, ["kept"]);
}

#[tokio::test]
async fn schema_file_equals_all_migrations() {
    let (migrated, loaded) = (unique_name(), unique_name());
    named_database_at(&migrated, newest()).await;
    named_database_at(&loaded, 0).await.batch_execute(SCHEMA).await.unwrap();

    let (migrated, loaded) = (dump(&migrated), dump(&loaded));

    assert_eq!(missing(&migrated, &loaded), [""; 0], "these lines are missing from schema.sql");
    assert_eq!(missing(&loaded, &migrated), [""; 0], "no migration makes these lines of schema.sql");
    assert_eq!(loaded, migrated);
}

/// A dump shows no rows and no attributes of roles, so a migration that changes only these needs this line.
#[test]
fn schema_file_names_the_newest_migration() {
    let first_line = SCHEMA.lines().next().unwrap();

    assert_eq!(first_line, format!("-- Schema as of {}", newest_migration()));
}
