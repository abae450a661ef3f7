//! The operations: read the request, ask the database, write the answer.

use axum::Json;
use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;

use crate::answer::{Page, Table};
use crate::database::{Database, DatabaseError};
use crate::etag::{etag, is_known};
use crate::negotiation::{Format, FormatParameter};
use crate::openapi::Problems;
use crate::problem::Problem;
use crate::queries::Row;
use crate::queries::duplicates::{Duplicate, Duplicates};
use crate::queries::freshness::Freshness;

type Answer = Result<Response, Problem>;

/// The parameters of a request.
pub(crate) struct Query<P> {
    pub(crate) parameters: P,
    pub(crate) format: Option<Format>,
}

/// How fresh the rollups are.
#[utoipa::path(
    get,
    path = "/v1/freshness",
    responses((status = 200, description = "How fresh the rollups are.", body = Freshness), Problems)
)]
pub(crate) async fn freshness(State(database): State<Database>, headers: HeaderMap) -> Answer {
    Format::negotiate(&headers, &[Format::Json])?;
    Ok(Json(database.freshness().await?).into_response())
}

/// The tokens that several users share, the most shared first.
#[utoipa::path(
    get,
    path = "/v1/duplicates",
    params(Duplicates, FormatParameter),
    responses(
        (status = 200, description = "The tokens.", content(
            (Table<Duplicate> = "application/json"),
            (String = "text/csv"),
        )),
        (status = 304, description = "The client has the answer already."),
        Problems
    )
)]
pub(crate) async fn duplicates(
    State(database): State<Database>,
    request: Conditional,
    query: Query<Duplicates>,
) -> Answer {
    let Query { parameters, format } = query;
    request.table(&database, format, parameters.limit.get(), || parameters.rows(&database)).await
}

/// The parts of a request on which the form of the answer depends.
pub(crate) struct Conditional {
    headers: HeaderMap,
    uri: Uri,
}

impl Conditional {
    /// Answers with rows of the rollups, or with 304 if the client has them already.
    async fn table<R: Row, F: Future<Output = Result<Vec<R>, DatabaseError>>>(
        &self,
        database: &Database,
        format: Option<Format>,
        limit: i64,
        rows: impl FnOnce() -> F,
    ) -> Answer {
        let format = match format {
            Some(format) => format,
            None => Format::negotiate(&self.headers, &[Format::Json, Format::Csv])?,
        };
        // Before the rows: they may be newer than the tag, and never older.
        let freshness = database.freshness().await?;
        let etag = etag(&freshness, format.in_etag());
        let mut response = if is_known(&self.headers, &etag) {
            StatusCode::NOT_MODIFIED.into_response()
        } else {
            let rows = rows().await?;
            Page { freshness: &freshness, rows, limit, format, uri: &self.uri }.into_response()
        };
        if let Ok(etag) = HeaderValue::from_str(&etag) {
            response.headers_mut().insert(header::ETAG, etag);
        }
        Ok(response)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Conditional {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Ok(Self { headers: parts.headers.clone(), uri: parts.uri.clone() })
    }
}

impl<S: Send + Sync, P: DeserializeOwned> FromRequestParts<S> for Query<P> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let query = parts.uri.query().unwrap_or_default();
        let pairs = form_urlencoded::parse(query.as_bytes());
        let (format, others): (Vec<_>, Vec<_>) = pairs.partition(|(name, _)| name == "format");
        let encode =
            |pairs| form_urlencoded::Serializer::new(String::new()).extend_pairs::<_, _, _>(pairs).finish();
        let format: FormatParameter = read(&encode(format))?;
        Ok(Self { parameters: read(&encode(others))?, format: format.format })
    }
}

/// Reads parameters. The text of an error is one of ours, unless it names a parameter that does not exist.
fn read<P: DeserializeOwned>(query: &str) -> Result<P, Problem> {
    let pairs = form_urlencoded::parse(query.as_bytes());
    serde_path_to_error::deserialize(serde_urlencoded::Deserializer::new(pairs)).map_err(|error| {
        let text = error.inner().to_string();
        if text.starts_with("unknown field") {
            return Problem::bad_request("the operation has no such parameter; /openapi.json lists them");
        }
        match error.path().to_string().as_str() {
            "." => Problem::bad_request(text.replace("field", "parameter")),
            name => Problem::bad_request(format!("the parameter {name} {text}")),
        }
    })
}
