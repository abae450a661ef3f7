//! The rights of the two roles of the database.

use login_etl::schema::{self, WriterLogin};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::existing_databases::{case, create, owner};
use crate::support::{Database, connect, superuser};

const STATEMENTS: [&str; 26] = [
    "SELECT FROM user_logins",
    "INSERT INTO user_logins (user_id) VALUES ('x')",
    "INSERT INTO user_logins (user_id) VALUES ('x') RETURNING user_id",
    "UPDATE user_logins SET user_id = 'x'",
    "DELETE FROM user_logins",
    "TRUNCATE user_logins",
    "ALTER TABLE user_logins ADD COLUMN x text",
    "SELECT FROM user_logins_other",
    "INSERT INTO user_logins_other (user_id) VALUES ('x')",
    "SELECT FROM processed_messages",
    "INSERT INTO processed_messages VALUES (0, now(), gen_random_uuid())",
    "UPDATE processed_messages SET sent_at = now()",
    "DELETE FROM processed_messages",
    "TRUNCATE processed_messages",
    "SELECT FROM processed_messages_00",
    "INSERT INTO processed_messages_00 VALUES (0, now(), gen_random_uuid())",
    "SELECT FROM processed_fifo_messages",
    "INSERT INTO processed_fifo_messages VALUES (gen_random_uuid(), now())",
    "DELETE FROM processed_fifo_messages",
    "TRUNCATE processed_fifo_messages",
    "SELECT fingerprint FROM salt_fingerprint",
    "SELECT accepted_at FROM salt_fingerprint",
    "UPDATE salt_fingerprint SET fingerprint = 'x'",
    "SELECT FROM other_table",
    "SELECT FROM login_etl_migrations",
    "CREATE TABLE new_table ()",
];

/// Runs each statement as `role`, and returns the statements that the role has the privileges for.
async fn allowed<'s>(admin: &Client, role: &str, statements: &[&'s str]) -> Vec<&'s str> {
    let mut allowed = Vec::new();
    for statement in statements {
        admin.batch_execute(&format!("BEGIN; SET LOCAL ROLE {role}")).await.unwrap();
        match admin.batch_execute(statement).await {
            Err(error) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {}
            Err(error) => panic!("{statement}: {error:?}"),
            Ok(()) => allowed.push(*statement),
        }
        admin.batch_execute("ROLLBACK").await.unwrap();
    }
    allowed
}

#[tokio::test]
async fn writer_has_no_more_rights_than_needed() {
    let database = Database::create().await;
    database.admin.batch_execute("CREATE TABLE other_table ()").await.unwrap();

    let allowed = allowed(&database.admin, "login_writer", &STATEMENTS).await;

    let expected = [
        "INSERT INTO user_logins (user_id) VALUES ('x')",
        "SELECT FROM processed_messages",
        "INSERT INTO processed_messages VALUES (0, now(), gen_random_uuid())",
        "SELECT FROM processed_fifo_messages",
        "INSERT INTO processed_fifo_messages VALUES (gen_random_uuid(), now())",
        "SELECT fingerprint FROM salt_fingerprint",
    ];
    assert_eq!(allowed, expected);
}

#[tokio::test]
async fn reader_has_no_more_rights_than_needed() {
    let database = Database::create().await;
    database.admin.batch_execute("CREATE TABLE other_table ()").await.unwrap();

    let allowed = allowed(&database.admin, "login_reader", &STATEMENTS).await;

    assert_eq!(allowed, ["SELECT FROM user_logins"]);
}

/// A role may alter its own settings.
#[tokio::test]
async fn settings_that_the_writer_planted_are_removed() {
    let mut database = Database::create().await;
    let name = database.name.clone();
    let plant = format!(
        "SET ROLE login_writer;
         ALTER ROLE login_writer IN DATABASE {name} SET synchronous_commit = off;
         ALTER ROLE login_writer IN DATABASE {name} SET search_path = pg_temp;
         RESET ROLE;
         ALTER ROLE login_writer IN DATABASE {name} SET log_statement = 'none'"
    );
    database.execute(&plant).await;

    let warnings =
        schema::migrate(&mut database.admin, "public", &WriterLogin::Unchanged).await.unwrap().warnings;
    let repeated =
        schema::migrate(&mut database.admin, "public", &WriterLogin::Unchanged).await.unwrap().warnings;

    let problems: Vec<&str> = warnings.iter().map(|warning| &*warning.problem).collect();
    let problem = |name: &str| format!("login_writer had the setting {name}, which it could have set itself");
    assert_eq!(problems, [problem("search_path"), problem("synchronous_commit")]);
    assert_eq!(repeated, []);
    let left = "SELECT array_to_string(setconfig, ' ') FROM pg_db_role_setting
                WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())";
    let left: String = database.admin.query_one(left, &[]).await.unwrap().get(0);
    // Only a superuser may set it.
    assert_eq!(left, "log_statement=none");
}

#[tokio::test]
async fn settings_that_cannot_be_removed_are_named() {
    let name = create(&case("", "")).await;
    let plant = format!(
        "ALTER ROLE {name}_owner NOCREATEROLE; ALTER ROLE login_writer IN DATABASE {name} SET lock_timeout = 1"
    );
    connect(superuser().dbname(&name)).await.batch_execute(&plant).await.unwrap();
    let mut owner = owner(&name).await;

    let refusal = schema::migrate(&mut owner, "public", &WriterLogin::Unchanged).await.unwrap_err();

    let finding = format!(
        "login_writer has the setting lock_timeout, which it could have set itself: \
         ALTER ROLE login_writer IN DATABASE {name} RESET lock_timeout"
    );
    assert_eq!(refusal.to_string(), format!("the database is not ready: {finding}"));
}

#[tokio::test]
async fn public_may_execute_no_function() {
    let database = Database::create().await;
    let sql = "SELECT proname::text FROM pg_proc
               WHERE pronamespace = 'public'::regnamespace AND has_function_privilege('public', oid, 'EXECUTE')";

    let functions = database.admin.query(sql, &[]).await.unwrap();

    let names: Vec<String> = functions.iter().map(|row| row.get(0)).collect();
    assert_eq!(names, [] as [&str; 0]);
}
