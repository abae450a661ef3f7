//! The rights of the two roles of the database.

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::support::Database;

const STATEMENTS: [&str; 24] = [
    "SELECT FROM user_logins",
    "INSERT INTO user_logins (user_id) VALUES ('x')",
    "INSERT INTO user_logins (user_id) VALUES ('x') RETURNING user_id",
    "UPDATE user_logins SET user_id = 'x'",
    "DELETE FROM user_logins",
    "TRUNCATE user_logins",
    "ALTER TABLE user_logins ADD COLUMN x text",
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

#[tokio::test]
async fn public_may_execute_no_function() {
    let database = Database::create().await;
    let sql = "SELECT proname::text FROM pg_proc
               WHERE pronamespace = 'public'::regnamespace AND has_function_privilege('public', oid, 'EXECUTE')";

    let functions = database.admin.query(sql, &[]).await.unwrap();

    let names: Vec<String> = functions.iter().map(|row| row.get(0)).collect();
    assert_eq!(names, [] as [&str; 0]);
}
