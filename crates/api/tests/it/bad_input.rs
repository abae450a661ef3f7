//! Bad input is refused with a problem that does not repeat it.

use axum::body::Body;
use axum::http::{Method, Request};

use crate::support::{Database, get, post, send, token};

/// Texts that are SQL, markup, paths or broken, percent-encoded where a URI needs it.
const HOSTILE: [&str; 14] = [
    "%27%20OR%201%3D1--",
    "1%3BDROP%20TABLE%20user_logins",
    "%00",
    "%ff",
    "%ED%A0%80",
    "..%2f..%2fetc",
    "203.0.113.77",
    "%3Cscript%3E",
    "99999999999999999999",
    "-1",
    "%2B5",
    "1e2",
    "10000-01-01",
    "\u{31}\u{fe0f}",
];

#[tokio::test]
async fn hostile_parameters_are_refused_unrepeated() {
    let database = Database::rolled_up().await;
    let api = database.api().await;
    let d = token("d");
    let parameters = [
        ("/v1/duplicates?field=ip", vec!["period", "min_users", "limit", "after", "format"]),
        ("/v1/duplicates?period=1d", vec!["field"]),
        ("/v1/rings?", vec!["limit", "after", "format"]),
        ("/v1/daily?", vec!["day", "days", "by", "limit", "after", "format"]),
        (&*format!("/v1/tokens/{d}/users?"), vec!["limit", "after"]),
        (&*format!("/v1/tokens/{d}/logins?"), vec!["day", "days", "limit", "after"]),
        (&*format!("/v1/tokens/{d}/neighbours?"), vec!["depth"]),
    ];

    for hostile in HOSTILE.map(|text| text.replace('\u{fe0f}', "%EF%B8%8F")) {
        for (uri, names) in &parameters {
            for name in names {
                let answer = get(&api, &format!("{uri}&{name}={hostile}")).await;

                assert_eq!(answer.problem().0, 400, "{uri}&{name}={hostile}");
                assert!(!answer.body.contains("203.0.113.77") && !answer.body.contains("script"));
            }
        }
        for uri in [format!("/v1/tokens/{hostile}"), format!("/v1/rings/{hostile}/members")] {
            let answer = get(&api, &uri).await;

            assert_eq!(answer.problem().0, 400, "{uri}");
            assert!(!answer.body.contains("203.0.113.77") && !answer.body.contains("script"));
        }
    }
}

#[tokio::test]
async fn problem_names_the_broken_rule() {
    let database = Database::rolled_up().await;
    let api = database.api().await;
    let d = token("d");

    for (uri, status, detail) in [
        ("/v1/duplicates", 400, "the parameter field is missing"),
        ("/v1/duplicates?field=ip&field=ip", 400, "the parameter field occurs more than once"),
        ("/v1/duplicates?field=mac", 400, "the parameter field must be device_id or ip"),
        ("/v1/rings?limit=201", 400, "the parameter limit must be a whole number from 1 to 200"),
        ("/v1/daily?day=2026-02-30", 400, "the parameter day must be a day from 0001-01-01 to 9999-12-31"),
        ("/v1/daily?from=x", 400, "the operation has no such parameter; /openapi.json lists them"),
        ("/v1/freshness?x", 400, "the operation has no such parameter; /openapi.json lists them"),
        ("/v1/daily?format=xml", 400, "the parameter format must be json or csv"),
        ("/v1/nothing", 404, "the paths are in /openapi.json"),
        (
            &*format!("/v1/tokens/{}", d.to_uppercase()),
            400,
            "the token in the path must be 64 hexadecimal digits in lower case",
        ),
    ] {
        assert_eq!(get(&api, uri).await.problem(), (status, detail.to_owned()), "{uri}");
    }
}

#[tokio::test]
async fn wrong_bodies_are_refused() {
    let database = Database::rolled_up().await;
    let api = database.api().await;
    let long = format!(r#"{{"user_id": "{}"}}"#, "x".repeat(129));

    for (body, status) in [
        ("", 400),
        ("[]", 400),
        (r#" ["ann"]"#, 400),
        ("{}", 400),
        ("{\"user_id\"", 400),
        (r#"{"user_id": 5}"#, 400),
        (r#"{"user_id": null}"#, 400),
        (r#"{"user_id": ""}"#, 400),
        (r#"{"user_id": "a\u0000b"}"#, 400),
        (r#"{"user_id": "\ud800"}"#, 400),
        (r#"{"user_id": "a", "user_id": "b"}"#, 400),
        (r#"{"user_id": "a", "203.0.113.77": 1}"#, 400),
        (r#"{"user_id": "a", "limit": "5"}"#, 400),
        (r#"{"user_id": "a", "limit": 5.5}"#, 400),
        (r#"{"user_id": "a", "limit": null}"#, 400),
        (r#"{"user_id": "a"} {}"#, 400),
        (&long, 400),
        (&"x".repeat(4097), 413),
        (&"x".repeat(1_000_000), 413),
        (r#"{"user_id": "'; DROP TABLE user_logins; --"}"#, 200),
        (r#"{"user_id": "a", "limit": 5.0}"#, 200),
    ] {
        for uri in ["/v1/users/search", "/v1/logins/search"] {
            let answer = post(&api, uri, body.to_owned()).await;

            assert_eq!(answer.status.as_u16(), status, "{body:.40}");
            if status != 200 {
                assert!(!answer.problem().1.contains("203.0.113.77"));
            }
        }
    }
    let bytes = post(&api, "/v1/users/search", vec![b'"', 0xff, b'"']).await;
    assert_eq!(bytes.problem(), (400, "the body is not JSON".to_owned()));
}

#[tokio::test]
async fn body_must_be_json_by_its_header() {
    let database = Database::rolled_up().await;
    let api = database.api().await;
    let status = async |content_type: Option<&str>| {
        let mut request = Request::post("/v1/users/search");
        if let Some(content_type) = content_type {
            request = request.header("content-type", content_type);
        }
        send(&api, request.body(Body::from(r#"{"user_id": "a"}"#)).unwrap()).await.status.as_u16()
    };

    assert_eq!(status(None).await, 415);
    assert_eq!(status(Some("text/plain")).await, 415);
    assert_eq!(status(Some("application/x-www-form-urlencoded")).await, 415);
    assert_eq!(status(Some("Application/JSON; charset=utf-8")).await, 200);
}

#[tokio::test]
async fn wrong_methods_are_told_the_right_ones() {
    let database = Database::rolled_up().await;
    let api = database.api().await;

    for (uri, allowed) in [("/v1/daily", "GET,HEAD"), ("/v1/users/search", "POST")] {
        for method in ["DELETE", "OPTIONS", "PATCH", "PUT", "TRACE", "CONNECT", "BREW"] {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            let request = Request::builder().method(method.clone()).uri(uri).body(Body::empty()).unwrap();
            let answer = send(&api, request).await;

            assert_eq!(answer.problem().0, 405, "{method} {uri}");
            assert_eq!(answer.header("allow"), Some(allowed), "{method} {uri}");
        }
    }
    let head = send(&api, Request::head("/v1/daily").body(Body::empty()).unwrap()).await;
    assert_eq!((head.status.as_u16(), head.body.as_str()), (200, ""));
}
