//! The page: views of the rollups as HTML, for people.
//!
//! Each view sends the statements of the API's queries, so it always shows the rows of the API. All links are relative:
//! the page works behind any prefix of the path.

use std::convert::Infallible;

use askama::Template;
use axum::Router;
use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use serde::Deserialize;

use crate::answer::Reply;
use crate::cursor::NumberThenKey;
use crate::database::Database;
use crate::etag::{etag, is_known};
use crate::negotiation::Format;
use crate::parameters::{Day, Field, Number, Period, Token, UserId};
use crate::problem::Problem;
use crate::queries::daily::{Daily, DailyCount};
use crate::queries::duplicates::Duplicates;
use crate::queries::neighbours::{Graph, Neighbours};
use crate::queries::tokens::{TokenDay, TokenPeriod};
use crate::queries::users::UserTokens;
use crate::queries::{rings as ring_queries, tokens as token_queries};
use crate::request::{Form, Query, TokenInPath};
use crate::rows::{self, Page, Row};
use crate::statement::Statement;

mod bars;
mod drawing;
mod filters;
mod finish;
mod layout;
mod links;
mod text;
mod views;

use drawing::Neighbourhood;
pub(crate) use finish::finish;
use links::{Offer, link};
use views::{Chart, Frame, Group};

/// Rows of a list.
const ROWS: u32 = 50;
/// Rows of a list on the overview.
const TOP_ROWS: u32 = 10;
/// Users in a list: they are few, because a user id may be long and the view has at most 60 KB.
const USERS: u32 = 20;

/// Says why the search refuses a text, without repeating it: it may be an address.
const NOT_A_TOKEN: &str = "a token has 64 hexadecimal digits. The page takes no address and no device id: only their \
                           tokens are stored";

type Answer = Result<Response, Problem>;

/// The routes of the page.
pub(crate) fn router(database: &Database) -> Router<Database> {
    let views = Router::new()
        .route("/", get(overview))
        .route("/duplicates", get(duplicates))
        .route("/rings", get(rings))
        .route("/rings/{ring}", get(ring))
        .route("/tokens/{token}", get(token))
        .route_layer(middleware::from_fn_with_state(database.clone(), unless_known));
    let others = Router::new()
        .route("/search", post(search))
        .route("/style.css", get(async || file("text/css; charset=utf-8", views::STYLE)))
        .route("/icon.svg", get(async || file("image/svg+xml", views::ICON)));
    views.merge(others)
}

/// Answers with 304 if the browser has the view already, without a query.
async fn unless_known(State(database): State<Database>, mut request: Request, next: Next) -> Answer {
    let freshness = database.freshness().await?;
    // The views show the time of the roll-up, which changes also if the rows do not.
    let tag = etag(&freshness, &format!("html-{}", freshness.rolled_up_at.as_second()));
    let mut response = if is_known(request.headers(), &tag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        request.extensions_mut().insert(freshness);
        next.run(request).await
    };
    if !response.status().is_client_error()
        && !response.status().is_server_error()
        && let Ok(tag) = HeaderValue::from_str(&tag)
    {
        response.headers_mut().insert(header::ETAG, tag);
    }
    Ok(response)
}

/// The days of the chart on the overview.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OverviewDays {
    day: Option<Day>,
    #[serde(default)]
    days: Number<1, 92, 28>,
}

async fn overview(
    State(database): State<Database>,
    frame: Frame,
    Query(range): Query<OverviewDays>,
) -> Answer {
    let OverviewDays { day, days } = range;
    let through = frame.last_day();
    let last = day.unwrap_or(through);
    let daily = Daily {
        day: Some(last),
        days: number(u32::try_from(days.get()).unwrap_or_default()),
        ..Daily::default()
    };
    let top = Page { limit: number(TOP_ROWS), ..Page::default() };

    let daily = daily.statement(through);
    let devices = top_duplicates(Field::DeviceId);
    let addresses = top_duplicates(Field::Ip);
    let largest_rings = ring_queries::statement(&top);

    let [counts, device_rows, address_rows, rings] =
        database.pipelined([&daily, &devices, &addresses, &largest_rings]).await?;

    let range = [("day", last.to_string()), ("days", days.get().to_string())];
    let counts = rows::read::<DailyCount>(&counts)?;
    let counts = counts.iter().map(|count| (count.day.0, count.logins, count.users));
    Ok(page(&views::Overview {
        frame: frame.titled("Overview"),
        days: days.get(),
        chart: Chart::new("Logins per day", last.0, days.get(), counts),
        daily_offer: Offer::new("logins per day", &database, &daily)
            .in_api(link("v1/daily", &range))
            .at(link("", &range)),
        groups: [
            top_group(&database, Field::DeviceId, &devices, &device_rows)?,
            top_group(&database, Field::Ip, &addresses, &address_rows)?,
        ],
        rings: rows::read(&rings)?,
        rings_offer: Offer::new("rings", &database, &largest_rings)
            .in_api(link("v1/rings", &[("limit", TOP_ROWS.to_string())]))
            .at("rings".to_owned()),
    }))
}

fn top_duplicates(field: Field) -> Statement {
    let question = Duplicates {
        field,
        period: Period::Month,
        min_users: Number::default(),
        limit: number(TOP_ROWS),
        after: NumberThenKey::default(),
    };
    question.statement()
}

fn top_group(
    database: &Database,
    field: Field,
    statement: &Statement,
    rows: &[tokio_postgres::Row],
) -> Result<Group, Problem> {
    let name = match field {
        Field::DeviceId => "shared devices",
        Field::Ip => "shared addresses",
    };
    let filter = [("field", field.name().to_owned()), ("period", "28d".to_owned())];
    let limit = [("limit", TOP_ROWS.to_string())];
    let offer = Offer::new(name, database, statement)
        .in_api(link("v1/duplicates", &[&filter[..], &limit].concat()))
        .at(link("duplicates", &filter));
    Ok(Group { field, rows: rows::read(rows)?, offer })
}

/// The filters of the list of duplicates.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DuplicatesFilter {
    #[serde(default = "device_id")]
    field: Field,
    #[serde(default)]
    period: Period,
    #[serde(default)]
    min_users: Number<2, 1_000_000, 2>,
    #[serde(default)]
    after: NumberThenKey,
}

fn device_id() -> Field {
    Field::DeviceId
}

async fn duplicates(
    State(database): State<Database>,
    frame: Frame,
    Query(filter): Query<DuplicatesFilter>,
) -> Answer {
    let DuplicatesFilter { field, period, min_users, after } = filter;
    let filter = [
        ("field", field.name().to_owned()),
        ("period", period.name().to_owned()),
        ("min_users", min_users.get().to_string()),
    ];
    let filtered = |path, more: &[_]| link(path, &[&filter, more].concat());
    let here = ("after", position(&after));
    let question = Duplicates { field, period, min_users, limit: number(ROWS), after };

    let rows = question.rows(&database).await?;

    Ok(page(&views::Duplicates {
        frame: frame.titled("Duplicates"),
        field,
        period,
        min_users: min_users.get(),
        next: next(&rows, ROWS).map(|after| filtered("duplicates", &[("after", after)])),
        rows,
        offer: Offer::new("duplicates", &database, &question.statement())
            .in_api(filtered("v1/duplicates", &[("limit", ROWS.to_string()), here.clone()]))
            .at(filtered("duplicates", &[here])),
    }))
}

/// The place from which a list continues.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Continued {
    #[serde(default)]
    after: NumberThenKey,
}

async fn rings(
    State(database): State<Database>,
    frame: Frame,
    Query(Continued { after }): Query<Continued>,
) -> Answer {
    let here = ("after", position(&after));
    let part = Page { limit: number(ROWS), after };

    let rows = ring_queries::rows(&database, &part).await?;

    Ok(page(&views::Rings {
        frame: frame.titled("Rings"),
        next: next(&rows, ROWS).map(|after| link("rings", &[("after", after)])),
        rows,
        offer: Offer::new("rings", &database, &ring_queries::statement(&part))
            .in_api(link("v1/rings", &[("limit", ROWS.to_string()), here.clone()]))
            .at(link("rings", &[here])),
    }))
}

async fn ring(
    State(database): State<Database>,
    frame: Frame,
    TokenInPath(name): TokenInPath,
    Query(Continued { after }): Query<Continued>,
) -> Answer {
    let here = ("after", position(&after));
    let part = Page { limit: number(USERS), after };
    let top = Page { limit: number(TOP_ROWS), ..Page::default() };

    let ring = ring_queries::ring_statement(&name);
    let devices = ring_queries::devices_statement(&name, &top);
    let members = ring_queries::members_statement(&name, &part);

    let [ring_rows, device_rows, member_rows] = database.pipelined([&ring, &devices, &members]).await?;

    let found = rows::read(&ring_rows)?.pop();
    let found = found.ok_or_else(|| Problem::not_found("there is no such ring in the last 28 days"))?;
    let member_rows = rows::read(&member_rows)?;
    let (view, api) = (format!("rings/{name}"), format!("v1/rings/{name}"));
    Ok(page(&views::OneRing {
        frame: frame.titled(format!("Ring {}", text::shorten(name.as_str()))),
        ring: found,
        offer: Offer::new("ring", &database, &ring).in_api(api.clone()).at(view.clone()),
        devices: rows::read(&device_rows)?,
        devices_offer: Offer::new("devices", &database, &devices)
            .in_api(link(&format!("{api}/devices"), &[("limit", TOP_ROWS.to_string())])),
        next: next(&member_rows, USERS).map(|after| link(&view, &[("after", after)])),
        members: member_rows,
        members_offer: Offer::new("users", &database, &members)
            .in_api(link(&format!("{api}/members"), &[("limit", USERS.to_string()), here.clone()]))
            .at(link(&view, &[here])),
    }))
}

/// The parts of the view of a token.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenParts {
    #[serde(default)]
    depth: Number<1, 3, 2>,
    #[serde(default)]
    after: NumberThenKey,
}

async fn token(
    State(database): State<Database>,
    frame: Frame,
    TokenInPath(token): TokenInPath,
    Query(TokenParts { depth, after }): Query<TokenParts>,
) -> Answer {
    let here = ("after", position(&after));
    let part = Page { limit: number(USERS), after };
    let around = Neighbours { depth };

    let periods = token_queries::statement(&token);
    let daily = token_queries::daily_statement(&token);
    let neighbours = around.statement(&token);
    let users = token_queries::users_statement(&token, &part);

    let [period_rows, day_rows, neighbour_rows, user_rows] =
        database.pipelined([&periods, &daily, &neighbours, &users]).await?;

    let period_rows = rows::read::<TokenPeriod>(&period_rows)?;
    let field = period_rows.first().ok_or_else(|| Problem::not_found("no login has this token"))?.field;
    let title = format!("{} {}", text::kind(field), text::shorten(token.as_str()));
    let days = rows::read::<TokenDay>(&day_rows)?;
    let days = days.iter().map(|day| (day.day.0, day.logins, day.users));
    let neighbourhood = Neighbourhood::new(&Graph::of(&rows::read(&neighbour_rows)?));
    let (view, api) = (format!("tokens/{token}"), format!("v1/tokens/{token}"));
    let depth = [("depth", depth.get().to_string())];
    let through = frame.last_day();
    let view = views::OneToken {
        frame: frame.titled(title),
        periods: period_rows,
        offer: Offer::new("figures", &database, &periods).in_api(api.clone()).at(view.clone()),
        chart: Chart::new("Logins per day", through.0, 28, days),
        chart_offer: Offer::new("timeline", &database, &daily)
            .in_api(format!("{api}/daily"))
            .at(view.clone()),
        depth: around.depth.get(),
        drawing: neighbourhood.draw(usize::MAX),
        neighbourhood,
        drawing_offer: Offer::new("neighbourhood", &database, &neighbours)
            .in_api(link(&format!("{api}/neighbours"), &depth))
            .at(link(&view, &depth)),
        users: rows::read(&user_rows)?,
        users_limit: USERS,
        users_offer: Offer::new("users", &database, &users)
            .in_api(link(&format!("{api}/users"), &[("limit", USERS.to_string()), here.clone()]))
            .at(link(&view, &[&depth[..], &[here]].concat())),
        token,
    };
    Ok(Html(view.fitting_html()).into_response())
}

/// A search. It is in the body, because a user id must not stand in a URL.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Search {
    kind: SearchKind,
    value: String,
    /// For a user id: the rows in another form than the page.
    format: Option<Format>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum SearchKind {
    Token,
    UserId,
}

async fn search(
    State(database): State<Database>,
    frame: Frame,
    uri: Uri,
    Form(Search { kind, value, format }): Form<Search>,
) -> Answer {
    match kind {
        SearchKind::Token => {
            let token = Token::try_from(value.trim().to_ascii_lowercase());
            let token = token.map_err(|_| Problem::bad_request(NOT_A_TOKEN))?;
            Ok(Redirect::to(&format!("./tokens/{token}")).into_response())
        }
        SearchKind::UserId => {
            let user_id =
                UserId::try_from(value).map_err(|rule| Problem::bad_request(format!("a user id {rule}")))?;
            let mut response = user(&database, frame, uri, user_id, format).await?;
            // Browsers must not keep what they show of a user.
            response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
            Ok(response)
        }
    }
}

async fn user(
    database: &Database,
    frame: Frame,
    uri: Uri,
    user_id: UserId,
    format: Option<Format>,
) -> Answer {
    let freshness = database.freshness().await?;
    let question = UserTokens { user_id, limit: number(ROWS), after: NumberThenKey::default() };

    let rows = question.rows(database).await?;

    Ok(match format {
        Some(format) => Reply { freshness, format, uri, etag: None }.table(&rows),
        None => page(&views::OneUser {
            frame: Frame { freshness: Some(freshness), ..frame.titled("User") },
            user_id: question.user_id.as_str().to_owned(),
            is_cut: next(&rows, ROWS).is_some(),
            rows,
            offer: Offer::new("tokens of the user", database, &question.statement()),
        }),
    })
}

/// Returns the number, which the code keeps within the bounds.
fn number<const MIN: u32, const MAX: u32, const DEFAULT: u32>(number: u32) -> Number<MIN, MAX, DEFAULT> {
    Number::new(number).unwrap_or_default()
}

/// Returns the place after the last row, unless there are no more rows.
fn next<R: Row>(rows: &[R], limit: u32) -> Option<String> {
    rows.last().filter(|_| rows.len() >= limit as usize)?.position()
}

/// Writes the place that a request continues from. The start has none.
fn position(after: &NumberThenKey) -> String {
    if after.key.is_empty() { String::new() } else { format!("{},{}", after.number, after.key) }
}

fn page(view: &impl Template) -> Response {
    Html(views::html(view)).into_response()
}

fn file(media_type: &'static str, content: &'static str) -> Response {
    ([(header::CONTENT_TYPE, media_type), (header::CACHE_CONTROL, "private, max-age=300")], content)
        .into_response()
}

/// Reads how fresh the rollups are and where `/` is.
impl<S: Sync> FromRequestParts<S> for Frame {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let freshness = parts.extensions.get().cloned();
        Ok(Self { title: String::new(), root: finish::root(parts.uri.path()), freshness })
    }
}
