//! The rights of `login_export`: nothing but the exported columns, the dates in the ledger, and the books.

use tokio_postgres::error::SqlState;

use crate::support::{Lake, connect};

#[tokio::test]
async fn role_has_no_more_rights_than_needed() {
    let lake = Lake::create().await;
    lake.execute("CREATE TABLE other_table (); ALTER TABLE user_logins ADD COLUMN secret text").await;
    let role = connect(&lake.login()).await;

    let mut allowed = Vec::new();
    for statement in [
        "SELECT user_id, device_type, masked_ip, masked_device_id, locale, app_version, create_date FROM user_logins",
        "SELECT secret FROM user_logins",
        "SELECT * FROM user_logins",
        "INSERT INTO user_logins (user_id) VALUES ('x')",
        "UPDATE user_logins SET user_id = 'x'",
        "DELETE FROM user_logins",
        "TRUNCATE user_logins",
        "SELECT slot, sent_at FROM processed_messages",
        "SELECT message_id FROM processed_messages",
        "SELECT slot FROM processed_messages_00",
        "INSERT INTO processed_messages VALUES (0, now(), gen_random_uuid())",
        "DELETE FROM processed_messages",
        "SELECT FROM processed_fifo_messages",
        "SELECT fingerprint FROM salt_fingerprint",
        "SELECT FROM login_etl_migrations",
        "SELECT FROM other_table",
        "CREATE TABLE public.new_table ()",
        "CREATE TABLE lake.new_table ()",
        "SELECT * FROM lake.exports",
        "INSERT INTO lake.exports (day) VALUES ('2026-01-01')",
        "UPDATE lake.exports SET key = 'k'",
        "DELETE FROM lake.exports",
        "TRUNCATE lake.exports",
        "SELECT * FROM lake.state",
        "UPDATE lake.state SET rows_without_date = 0",
        "DELETE FROM lake.state",
        "SELECT lake.mark_changed('2026-01-01')",
    ] {
        role.batch_execute("BEGIN").await.unwrap();
        match role.batch_execute(statement).await {
            Err(error) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {}
            Err(error) => panic!("{statement}: {error:?}"),
            Ok(()) => allowed.push(statement),
        }
        role.batch_execute("ROLLBACK").await.unwrap();
    }

    let expected = [
        "SELECT user_id, device_type, masked_ip, masked_device_id, locale, app_version, create_date FROM user_logins",
        "SELECT slot, sent_at FROM processed_messages",
        "SELECT * FROM lake.exports",
        "INSERT INTO lake.exports (day) VALUES ('2026-01-01')",
        "UPDATE lake.exports SET key = 'k'",
        "SELECT * FROM lake.state",
        "UPDATE lake.state SET rows_without_date = 0",
    ];
    assert_eq!(allowed, expected);
}

/// Default privileges of the database would let others write the books, or plant a trigger.
#[tokio::test]
async fn other_roles_have_no_rights_on_the_books() {
    let lake = Lake::without_books().await;
    lake.execute("ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO PUBLIC, login_writer, login_reader").await;
    lake.create_books().await;

    let rights = "
        SELECT role || ' ' || privilege
        FROM pg_class, unnest('{login_reader, login_writer, login_export}'::text[]) AS role,
            unnest('{SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER}'::text[]) AS privilege
        WHERE relnamespace = 'lake'::regnamespace AND relkind = 'r' AND has_table_privilege(role, pg_class.oid, privilege)
        UNION
        SELECT role || ' USAGE'
        FROM unnest('{login_reader, login_writer, login_export}'::text[]) AS role
        WHERE has_schema_privilege(role, 'lake', 'USAGE')
        UNION
        SELECT role || ' EXECUTE'
        FROM pg_proc, unnest('{login_reader, login_writer, login_export}'::text[]) AS role
        WHERE pronamespace = 'lake'::regnamespace AND has_function_privilege(role, pg_proc.oid, 'EXECUTE')
        ORDER BY 1";
    let rights = lake.admin.query(rights, &[]).await.unwrap();

    let rights: Vec<String> = rights.iter().map(|row| row.get(0)).collect();
    assert_eq!(rights, ["INSERT", "SELECT", "UPDATE", "USAGE"].map(|right| format!("login_export {right}")));
}

#[tokio::test]
async fn every_table_column_and_function_has_a_comment() {
    let lake = Lake::create().await;
    let sql = "
        SELECT relname::text FROM pg_class
        WHERE relnamespace = 'lake'::regnamespace AND relkind = 'r' AND obj_description(oid, 'pg_class') IS NULL
        UNION ALL
        SELECT attname::text FROM pg_attribute
        WHERE attrelid = 'lake.exports'::regclass AND attnum > 1 AND col_description(attrelid, attnum) IS NULL
        UNION ALL
        SELECT proname::text FROM pg_proc
        WHERE pronamespace = 'lake'::regnamespace AND obj_description(oid, 'pg_proc') IS NULL";

    let without = lake.admin.query(sql, &[]).await.unwrap();

    assert!(without.is_empty());
}
