//! The schema of the export: what `migrate` creates, and what it refuses. The tests of the export itself are in its
//! package.

use login_etl::lake;
use login_etl::schema::{self, WriterLogin};

use crate::existing_databases::{assert_refusals, case, create, owner};

#[tokio::test]
async fn schema_that_cannot_be_trusted_is_refused() {
    let marked = "CREATE SCHEMA lake; COMMENT ON SCHEMA lake IS 'login-etl lake, version 1'";
    let cases = [
        (
            "CREATE SCHEMA lake AUTHORIZATION {owner}".to_owned(),
            "the schema lake exists, and owner has not made it",
        ),
        (
            format!("{marked}; ALTER SCHEMA lake OWNER TO {{other}}"),
            "the schema lake exists, and owner has not made it",
        ),
        (
            format!(
                "{marked}; ALTER SCHEMA lake OWNER TO {{owner}}; GRANT CREATE ON SCHEMA lake TO {{other}}"
            ),
            "other may create objects in the schema lake, and could use this to act as owner",
        ),
        (
            format!(
                "{marked}; CREATE FUNCTION lake.length(text) RETURNS integer LANGUAGE sql AS 'SELECT 1';
                 ALTER FUNCTION lake.length(text) OWNER TO {{other}}; ALTER SCHEMA lake OWNER TO {{owner}}"
            ),
            "other owns lake.length(text)",
        ),
        (
            "ALTER DATABASE {database} OWNER TO {other}".to_owned(),
            "owner may not create the schema lake: GRANT CREATE ON DATABASE",
        ),
        (
            "ALTER TABLE user_logins ENABLE ROW LEVEL SECURITY".to_owned(),
            "row security is on for public.user_logins, and the lake would show hidden rows",
        ),
    ];
    assert_refusals(&cases, lake::create).await;
}

/// The owner is no superuser. A right that an administrator revoked comes back.
#[tokio::test]
async fn owner_creates_the_books_and_grants_missing_rights() {
    let name = create(&case("", "")).await;
    let mut owner = owner(&name).await;
    schema::migrate(&mut owner, "public", &WriterLogin::Unchanged).await.unwrap();

    lake::create(&mut owner, "public").await.unwrap();
    let may_read = "SELECT has_column_privilege('login_export', 'user_logins', 'locale', 'SELECT')";
    owner.batch_execute("REVOKE SELECT (locale) ON user_logins FROM login_export").await.unwrap();
    let revoked: bool = owner.query_one(may_read, &[]).await.unwrap().get(0);
    lake::create(&mut owner, "public").await.unwrap();
    let granted: bool = owner.query_one(may_read, &[]).await.unwrap().get(0);

    let since = "SELECT ledger_since = (now() AT TIME ZONE 'UTC')::date FROM lake.state";
    assert_eq!((revoked, granted), (false, true));
    assert!(owner.query_one(since, &[]).await.unwrap().get::<_, bool>(0));
}

#[tokio::test]
async fn books_belong_to_the_schema_of_the_logins() {
    let name = create(&case("", "")).await;
    let mut owner = owner(&name).await;
    owner.batch_execute("CREATE SCHEMA \"Our Logins\"").await.unwrap();
    schema::migrate(&mut owner, "Our Logins", &WriterLogin::Unchanged).await.unwrap();

    lake::create(&mut owner, "Our Logins").await.unwrap();
    owner.batch_execute("SELECT \"Our Logins_lake\".mark_changed('2026-11-14', 2)").await.unwrap();
    owner.batch_execute("SELECT \"Our Logins_lake\".mark_changed('2026-11-14')").await.unwrap();

    let row = "SELECT deleted_rows, changed, final FROM \"Our Logins_lake\".exports";
    let row = owner.query_one(row, &[]).await.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, bool>(1), row.get::<_, bool>(2)), (2, true, false));
}
