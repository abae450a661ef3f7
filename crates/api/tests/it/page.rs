//! The page, over rollups in a real Postgres: each view is small, escaped HTML whose links lead to views.

use std::collections::BTreeSet;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::support::{Answer, Database, get, send};

/// The most bytes of a view.
const MAX_SIZE: usize = 60_000;

/// Users whose ids are hard to show: markup, quotes, a reversed text, marks, and the longest ids.
const HOSTILE_USERS: [&str; 7] = [
    "<script>alert(1)</script>",
    "\"><img src=x onerror=alert(1)>' &amp;",
    "user\u{202e}nimda",
    "=cmd|'/c calc'!A1",
    "a\u{301}\u{302}\u{303}\u{304}\u{305}",
    " two  spaces\t",
    "{{ user_id }}",
];

/// The page over a database of its own.
struct Page {
    admin: Client,
    router: Router,
}

impl Page {
    /// Serves a database whose only logins are those that the statements insert, rolled up.
    async fn of(statements: &str) -> Self {
        let mut database = Database::create().await;
        database.execute("TRUNCATE user_logins").await;
        database.execute(statements).await;
        database.roll_up().await;
        Self { router: database.api().await, admin: database.admin }
    }

    async fn get(&self, uri: &str) -> Answer {
        get(&self.router, uri).await
    }

    async fn send(&self, request: Request<Body>) -> Answer {
        send(&self.router, request).await
    }

    async fn search(&self, form: &[(&str, &str)]) -> Answer {
        let form = form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        let request =
            Request::post("/search").header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        self.send(request.body(Body::from(form)).unwrap()).await
    }

    /// Runs a statement as an analyst in psql does, and returns the first column.
    async fn first_column(&self, sql: &str) -> Vec<String> {
        self.admin.batch_execute("SET ROLE login_reader").await.unwrap();
        let messages = self.admin.simple_query(sql).await.unwrap();
        self.admin.batch_execute("RESET ROLE").await.unwrap();
        let rows = messages.iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0),
            _ => None,
        });
        rows.map(ToOwned::to_owned).collect()
    }
}

/// 60 users of whom each shares a device with the next, 40 who share one address, a hub, and users with hostile ids.
fn busy() -> String {
    let hostile = HOSTILE_USERS.map(|user| format!("({})", literal(user))).join(", ");
    format!(
        "CREATE FUNCTION token(text) RETURNS text LANGUAGE sql AS $$SELECT encode(sha256($1::bytea), 'hex')$$;
         INSERT INTO user_logins (user_id, device_type, masked_ip, masked_device_id, locale, app_version, create_date)
         SELECT 'user-' || lpad(n::text, 8, '0'), 'ios', token('ip ' || n % 40), token('device ' || n / 2 + n % 2),
             '<b>', 2003000, DATE '2026-11-13' - n % 30
         FROM generate_series(1, 60) AS n;
         INSERT INTO user_logins (user_id, masked_ip, create_date)
         SELECT 'many-' || n, token('hub'), DATE '2026-11-13' FROM generate_series(1, 51) AS n;
         INSERT INTO user_logins (user_id, masked_ip, masked_device_id, create_date)
         SELECT user_id, token('hub'), token('hostile'), DATE '2026-11-12' - n % 3
         FROM (VALUES {hostile}) AS hostile (user_id), generate_series(1, 3) AS n;
         INSERT INTO user_logins (user_id, masked_device_id, create_date)
         SELECT repeat(letter, 128), token('hostile'), DATE '2026-11-13'
         FROM unnest(ARRAY['W', '字', '\"', '<', chr(8238)]) AS letter;"
    )
}

/// 200 tokens and users around a token, all with the longest ids.
fn crowded() -> String {
    "CREATE FUNCTION token(text) RETURNS text LANGUAGE sql AS $$SELECT encode(sha256($1::bytea), 'hex')$$;
     INSERT INTO user_logins (user_id, masked_ip, masked_device_id, create_date)
     SELECT repeat(chr(8238), 125) || lpad(n::text, 3, '0'), token('root'), token('device ' || n % 100),
         DATE '2026-11-13' - n % 28
     FROM generate_series(1, 50) AS n;
     INSERT INTO user_logins (user_id, masked_device_id, create_date)
     SELECT repeat('\"', 125) || lpad(n::text, 3, '0'), token('device ' || n % 50 + 1), DATE '2026-11-13' - n % 28
     FROM generate_series(1, 400) AS n;"
        .to_owned()
}

const VIEWS: [&str; 10] = [
    "/",
    "/?days=90&day=2026-11-13",
    "/duplicates",
    "/duplicates?field=ip&period=all&min_users=2",
    "/rings",
    "/rings/{ring}",
    "/tokens/{hostile}",
    "/tokens/{hostile}?depth=3",
    "/tokens/{hub}?depth=1",
    "/tokens/{device}?depth=3",
];

/// Returns the paths of all views of the database that [`busy`] fills.
async fn views(page: &Page) -> Vec<String> {
    let sql = "SELECT token('hostile'), token('hub'), token('device 1'), (SELECT ring FROM analytics.rings LIMIT 1)";
    let row = page.admin.query_one(sql, &[]).await.unwrap();
    let [hostile, hub, device, ring] = [0, 1, 2, 3].map(|place| row.get::<_, String>(place));
    let names = [("{hostile}", hostile), ("{hub}", hub), ("{device}", device), ("{ring}", ring)];
    let fill =
        |view: &str| names.iter().fold(view.to_owned(), |view, (name, value)| view.replace(name, value));
    VIEWS.map(fill).to_vec()
}

#[tokio::test]
async fn views_are_small_well_formed_html() {
    let page = Page::of(&busy()).await;

    for view in views(&page).await {
        let answer = page.get(&view).await;

        assert_eq!(answer.status, StatusCode::OK, "{view}");
        assert!(answer.body.len() <= MAX_SIZE, "{view} has {} bytes", answer.body.len());
        assert_eq!(answer.headers[header::CONTENT_TYPE], "text/html; charset=utf-8");
        check_html(&answer.body);
    }
}

#[tokio::test]
async fn crowded_neighbourhood_fits() {
    let page = Page::of(&crowded()).await;
    let row = page.admin.query_one("SELECT token('root')", &[]).await.unwrap();
    let view = format!("/tokens/{}?depth=3", row.get::<_, String>(0));

    let answer = page.get(&view).await;

    assert_eq!(answer.status, StatusCode::OK);
    assert!(answer.body.len() <= MAX_SIZE, "{} bytes", answer.body.len());
    assert!(answer.body.contains("the neighbourhood is larger than the page shows"));
    check_html(&answer.body);
}

#[tokio::test]
async fn hostile_texts_are_escaped() {
    let page = Page::of(&busy()).await;
    let hostile = &views(&page).await[6];

    let body = page.get(hostile).await.body;

    for markup in ["<script", "<img", "onerror=alert(1)>", "\u{202e}n"] {
        assert!(!without_values(&body).contains(markup), "{markup}");
    }
    assert!(body.contains("user⟨U+202E⟩nimda"));
    assert!(body.contains("&#60;script&#62;alert(1)&#60;/script&#62;"));
}

#[tokio::test]
async fn links_lead_to_views() {
    let page = Page::of(&busy()).await;
    let mut left = BTreeSet::from(["/".to_owned()]);
    let mut seen = BTreeSet::new();

    while let Some(view) = left.pop_first() {
        let answer = page.get(&view).await;
        assert_eq!(answer.status, StatusCode::OK, "{view}");
        seen.insert(view.clone());
        if !answer.headers[header::CONTENT_TYPE].to_str().unwrap().starts_with("text/html")
            || seen.len() > 150
        {
            continue;
        }
        for link in attributes(&answer.body, &["href", "action"]) {
            assert!(!link.starts_with('/') && !link.contains("//"), "{link} in {view} is not relative");
            let path = resolve(&view, &link);
            if path != "/search" && !seen.contains(&path) {
                left.insert(path);
            }
        }
    }

    for view in ["/duplicates", "/rings", "/style.css", "/icon.svg", "/openapi.json"] {
        assert!(seen.contains(view), "{view}");
    }
    assert!(seen.iter().any(|path| path.starts_with("/v1/tokens/") && path.ends_with("format=csv")));
}

#[tokio::test]
async fn sql_of_a_view_returns_its_rows() {
    let page = Page::of(&busy()).await;

    for view in views(&page).await {
        let body = page.get(&view).await.body;
        let statements = between(&body, "<pre tabindex=\"0\"><code>", "</code></pre>");
        assert!(!statements.is_empty(), "{view}");
        for statement in statements {
            let statement = unescape(&statement);
            let cells = page.first_column(&statement).await;
            assert!(!cells.is_empty(), "{view}: {statement}");
            if view.starts_with("/duplicates") {
                assert_eq!(
                    between(&body, "<th scope=\"row\"><a class=\"token\" href=\"./tokens/", "\""),
                    cells
                );
            }
        }
    }
}

#[tokio::test]
async fn token_search_redirects_to_its_view() {
    let page = Page::of(&busy()).await;
    let token = "AB".repeat(32);

    let answer = page.search(&[("kind", "token"), ("value", &format!(" {token}\n"))]).await;

    assert_eq!(answer.status, StatusCode::SEE_OTHER);
    assert_eq!(answer.headers[header::LOCATION], format!("./tokens/{}", "ab".repeat(32)));
}

#[tokio::test]
async fn address_as_token_is_not_repeated() {
    let page = Page::of(&busy()).await;

    let searched = page.search(&[("kind", "token"), ("value", "203.0.113.77")]).await;
    let linked = page.get("/tokens/203.0.113.77").await;

    for answer in [searched, linked] {
        assert_eq!(answer.status, StatusCode::BAD_REQUEST);
        assert!(!answer.body.contains("203.0.113"));
        check_html(&answer.body);
    }
}

#[tokio::test]
async fn user_search_stays_out_of_urls() {
    let page = Page::of(&busy()).await;
    let user = HOSTILE_USERS[1];

    let answer = page.search(&[("kind", "user_id"), ("value", user)]).await;

    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.headers[header::CACHE_CONTROL], "no-store");
    assert_eq!(between(&answer.body, "<a class=\"token\" href=\"./tokens/", "\"").len(), 2);
    assert!(answer.body.contains("this view has no permalink"));
    assert!(attributes(&answer.body, &["href", "action"]).iter().all(|link| !link.contains("img")));
    check_html(&answer.body);
}

#[tokio::test]
async fn user_search_answers_csv_and_json() {
    let page = Page::of(&busy()).await;
    let form = [("kind", "user_id"), ("value", "user-00000001")];

    let csv = page.search(&[&form[..], &[("format", "csv")]].concat()).await;
    let json = page.search(&[&form[..], &[("format", "json")]].concat()).await;

    assert_eq!(csv.body.lines().count(), 3);
    assert!(csv.body.starts_with("field,token,users,logins,first_day,last_day\r\n"));
    let json: serde_json::Value = serde_json::from_str(&json.body).unwrap();
    assert_eq!(json["rows"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn known_view_is_not_sent_again() {
    let page = Page::of(&busy()).await;
    let first = page.get("/rings").await;
    let request = Request::get("/rings").header(header::IF_NONE_MATCH, first.headers[header::ETAG].clone());

    let second = page.send(request.body(Body::empty()).unwrap()).await;

    assert_eq!(second.status, StatusCode::NOT_MODIFIED);
    assert_eq!(second.body, "");
    assert_eq!(second.headers[header::ETAG], first.headers[header::ETAG]);
}

#[tokio::test]
async fn errors_are_pages() {
    let page = Page::of(&busy()).await;
    let long = "x".repeat(5000);

    let answers = [
        (page.get("/duplicates?period=3d").await, StatusCode::BAD_REQUEST),
        (page.get("/duplicates?field=ip&field=ip").await, StatusCode::BAD_REQUEST),
        (page.get("/tokens/%00").await, StatusCode::BAD_REQUEST),
        (page.get(&format!("/tokens/{}", "0".repeat(64))).await, StatusCode::NOT_FOUND),
        (page.get(&format!("/rings/{}", "0".repeat(64))).await, StatusCode::NOT_FOUND),
        (page.get("/nothing/is/here").await, StatusCode::NOT_FOUND),
        (
            page.send(Request::delete("/rings").body(Body::empty()).unwrap()).await,
            StatusCode::METHOD_NOT_ALLOWED,
        ),
        (
            page.send(Request::get("/search").body(Body::empty()).unwrap()).await,
            StatusCode::METHOD_NOT_ALLOWED,
        ),
        (page.search(&[("kind", "token"), ("value", &long)]).await, StatusCode::PAYLOAD_TOO_LARGE),
        (page.search(&[("kind", "user_id"), ("value", "a\0b")]).await, StatusCode::BAD_REQUEST),
        (page.search(&[("kind", "user_id")]).await, StatusCode::BAD_REQUEST),
    ];

    for (answer, status) in answers {
        assert_eq!(answer.status, status);
        assert_eq!(answer.headers[header::CONTENT_TYPE], "text/html; charset=utf-8");
        assert!(answer.headers.contains_key(header::ALLOW) == (status == StatusCode::METHOD_NOT_ALLOWED));
        check_html(&answer.body);
    }
}

#[tokio::test]
async fn missing_rollups_are_explained() {
    let database = Database::create().await;

    let answer = get(&database.api().await, "/").await;

    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(answer.headers.contains_key(header::RETRY_AFTER));
    assert!(answer.body.contains("not rolled up yet"));
    check_html(&answer.body);
}

#[tokio::test]
async fn database_without_logins_has_empty_views() {
    let page = Page::of("").await;

    for view in ["/", "/duplicates", "/rings"] {
        let answer = page.get(view).await;

        assert_eq!(answer.status, StatusCode::OK, "{view}");
        assert!(answer.body.contains("There are no logins yet."));
        check_html(&answer.body);
    }
}

#[tokio::test]
async fn answers_allow_nothing_from_elsewhere() {
    let page = Page::of("").await;

    for path in ["/", "/style.css", "/icon.svg", "/missing"] {
        let headers = page.get(path).await.headers;

        assert_eq!(
            headers[header::CONTENT_SECURITY_POLICY],
            "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; \
             frame-ancestors 'none'"
        );
        assert_eq!(headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
        assert_eq!(headers[header::REFERRER_POLICY], "same-origin");
        assert_eq!(headers["cross-origin-resource-policy"], "same-origin");
    }
}

/// Checks what a browser would otherwise mend or refuse: the nesting of the elements, attributes that the content
/// security policy forbids, and ids that occur twice.
fn check_html(html: &str) {
    const VOID: [&str; 4] = ["meta", "link", "input", "!doctype"];
    let mut open: Vec<&str> = Vec::new();
    for tag in between_str(html, '<', '>') {
        let name = tag.trim_start_matches('/').split([' ', '\n', '/']).next().unwrap();
        if tag.starts_with('/') {
            assert_eq!(open.pop(), Some(name), "before </{name}>");
        } else if !tag.ends_with('/') && !VOID.contains(&name) {
            open.push(name);
        }
        // The parts between quotes are values.
        for attribute in tag.split('"').step_by(2).flat_map(|part| part.split([' ', '=', '\n'])) {
            assert!(attribute != "style" && !attribute.starts_with("on"), "{tag}");
        }
    }
    assert!(open.is_empty(), "{open:?} are not closed");
    let ids = attributes(html, &["id"]);
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "an id occurs twice: {ids:?}");
    assert_eq!(html.matches("<h1>").count(), 1);
    assert!(!html.contains("<script"));
}

fn between_str(text: &str, start: char, end: char) -> Vec<&str> {
    text.split(start).skip(1).map(|part| part.split(end).next().unwrap()).collect()
}

/// Returns the texts between each `start` and the next `end`.
fn between(text: &str, start: &str, end: &str) -> Vec<String> {
    text.split(start).skip(1).map(|part| part.split(end).next().unwrap().to_owned()).collect()
}

fn attributes(html: &str, names: &[&str]) -> Vec<String> {
    names
        .iter()
        .flat_map(|name| between(html, &format!(" {name}=\""), "\""))
        .map(|value| unescape(&value))
        .collect()
}

/// Leaves out the values of attributes, which may have each character except a quote.
fn without_values(html: &str) -> String {
    html.split(" value=\"").map(|part| part.split_once('"').map_or(part, |(_, rest)| rest)).collect()
}

fn unescape(text: &str) -> String {
    let entities =
        [("&#60;", "<"), ("&#62;", ">"), ("&#34;", "\""), ("&#39;", "'"), ("&#38;", "&"), ("&amp;", "&")];
    entities.iter().fold(text.to_owned(), |text, (entity, character)| text.replace(entity, character))
}

/// Resolves a relative link, as a browser does, without its fragment.
fn resolve(view: &str, link: &str) -> String {
    let link = link.split('#').next().unwrap();
    let path = view.split('?').next().unwrap();
    if link.is_empty() {
        return view.to_owned();
    }
    let mut segments: Vec<_> = path.split('/').collect();
    segments.pop();
    let (link, query) = link.split_once('?').map_or((link, None), |(link, query)| (link, Some(query)));
    for segment in link.split('/') {
        match segment {
            "." => {}
            ".." => {
                assert!(segments.len() > 1, "{link} in {view} leaves the page");
                segments.pop();
            }
            segment => segments.push(segment),
        }
    }
    let path = segments.join("/");
    query.map_or(path.clone(), |query| format!("{path}?{query}"))
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
