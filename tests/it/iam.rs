//! Login by IAM: how a token is signed, and how `login_writer` switches between a token and a password.
//!
//! `tests/e2e/test_iam.py` tests the login itself, because a Postgres must be set up to require a token.

use std::time::{Duration, SystemTime};

use aws_sdk_secretsmanager::config::Credentials;
use login_etl::aws::rds_auth_token;
use login_etl::config::IamSettings;
use login_etl::schema::{self, SchemaError, WRITER_ROLE};
use secrecy::ExposeSecret;
use serde::Deserialize;
use tokio_postgres::{Client, NoTls};

use crate::support::{Database, WRITER_LOGIN_LOCK, connect, superuser};

/// Tokens that botocore signed, each with its input. `tests/e2e/test_iam.py` signs them again with botocore
/// and compares.
const TOKENS: &str = include_str!("iam_tokens.json");

/// An input of botocore, and its token.
#[derive(Deserialize)]
struct SignedToken {
    at: u64,
    region: String,
    host: String,
    port: u16,
    user: String,
    access_key_id: String,
    secret_access_key: String,
    session_token: Option<String>,
    token: String,
}

#[test]
fn token_equals_that_of_botocore() {
    for signed in serde_json::from_str::<Vec<SignedToken>>(TOKENS).unwrap() {
        let SignedToken { host, port, user, .. } = signed;
        let iam = IamSettings { host, port, name: "logins".to_owned(), user };
        let credentials = Credentials::new(
            signed.access_key_id,
            signed.secret_access_key,
            signed.session_token,
            None,
            "test",
        );
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(signed.at);

        let token = rds_auth_token::sign(credentials, &signed.region, &iam, at).unwrap();

        assert_eq!(token.expose_secret(), signed.token);
    }
}

#[test]
fn bad_host_gets_no_token() {
    for host in ["not a host", "\u{0}", "::1"] {
        let iam =
            IamSettings { host: host.to_owned(), port: 5432, name: "d".to_owned(), user: "u".to_owned() };
        let credentials = Credentials::new("AKIDEXAMPLE", "hunter2", None, None, "test");

        let error = rds_auth_token::sign(credentials, "eu-central-1", &iam, SystemTime::now()).unwrap_err();

        assert_eq!(error.to_string(), "DATABASE_HOST is not the name of a host");
    }
}

/// On RDS the role `rds_iam` exists. Here the test creates it.
#[tokio::test]
async fn writer_logs_in_by_iam_or_password() {
    let _guard = WRITER_LOGIN_LOCK.lock().await;
    let database = Database::create().await;
    let mut owner = owner_of(&database).await;
    let admin = &database.admin;
    // Whether the writer has a password, and whether it is a member of rds_iam.
    let state = async || -> (bool, bool) {
        let sql = "SELECT rolpassword IS NOT NULL, to_regrole('rds_iam') IN
                   (SELECT roleid FROM pg_auth_members WHERE member = pg_authid.oid)
                   FROM pg_authid WHERE rolname = 'login_writer'";
        let row = admin.query_one(sql, &[]).await.unwrap();
        (row.get(0), row.get::<_, Option<bool>>(1).unwrap_or(false))
    };
    let may_log_in = async |password: &str| {
        let mut writer = superuser();
        writer.user("login_writer").password(password).dbname(&database.name);
        writer.connect(NoTls).await.is_ok()
    };

    set_password(&mut owner, "first").await.unwrap();
    let without_role = schema::grant_iam_login(admin, WRITER_ROLE).await;
    let unchanged = (state().await, may_log_in("first").await);
    admin.batch_execute("CREATE ROLE rds_iam").await.unwrap();
    let mut switched = Vec::new();
    for _ in 0..2 {
        schema::grant_iam_login(admin, WRITER_ROLE).await.unwrap();
        switched.push((state().await, may_log_in("first").await));
    }
    for _ in 0..2 {
        set_password(&mut owner, "second").await.unwrap();
        switched.push((state().await, may_log_in("second").await));
    }
    admin.batch_execute("DROP ROLE rds_iam").await.unwrap();

    let (by_iam, by_password) = (((false, true), false), ((true, false), true));
    assert!(matches!(without_role, Err(SchemaError::NoIam)), "{without_role:?}");
    assert_eq!(unchanged, by_password);
    assert_eq!(switched, [by_iam, by_iam, by_password, by_password]);
}

#[tokio::test]
async fn foreign_grant_of_rds_iam_is_an_error() {
    let _guard = WRITER_LOGIN_LOCK.lock().await;
    let database = Database::create().await;
    let password = async || -> Option<String> {
        let sql = "SELECT rolpassword FROM pg_authid WHERE rolname = 'login_writer'";
        database.admin.query_one(sql, &[]).await.unwrap().get(0)
    };
    let name = format!("{}_foreign", database.name);
    let foreign_grant = format!("CREATE ROLE rds_iam; CREATE ROLE {name} IN ROLE rds_iam ROLE login_writer");
    database.admin.batch_execute(&foreign_grant).await.unwrap();
    let before = password().await;

    let outcome = set_password(&mut owner_of(&database).await, "new").await;

    database.admin.batch_execute(&format!("DROP ROLE rds_iam, {name}")).await.unwrap();
    assert_eq!(
        outcome.unwrap_err().to_string(),
        "Postgres refused: login_writer stays in rds_iam, which this role did not grant to it, SQLSTATE P0001"
    );
    assert_eq!(password().await, before);
}

async fn owner_of(database: &Database) -> Client {
    connect(superuser().dbname(&database.name)).await
}

async fn set_password(owner: &mut Client, password: &str) -> Result<(), SchemaError> {
    let transaction = owner.transaction().await?;
    schema::set_password_login(&transaction, WRITER_ROLE, &password.into()).await?;
    Ok(transaction.commit().await?)
}

/// Since Postgres 16, an owner without ADMIN OPTION on `rds_iam` is refused as this role is.
#[tokio::test]
async fn refused_grant_of_rds_iam_names_its_remedy() {
    let _guard = WRITER_LOGIN_LOCK.lock().await;
    let database = Database::create().await;
    let name = &database.name;
    let mut other = connect(superuser().user(name).password(name).dbname(name)).await;
    database.execute("CREATE ROLE rds_iam").await;

    let grant = schema::grant_iam_login(&other, WRITER_ROLE).await;
    database.execute("GRANT rds_iam TO login_writer").await;
    let after_remedy = schema::grant_iam_login(&other, WRITER_ROLE).await;
    let revoke = set_password(&mut other, "new").await;
    database.execute("REVOKE rds_iam FROM login_writer").await;
    let after_revoke = set_password(&mut other, "new").await;

    database.execute(&format!("GRANT rds_iam TO {name} WITH ADMIN OPTION")).await;
    let with_admin_option = schema::grant_iam_login(&other, WRITER_ROLE).await;

    database.execute("DROP ROLE rds_iam").await;
    assert_eq!(
        grant.unwrap_err().to_string(),
        "this role may not grant rds_iam: as a member of rds_superuser, run GRANT rds_iam TO login_writer (or grant \
         rds_iam to this role WITH ADMIN OPTION), then run migrate again"
    );
    assert_eq!(
        revoke.unwrap_err().to_string(),
        "this role may not revoke rds_iam: as the role that granted it, run REVOKE rds_iam FROM login_writer, then \
         run migrate again"
    );
    // Nothing of rds_iam is left to do; this role may not change the password either.
    for outcome in [after_remedy, after_revoke, with_admin_option] {
        let refusal = outcome.unwrap_err();
        assert!(
            matches!(&refusal, SchemaError::Postgres(text) if text.ends_with("SQLSTATE 42501")),
            "{refusal}"
        );
    }
}
