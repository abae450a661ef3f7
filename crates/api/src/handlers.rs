//! The operations: each reads the request, runs a query, and writes the answer.

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};

use crate::answer::Stop;
use crate::database::Database;
use crate::freshness::Freshness;
use crate::negotiation::{Format, FormatParameter};
use crate::openapi::{BodyProblems, GraphOf, PathProblems, Problems, TableOf};
use crate::parameters::Token;
use crate::problem::Problem;
use crate::queries::daily::{Daily, DailyCount};
use crate::queries::duplicates::{Duplicate, Duplicates};
use crate::queries::logins::{Login, TokenLogins, UserLogins};
use crate::queries::neighbours::Neighbours;
use crate::queries::rings::{Ring, RingMember};
use crate::queries::tokens::{TokenDay, TokenPeriod, TokenUser};
use crate::queries::users::{UserToken, UserTokens};
use crate::queries::{rings as ring_queries, tokens as token_queries};
use crate::request::{Body, Query, TokenInPath, Wanted};
use crate::rows::{NoParameters, Page};

type Answer = Result<Response, Stop>;

/// Says how fresh the answers are.
#[utoipa::path(
    get,
    path = "/v1/freshness",
    responses((status = 200, description = "How fresh the answers are.", body = Freshness), Problems)
)]
pub(crate) async fn freshness(
    State(database): State<Database>,
    headers: HeaderMap,
    _: Query<NoParameters>,
) -> Answer {
    Format::negotiate(&headers, &[Format::Json])?;
    Ok(Json(database.freshness().await?).into_response())
}

/// Lists the tokens that several users share, the most shared first.
#[utoipa::path(
    get,
    path = "/v1/duplicates",
    params(Duplicates, FormatParameter),
    responses(TableOf<Duplicate>, Problems)
)]
pub(crate) async fn duplicates(
    State(database): State<Database>,
    wanted: Wanted,
    Query(parameters): Query<Duplicates>,
) -> Answer {
    let reply = wanted.of_rollups(&database).await?;
    let rows = parameters.rows(&database).await?;
    Ok(reply.page(rows, parameters.limit.get()))
}

/// Lists the groups of users that share devices, the largest first.
#[utoipa::path(
    get,
    path = "/v1/rings",
    params(Page, FormatParameter),
    responses(TableOf<Ring>, Problems)
)]
pub(crate) async fn rings(
    State(database): State<Database>,
    wanted: Wanted,
    Query(page): Query<Page>,
) -> Answer {
    let reply = wanted.of_rollups(&database).await?;
    let rows = ring_queries::rows(&database, &page).await?;
    Ok(reply.page(rows, page.limit.get()))
}

/// Returns a ring.
#[utoipa::path(
    get,
    path = "/v1/rings/{ring}",
    params(("ring" = inline(Token), Path, description = "The name of the ring."), FormatParameter),
    responses(TableOf<Ring>, PathProblems)
)]
pub(crate) async fn ring(
    State(database): State<Database>,
    wanted: Wanted,
    TokenInPath(ring): TokenInPath,
    _: Query<NoParameters>,
) -> Answer {
    let reply = wanted.of_rollups(&database).await?;
    let rows = ring_queries::ring(&database, &ring).await?;
    Ok(reply.table(&found(rows)?))
}

/// Lists the devices that connect the users of a ring, the most shared first.
#[utoipa::path(
    get,
    path = "/v1/rings/{ring}/devices",
    params(("ring" = inline(Token), Path, description = "The name of the ring."), Page, FormatParameter),
    responses(TableOf<Duplicate>, PathProblems)
)]
pub(crate) async fn ring_devices(
    State(database): State<Database>,
    wanted: Wanted,
    TokenInPath(ring): TokenInPath,
    Query(page): Query<Page>,
) -> Answer {
    let reply = wanted.of_rollups(&database).await?;
    let rows = ring_queries::devices(&database, &ring, &page).await?;
    Ok(reply.page(rows, page.limit.get()))
}

/// Lists the users of a ring, those with the most logins on its devices first.
#[utoipa::path(
    get,
    path = "/v1/rings/{ring}/members",
    params(("ring" = inline(Token), Path, description = "The name of the ring."), Page, FormatParameter),
    responses(TableOf<RingMember>, PathProblems)
)]
pub(crate) async fn ring_members(
    State(database): State<Database>,
    wanted: Wanted,
    TokenInPath(ring): TokenInPath,
    Query(page): Query<Page>,
) -> Answer {
    let reply = wanted.of_rollups(&database).await?;
    let rows = ring_queries::members(&database, &ring, &page).await?;
    Ok(reply.page(rows, page.limit.get()))
}

/// Counts the users and logins of a token in each period that has any.
#[utoipa::path(
    get,
    path = "/v1/tokens/{token}",
    params(("token" = inline(Token), Path, description = "The masked value."), FormatParameter),
    responses(TableOf<TokenPeriod>, PathProblems)
)]
pub(crate) async fn token(
    State(database): State<Database>,
    wanted: Wanted,
    TokenInPath(token): TokenInPath,
    _: Query<NoParameters>,
) -> Answer {
    let reply = wanted.of_rollups(&database).await?;
    let rows = token_queries::rows(&database, &token).await?;
    Ok(reply.table(&found(rows)?))
}

/// Counts the logins of a token on each of the last 28 days that has any, the last day first.
#[utoipa::path(
    get,
    path = "/v1/tokens/{token}/daily",
    params(("token" = inline(Token), Path, description = "The masked value."), FormatParameter),
    responses(TableOf<TokenDay>, PathProblems)
)]
pub(crate) async fn token_daily(
    State(database): State<Database>,
    wanted: Wanted,
    TokenInPath(token): TokenInPath,
    _: Query<NoParameters>,
) -> Answer {
    let reply = wanted.of_rollups(&database).await?;
    let rows = token_queries::daily(&database, &token).await?;
    Ok(reply.table(&rows))
}

/// Lists the users of a token, at most 1,000 of them, those with the most logins first.
#[utoipa::path(
    get,
    path = "/v1/tokens/{token}/users",
    params(("token" = inline(Token), Path, description = "The masked value."), Page, FormatParameter),
    responses(TableOf<TokenUser>, PathProblems)
)]
pub(crate) async fn token_users(
    State(database): State<Database>,
    wanted: Wanted,
    TokenInPath(token): TokenInPath,
    Query(page): Query<Page>,
) -> Answer {
    let reply = wanted.of_rollups(&database).await?;
    let rows = token_queries::users(&database, &token, &page).await?;
    Ok(reply.page(rows, page.limit.get()))
}

/// Lists the logins with a token, the latest day first. Slow: it reads all logins of the days.
#[utoipa::path(
    get,
    path = "/v1/tokens/{token}/logins",
    params(("token" = inline(Token), Path, description = "The masked value."), TokenLogins, FormatParameter),
    responses(TableOf<Login>, PathProblems)
)]
pub(crate) async fn token_logins(
    State(database): State<Database>,
    wanted: Wanted,
    TokenInPath(token): TokenInPath,
    Query(parameters): Query<TokenLogins>,
) -> Answer {
    let reply = wanted.of_logins(&database).await?;
    let rows = parameters.rows(&database, &token, reply.freshness.last_day()).await?;
    Ok(reply.page(rows, parameters.limit.get()))
}

/// Returns the users of a token, their tokens, and the users of those, as a graph.
#[utoipa::path(
    get,
    path = "/v1/tokens/{token}/neighbours",
    params(("token" = inline(Token), Path, description = "The masked value."), Neighbours, FormatParameter),
    responses(GraphOf, PathProblems)
)]
pub(crate) async fn neighbours(
    State(database): State<Database>,
    wanted: Wanted,
    TokenInPath(token): TokenInPath,
    Query(parameters): Query<Neighbours>,
) -> Answer {
    let reply = wanted.of_rollups(&database).await?;
    let rows = parameters.rows(&database, &token).await?;
    Ok(reply.graph(found(rows)?))
}

/// Counts the logins and the different users of each day, the latest day first.
#[utoipa::path(
    get,
    path = "/v1/daily",
    params(Daily, FormatParameter),
    responses(TableOf<DailyCount>, Problems)
)]
pub(crate) async fn daily(
    State(database): State<Database>,
    wanted: Wanted,
    Query(parameters): Query<Daily>,
) -> Answer {
    let reply = wanted.of_rollups(&database).await?;
    let rows = parameters.rows(&database, reply.freshness.last_day()).await?;
    Ok(reply.page(rows, parameters.limit.get()))
}

/// Lists the tokens that a user logged in with, the most shared first.
#[utoipa::path(
    post,
    path = "/v1/users/search",
    request_body = UserTokens,
    params(FormatParameter),
    responses(TableOf<UserToken>, BodyProblems)
)]
pub(crate) async fn user_tokens(
    State(database): State<Database>,
    wanted: Wanted,
    _: Query<NoParameters>,
    Body(parameters): Body<UserTokens>,
) -> Answer {
    let reply = wanted.of_rollups(&database).await?;
    let rows = parameters.rows(&database).await?;
    Ok(reply.page(rows, parameters.limit.get()))
}

/// Lists the logins of a user, the latest day first. Slow: it reads all logins of the days.
#[utoipa::path(
    post,
    path = "/v1/logins/search",
    request_body = UserLogins,
    params(FormatParameter),
    responses(TableOf<Login>, BodyProblems)
)]
pub(crate) async fn user_logins(
    State(database): State<Database>,
    wanted: Wanted,
    _: Query<NoParameters>,
    Body(parameters): Body<UserLogins>,
) -> Answer {
    let reply = wanted.of_logins(&database).await?;
    let rows = parameters.rows(&database, reply.freshness.last_day()).await?;
    Ok(reply.page(rows, parameters.limit.get()))
}

/// Returns the rows, or a problem if there are none.
fn found<R>(rows: Vec<R>) -> Result<Vec<R>, Problem> {
    if rows.is_empty() { Err(Problem::not_found("no login of the rollups has it")) } else { Ok(rows) }
}
