//! A database that is away, slow, unprepared or wrong.

use login_etl_api::authenticator::Authenticator;
use login_etl_api::router::router;
use tokio_postgres::error::SqlState;

use crate::support::{Database, database_at, get, post, token};

#[tokio::test]
async fn logins_that_are_not_rolled_up_are_503() {
    let mut database = Database::create().await;
    let api = database.api().await;
    let problem = async || {
        let answer = get(&api, "/v1/rings").await;
        assert!(answer.header("retry-after").is_some());
        answer.problem();
        answer.json()["title"].as_str().unwrap().to_owned()
    };

    assert_eq!(problem().await, "The logins are not rolled up yet");
    login_etl::analytics::create(&mut database.admin, "public").await.unwrap();
    assert_eq!(problem().await, "The logins are not rolled up yet");
    database.execute("COMMENT ON SCHEMA analytics IS 'login-etl rollups, version 3'").await;
    assert_eq!(problem().await, "The rollups have another version");
    database.execute("ALTER TABLE analytics.state RENAME TO other").await;
    assert_eq!(problem().await, "The rollups have another version");
}

#[tokio::test]
async fn rollups_are_found_once_they_exist() {
    let mut database = Database::create().await;
    let api = database.api().await;
    assert_eq!(get(&api, "/v1/rings").await.problem().0, 503);

    database.roll_up().await;

    assert_eq!(get(&api, "/v1/rings").await.status, 200);
    database.execute("DROP SCHEMA analytics CASCADE").await;
    let dropped = get(&api, "/v1/rings").await;
    assert_eq!(dropped.json()["title"], "The logins are not rolled up yet");
}

#[tokio::test]
async fn dead_connection_is_replaced() {
    let database = Database::rolled_up().await;
    let api = database.api().await;
    assert_eq!(get(&api, "/v1/rings").await.status, 200);

    assert_eq!(database.end_sessions().await, 1);

    assert_eq!(get(&api, "/v1/rings").await.status, 200);
}

#[tokio::test]
async fn slow_statement_is_503_with_advice() {
    let mut database = Database::rolled_up().await;
    database.execute(&format!("ALTER ROLE {} SET statement_timeout = '200ms'", database.name)).await;
    let api = database.api().await;
    assert_eq!(get(&api, "/v1/rings").await.status, 200);
    // The statement waits for the lock until its time is up.
    let transaction = database.admin.transaction().await.unwrap();
    transaction.batch_execute("LOCK TABLE user_logins IN ACCESS EXCLUSIVE MODE").await.unwrap();

    let logins = get(&api, &format!("/v1/tokens/{}/logins", token("d"))).await;
    let search = post(&api, "/v1/logins/search", r#"{"user_id": "ann"}"#).await;

    let advice = (503, "narrow the range of days, or try again later".to_owned());
    assert_eq!(logins.problem(), advice);
    assert_eq!(search.problem(), advice);
    assert!(search.header("retry-after").is_some());
}

#[tokio::test]
async fn unreachable_database_is_503() {
    let database = Database::rolled_up().await;
    let port = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
    let nobody = format!("postgresql://secret-user:secret-password@127.0.0.1:{port}/db?sslmode=disable");
    let wrong_password = database.url().replace(&format!(":{}@", database.name), ":secret-password@");

    for url in [nobody, wrong_password] {
        let api = router(database_at(&url).await, Authenticator::new(None));

        let answer = get(&api, "/v1/rings").await;

        assert_eq!(answer.problem(), (503, "try again later".to_owned()));
        assert_eq!(answer.json()["title"], "The database is not available");
        assert!(!answer.body.contains("secret"));
    }
}

#[tokio::test]
async fn exhausted_connections_are_503() {
    let database = Database::rolled_up().await;
    database.execute(&format!("ALTER ROLE {} CONNECTION LIMIT 0", database.name)).await;
    let api = database.api().await;

    assert_eq!(get(&api, "/v1/rings").await.problem(), (503, "try again later".to_owned()));
}

#[tokio::test]
async fn missing_privilege_is_500_without_text() {
    let database = Database::rolled_up().await;
    database.execute("REVOKE SELECT ON analytics.rings FROM login_reader").await;
    let api = database.api().await;

    let answer = get(&api, "/v1/rings").await;

    assert_eq!(answer.problem(), (500, "the log of the program has the reason".to_owned()));
    assert!(
        !answer.body.contains("permission") && !answer.body.contains(SqlState::INSUFFICIENT_PRIVILEGE.code())
    );
}
