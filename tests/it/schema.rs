//! The schema comes from wherever it stands to where this version wants it, and loses nothing.

use login_etl::schema;
use refinery::Target;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::support::{connect, superuser, unique_name};

mod embedded {
    refinery::embed_migrations!("migrations");
}

/// A new database, with the schema as it was at this version; zero is none at all.
async fn database_at(version: i32) -> Client {
    let name = unique_name();
    connect(&superuser()).await.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
    let mut admin = connect(superuser().dbname(&name)).await;
    if version > 0 {
        let runner = embedded::migrations::runner().set_target(Target::Version(version));
        runner.run_async(&mut admin).await.unwrap();
    }
    admin
}

fn newest() -> i32 {
    embedded::migrations::runner().get_migrations().iter().map(refinery::Migration::version).max().unwrap()
}

async fn user_ids(admin: &Client) -> Vec<String> {
    let sql = "SELECT user_id FROM user_logins ORDER BY user_id";
    admin.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn a_schema_of_any_version_is_brought_up_to_date_and_keeps_its_rows() {
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
async fn a_message_that_was_written_with_an_older_schema_is_not_written_again() {
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
async fn a_schema_that_is_newer_than_the_program_is_left_alone() {
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
async fn a_migration_that_was_changed_after_it_was_applied_is_refused() {
    let mut admin = database_at(newest()).await;
    admin.batch_execute("UPDATE refinery_schema_history SET checksum = '1' WHERE version = 1").await.unwrap();

    let refusal = schema::migrate(&mut admin).await.unwrap_err().to_string();

    assert!(refusal.starts_with("a migration failed: applied migration V1__user_logins is different"));
}

#[tokio::test]
async fn a_migration_that_fails_says_why_and_the_next_call_goes_on_from_there() {
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
