//! The whole answer of each operation, in JSON and in CSV.

use serde_json::{Value, json};

use crate::support::{Database, TODAY, get, get_with, post, token};

fn rows(rows: &Value) -> Value {
    json!({ "run": 1, "through": TODAY, "rows": rows, "next": null })
}

#[tokio::test]
async fn duplicates_come_most_shared_first() {
    let database = Database::rolled_up().await;
    let api = database.api().await;

    let week = get(&api, "/v1/duplicates?field=device_id&period=7d").await;
    let all = get(&api, "/v1/duplicates?field=device_id&period=all").await;
    let large = get(&api, "/v1/duplicates?field=ip&period=all&min_users=5").await;

    let d = json!({
        "token": token("d"), "users": 2, "logins": 4, "first_day": "2026-11-10", "last_day": TODAY,
    });
    let e = json!({
        "token": token("e"), "users": 2, "logins": 2, "first_day": "2026-11-01", "last_day": TODAY,
    });
    let hub = json!({
        "token": token("9"), "users": 60, "logins": 60, "first_day": "2026-11-13", "last_day": "2026-11-13",
    });
    assert_eq!(week.json(), rows(&json!([d])));
    assert_eq!(all.json(), rows(&json!([d, e])));
    assert_eq!(large.json(), rows(&json!([hub])));
    assert_eq!(week.header("vary"), Some("Accept"));
    assert_eq!(week.header("cache-control"), Some("private, no-cache"));
}

#[tokio::test]
async fn ring_has_its_devices_and_members() {
    let database = Database::rolled_up().await;
    let api = database.api().await;
    let ring = token("d");

    let rings = get(&api, "/v1/rings").await;
    let one = get(&api, &format!("/v1/rings/{ring}")).await;
    let devices = get(&api, &format!("/v1/rings/{ring}/devices")).await;
    let members = get(&api, &format!("/v1/rings/{ring}/members")).await;
    let none = get(&api, &format!("/v1/rings/{}", token("e"))).await;

    let expected = rows(&json!([{
        "ring": ring, "users": 3, "devices": 2, "logins": 6, "first_day": "2026-11-01", "last_day": TODAY,
    }]));
    assert_eq!(rings.json(), expected);
    assert_eq!(one.json(), expected);
    assert_eq!(devices.json()["rows"].as_array().unwrap().len(), 2);
    let members = members.json();
    assert_eq!(
        members["rows"][0],
        json!({ "user_id": "ann", "devices": 1, "logins": 3, "first_day": "2026-11-10", "last_day": TODAY })
    );
    assert_eq!(members["rows"].as_array().unwrap().len(), 3);
    assert_eq!(none.problem(), (404, "no login of the rollups has it".to_owned()));
}

#[tokio::test]
async fn token_has_periods_days_and_users() {
    let database = Database::rolled_up().await;
    let api = database.api().await;
    let d = token("d");

    let periods = get(&api, &format!("/v1/tokens/{d}")).await;
    let unshared = get(&api, &format!("/v1/tokens/{}", token("f"))).await;
    let days = get(&api, &format!("/v1/tokens/{d}/daily")).await;
    let users = get(&api, &format!("/v1/tokens/{d}/users")).await;
    let unknown = get(&api, &format!("/v1/tokens/{}", token("0"))).await;

    let period = |period: &str, logins: u8, first_day: &str| {
        json!({
            "field": "device_id", "period": period, "users": 2, "logins": logins, "first_day": first_day,
            "last_day": TODAY, "ring": d,
        })
    };
    let expected = json!([
        period("1d", 3, TODAY),
        period("7d", 4, "2026-11-10"),
        period("28d", 4, "2026-11-10"),
        period("all", 4, "2026-11-10"),
    ]);
    assert_eq!(periods.json(), rows(&expected));
    let unshared = unshared.json();
    let counts = unshared["rows"].as_array().unwrap().iter().map(|row| (&row["period"], &row["users"]));
    assert_eq!(
        counts.map(|(period, users)| format!("{period} {users}")).collect::<Vec<_>>(),
        ["\"1d\" 1", "\"7d\" 1", "\"28d\" 1", "\"all\" 1"]
    );
    let expected = json!([
        { "day": TODAY, "logins": 3, "users": 2 },
        { "day": "2026-11-10", "logins": 1, "users": 1 },
    ]);
    assert_eq!(days.json(), rows(&expected));
    let expected = json!([
        { "user_id": "ann", "logins": 3, "first_day": "2026-11-10", "last_day": TODAY },
        { "user_id": "bob", "logins": 1, "first_day": TODAY, "last_day": TODAY },
    ]);
    assert_eq!(users.json(), rows(&expected));
    assert_eq!(unknown.problem().0, 404);
}

#[tokio::test]
async fn equal_logins_are_one_row() {
    let database = Database::rolled_up().await;
    let api = database.api().await;
    let ann = |day: &str, logins: u8| {
        json!({
            "day": day, "user_id": "ann", "device_type": "ios", "masked_ip": token("1"),
            "masked_device_id": token("d"), "locale": "RU", "app_version": "2.3.0", "logins": logins,
        })
    };

    let day = get(&api, &format!("/v1/tokens/{}/logins?day=2026-11-10&days=1", token("d"))).await;
    let user = post(&api, "/v1/logins/search", r#"{"user_id": "ann", "days": 31}"#).await;
    let tokens = post(&api, "/v1/users/search", r#"{"user_id": "ann"}"#).await;

    assert_eq!(day.json(), rows(&json!([ann("2026-11-10", 1)])));
    assert_eq!(user.json(), rows(&json!([ann(TODAY, 2), ann("2026-11-10", 1)])));
    assert_eq!(user.header("etag"), None, "user_logins changes between the runs");
    let expected = json!([
        {
            "field": "ip", "token": token("1"), "users": 4, "logins": 3, "first_day": "2026-11-10",
            "last_day": TODAY,
        },
        {
            "field": "device_id", "token": token("d"), "users": 2, "logins": 3, "first_day": "2026-11-10",
            "last_day": TODAY,
        },
    ]);
    assert_eq!(tokens.json(), rows(&expected));
}

#[tokio::test]
async fn unmasked_values_are_not_returned() {
    let mut database = Database::create().await;
    let sql = "INSERT INTO user_logins (user_id, masked_ip, masked_device_id, create_date)
        VALUES ('older', '203.0.113.99', repeat('d', 64), date '2026-11-14')";
    database.execute(sql).await;
    database.roll_up().await;
    let api = database.api().await;

    let by_user = post(&api, "/v1/logins/search", r#"{"user_id": "older"}"#).await;
    let by_token = get(&api, &format!("/v1/tokens/{}/logins", token("d"))).await;

    assert_eq!(by_user.json()["rows"][0]["masked_ip"], Value::Null);
    assert_eq!(by_user.json()["rows"][0]["masked_device_id"], token("d"));
    assert!(by_token.body.contains("older") && !by_token.body.contains("203.0.113.99"), "{}", by_token.body);
}

#[tokio::test]
async fn neighbours_are_found_to_each_depth() {
    let database = Database::rolled_up().await;
    let api = database.api().await;
    let graph = async |depth: u8| {
        let uri = format!("/v1/tokens/{}/neighbours?depth={depth}", token("f"));
        get(&api, &uri).await.json()["graph"].clone()
    };
    let names = |list: &Value, name: &str| {
        let names = list.as_array().unwrap().iter().map(|item| item[name].as_str().unwrap().to_owned());
        names.collect::<Vec<_>>()
    };

    let graphs = [graph(1).await, graph(2).await, graph(3).await];

    let eve = r#"eve"'\,"#;
    assert_eq!(
        graphs[0],
        json!({
            "truncated": false,
            "tokens": [{ "depth": 0, "field": "device_id", "token": token("f"), "users": 1, "hub": false }],
            "users": [{ "depth": 1, "user_id": eve }],
            "edges": [{
                "token": token("f"), "user_id": eve, "logins": 1, "first_day": TODAY, "last_day": TODAY,
            }],
        })
    );
    assert_eq!(names(&graphs[1]["tokens"], "token"), [token("f"), token("1")]);
    assert_eq!(names(&graphs[1]["users"], "user_id"), [eve]);
    assert_eq!(names(&graphs[2]["users"], "user_id"), [eve, "ann", "bob", "=cmd"]);
    assert_eq!(graphs[2]["edges"].as_array().unwrap().len(), 5);
}

#[tokio::test]
async fn hub_is_shown_and_not_expanded() {
    let database = Database::rolled_up().await;
    let api = database.api().await;

    let hub = get(&api, &format!("/v1/tokens/{}/neighbours?depth=3", token("9"))).await;

    assert_eq!(
        hub.json()["graph"],
        json!({
            "truncated": false,
            "tokens": [{ "depth": 0, "field": "ip", "token": token("9"), "users": 60, "hub": true }],
            "users": [],
            "edges": [],
        })
    );
}

#[tokio::test]
async fn large_graph_is_cut() {
    let mut database = Database::create().await;
    // A user with 70 devices, each of which is shared with 5 other users.
    let sql = "
        INSERT INTO user_logins (user_id, masked_device_id, create_date)
        SELECT CASE number WHEN 0 THEN 'many' ELSE device || '/' || number END,
            encode(sha256(device::text::bytea), 'hex'), date '2026-11-14'
        FROM generate_series(1, 70) AS device, generate_series(0, 5) AS number;
        INSERT INTO user_logins (user_id, masked_device_id, create_date)
        VALUES ('many', repeat('a', 64), date '2026-11-14')";
    database.execute(sql).await;
    database.roll_up().await;
    let api = database.api().await;
    let uri = format!("/v1/tokens/{}/neighbours?depth=3", token("a"));

    let first = get(&api, &uri).await.json();
    let again = get(&api, &uri).await.json();

    let graph = &first["graph"];
    assert_eq!(graph["truncated"], true);
    assert_eq!(graph["tokens"].as_array().unwrap().len(), 51, "50 tokens of a user, and the first token");
    assert_eq!(graph["users"].as_array().unwrap().len(), 149, "200 tokens and users in all");
    assert_eq!(first, again);
}

#[tokio::test]
async fn daily_counts_by_dimension() {
    let database = Database::rolled_up().await;
    let api = database.api().await;

    let all = get(&api, "/v1/daily?days=2").await;
    let locale = get(&api, "/v1/daily?by=locale&day=2026-11-10&days=1").await;

    let expected = json!([
        { "day": TODAY, "rank": 1, "value": null, "logins": 5, "users": 3 },
        { "day": "2026-11-13", "rank": 1, "value": null, "logins": 60, "users": 60 },
    ]);
    assert_eq!(all.json(), rows(&expected));
    let expected = json!([{ "day": "2026-11-10", "rank": 1, "value": "RU", "logins": 1, "users": 1 }]);
    assert_eq!(locale.json(), rows(&expected));
}

#[tokio::test]
async fn formulas_are_text_in_csv() {
    let database = Database::rolled_up().await;
    let api = database.api().await;

    let users = get_with(&api, &format!("/v1/tokens/{}/users", token("e")), ("accept", "text/csv")).await;
    let locales = get(&api, "/v1/daily?by=locale&days=1&format=csv").await;
    let quoted = get(&api, &format!("/v1/tokens/{}/users?format=csv", token("f"))).await;

    let lines: Vec<_> = users.body.split("\r\n").collect();
    assert_eq!(lines[0], "user_id,logins,first_day,last_day");
    assert!(lines.contains(&"'=cmd,1,2026-11-01,2026-11-01"), "{lines:?}");
    assert!(locales.body.contains(",'=1+1,1,1\r\n"), "{}", locales.body);
    assert!(quoted.body.contains("\"eve\"\"'\\,\",1,"), "{}", quoted.body);
    assert_eq!(users.header("content-type"), Some("text/csv; charset=utf-8; header=present"));
}

#[tokio::test]
async fn accept_header_chooses_the_format() {
    let database = Database::rolled_up().await;
    let api = database.api().await;
    let chosen = async |accept: &str| {
        let answer = get_with(&api, "/v1/daily", ("accept", accept)).await;
        answer.header("content-type").unwrap().split(';').next().unwrap().to_owned()
    };

    assert_eq!(chosen("").await, "application/json");
    assert_eq!(chosen("*/*").await, "application/json");
    assert_eq!(chosen("text/*").await, "text/csv");
    assert_eq!(chosen("application/json;q=0.5, text/csv").await, "text/csv");
    assert_eq!(chosen("text/csv;q=0, */*;q=0.1").await, "application/json");
    assert_eq!(chosen("image/png").await, "application/problem+json");
}
