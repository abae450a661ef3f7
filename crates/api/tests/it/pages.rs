//! Pages: each row comes once, also among rows with equal counts; and answers that the client already has.

use axum::Router;
use serde_json::{Value, json};

use crate::support::{Database, get, get_with, post, token};

/// Walks the pages by the header `Link`, and returns all rows.
async fn walk(api: &Router, path: &str, query: &str) -> Vec<Value> {
    let mut rows = Vec::new();
    let mut query = format!("?{query}");
    loop {
        let page = get(api, &format!("{path}{query}")).await;
        rows.extend(page.json()["rows"].as_array().unwrap().clone());
        let Some(link) = page.header("link") else { return rows };
        assert!(!link.contains("hub"), "a link must not contain a user id");
        let next = link.strip_prefix('<').unwrap().strip_suffix(">; rel=\"next\"").unwrap();
        next.clone_into(&mut query);
    }
}

#[tokio::test]
async fn pages_have_each_row_once() {
    let database = Database::rolled_up().await;
    let api = database.api().await;
    let tables = [
        ("/v1/duplicates".to_owned(), "field=device_id&period=all", 2),
        ("/v1/rings".to_owned(), "", 1),
        (format!("/v1/rings/{}/devices", token("d")), "", 2),
        (format!("/v1/rings/{}/members", token("d")), "", 3),
        (format!("/v1/tokens/{}/users", token("9")), "", 60),
        (format!("/v1/tokens/{}/logins", token("9")), "days=31", 60),
        (format!("/v1/tokens/{}/logins", token("1")), "days=31", 6),
        ("/v1/daily".to_owned(), "by=locale&days=31", 6),
    ];

    for (path, query, number) in tables {
        let whole = get(&api, &format!("{path}?{query}&limit=200")).await.json();

        for limit in [1, 2, 7] {
            let pages = walk(&api, &path, &format!("{query}&limit={limit}")).await;

            assert_eq!(pages.len(), number, "{path}");
            assert_eq!(json!(pages), whole["rows"], "{path}");
        }
    }
}

#[tokio::test]
async fn searches_have_each_row_once() {
    let database = Database::rolled_up().await;
    let api = database.api().await;

    for (path, number) in [("/v1/logins/search", 2), ("/v1/users/search", 3)] {
        let mut rows = Vec::new();
        let mut body = json!({ "user_id": "bob", "limit": 1 });
        loop {
            let page = post(&api, path, body.to_string()).await.json();
            rows.extend(page["rows"].as_array().unwrap().clone());
            if page["next"].is_null() {
                break;
            }
            body["after"] = page["next"].clone();
        }

        let whole = post(&api, path, r#"{"user_id": "bob"}"#).await.json();
        assert_eq!(json!(rows), whole["rows"], "{path}");
        assert_eq!(rows.len(), number, "{path}");
    }
}

#[tokio::test]
async fn foreign_places_are_valid() {
    let database = Database::rolled_up().await;
    let api = database.api().await;

    let middle = get(&api, &format!("/v1/duplicates?field=ip&period=all&after=5,{}", token("0"))).await;
    let end = get(&api, &format!("/v1/duplicates?field=ip&after=0,{}", token("f"))).await;
    let last_day = get(&api, "/v1/daily?day=9999-12-31&days=366&after=999999999999999,0").await;
    let first_day = get(&api, "/v1/daily?day=0001-01-01&days=366&after=0,999999999999999").await;

    assert_eq!(middle.json()["rows"].as_array().unwrap().len(), 1);
    assert_eq!(end.json()["rows"], json!([]));
    assert_eq!(last_day.json()["rows"], json!([]));
    assert_eq!(first_day.json()["rows"], json!([]));
}

#[tokio::test]
async fn known_answer_is_not_sent_again() {
    let database = Database::rolled_up().await;
    let api = database.api().await;
    let first = get(&api, "/v1/daily").await;
    let etag = first.header("etag").unwrap().to_owned();
    // Nobody may log in any more: an answer needs no database.
    database.execute(&format!("ALTER ROLE {} NOLOGIN", database.name)).await;
    database.end_sessions().await;

    let same = get_with(&api, "/v1/daily", ("if-none-match", &etag)).await;
    let listed = get_with(&api, "/v1/rings", ("if-none-match", &format!("\"x\", {etag}"))).await;
    let other_format = get_with(&api, "/v1/daily?format=csv", ("if-none-match", &etag)).await;
    let other_tag = get_with(&api, "/v1/daily", ("if-none-match", "W/\"0\"")).await;

    assert_eq!((same.status.as_u16(), same.body.as_str()), (304, ""));
    assert_eq!(same.header("etag"), Some(etag.as_str()));
    assert_eq!(listed.status.as_u16(), 304);
    assert_eq!(other_format.problem().0, 503);
    assert_eq!(other_tag.problem().0, 503);
}
