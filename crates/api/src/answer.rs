//! Writes rows as JSON or CSV, with the headers that pages and caches need.

use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::database::DatabaseError;
use crate::freshness::Freshness;
use crate::negotiation::Format;
use crate::parameters::Day;
use crate::problem::Problem;
use crate::queries::neighbours::{Graph, Neighbour};
use crate::rows::Row;

/// The largest body of an answer, in bytes. (An Application Load Balancer passes on 1 MB.)
pub const MAX_BODY: usize = 1_000_000;

/// The characters that begin a formula in a spreadsheet. The wide ones do in Japanese.
const FORMULA_STARTS: [char; 11] = ['=', '+', '-', '@', '\t', '\r', '\n', '＝', '＋', '－', '＠'];

/// Rows, and how fresh they are.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Table<R> {
    /// The run of the rollups.
    #[schema(minimum = 1)]
    pub run: i64,
    /// The latest day in the rollups. Null without logins.
    pub through: Option<Day>,
    /// The rows.
    pub rows: Vec<R>,
    /// The value of `after` for the next page. Null on the last page, and for a table without pages.
    pub next: Option<String>,
}

/// A graph, and how fresh it is.
#[derive(Serialize, ToSchema)]
#[expect(missing_debug_implementations, reason = "a user id is personal data")]
pub struct FreshGraph {
    /// The run of the rollups.
    #[schema(minimum = 1)]
    pub run: i64,
    /// The latest day in the rollups.
    pub through: Option<Day>,
    /// The graph.
    pub graph: Graph,
}

/// An answer, before its rows are known.
#[derive(Debug)]
pub struct Reply {
    /// How fresh the rows will be.
    pub freshness: Freshness,
    /// The format.
    pub format: Format,
    /// The URI of the request.
    pub uri: Uri,
    /// The tag of the answer, if it stays the same until the next run.
    pub etag: Option<String>,
}

/// Why a handler stops before it has an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The client has the answer with this tag already.
    NotModified {
        /// The tag.
        etag: String,
    },
    /// There is no answer.
    Problem(Problem),
}

impl Reply {
    /// Writes a page of rows, of at most `limit`. Rows that would make the body too large are left for the next page.
    #[must_use]
    pub fn page<R: Row>(self, mut rows: Vec<R>, limit: i64) -> Response {
        let mut has_next = usize::try_from(limit).is_ok_and(|limit| rows.len() >= limit);
        loop {
            let next = rows.last().filter(|_| has_next).and_then(Row::position);
            let body = match self.format {
                Format::Csv => csv(&rows),
                Format::Json => self.json(&rows, next.clone()),
            };
            if body.len() > MAX_BODY && rows.len() > 1 {
                rows.truncate(rows.len() / 2);
                has_next = true;
                continue;
            }
            return self.response(body, next);
        }
    }

    /// Writes a table that has no further pages.
    #[must_use]
    pub fn table<R: Row>(self, rows: &[R]) -> Response {
        let body = match self.format {
            Format::Csv => csv(rows),
            Format::Json => self.json(rows, None),
        };
        self.response(body, None)
    }

    /// Writes a graph. Edges that would make the body too large are left out.
    #[must_use]
    pub fn graph(self, mut rows: Vec<Neighbour>) -> Response {
        loop {
            let body = match self.format {
                Format::Csv => csv(&rows),
                Format::Json => {
                    let Freshness { run, through, .. } = self.freshness;
                    json(&FreshGraph { run, through, graph: Graph::of(&rows) })
                }
            };
            if body.len() > MAX_BODY && rows.len() > 1 {
                rows.truncate(rows.len() / 2);
                for row in &mut rows {
                    row.truncated = true;
                }
                continue;
            }
            return self.response(body, None);
        }
    }

    fn json<R: Serialize>(&self, rows: &[R], next: Option<String>) -> String {
        let Freshness { run, through, .. } = self.freshness;
        json(&Table { run, through, rows: rows.iter().collect(), next })
    }

    fn response(self, body: String, next: Option<String>) -> Response {
        let mut response = ([(header::CONTENT_TYPE, self.format.content_type())], body).into_response();
        let link = next.map(|next| link(&self.uri, &next));
        for (name, value) in [(header::LINK, link), (header::ETAG, self.etag)] {
            if let Some(value) = value.and_then(|value| HeaderValue::from_str(&value).ok()) {
                response.headers_mut().insert(name, value);
            }
        }
        response
    }
}

impl From<Problem> for Stop {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

impl From<DatabaseError> for Stop {
    fn from(error: DatabaseError) -> Self {
        Self::Problem(error.into())
    }
}

impl IntoResponse for Stop {
    fn into_response(self) -> Response {
        match self {
            Self::NotModified { etag } => (StatusCode::NOT_MODIFIED, [(header::ETAG, etag)]).into_response(),
            Self::Problem(problem) => problem.into_response(),
        }
    }
}

/// Writes JSON.
fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_else(|_| unreachable!("the keys are texts"))
}

/// Writes CSV (RFC 4180) with a header line. A text that a spreadsheet would take for a formula begins with an
/// apostrophe.
fn csv<R: Row>(rows: &[R]) -> String {
    let mut writer = csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(Vec::new());
    let header = R::COLUMNS.iter().map(|&column| column.to_owned()).collect();
    let cells = rows.iter().map(|row| {
        let row = serde_json::to_value(row).unwrap_or_default();
        R::COLUMNS.iter().map(|column| cell(&row[column])).collect()
    });
    for record in std::iter::once::<Vec<_>>(header).chain(cells) {
        writer.write_record(record).unwrap_or_else(|_| unreachable!("memory takes each record"));
    }
    let bytes = writer.into_inner().unwrap_or_default();
    String::from_utf8(bytes).unwrap_or_default()
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) if text.starts_with(FORMULA_STARTS) => format!("'{text}"),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Returns the header `Link` (RFC 8288) with the URI of the next page, relative to this page.
fn link(uri: &Uri, next: &str) -> String {
    let pairs = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
    let query = form_urlencoded::Serializer::new(String::new())
        .extend_pairs(pairs.filter(|(name, _)| name != "after"))
        .append_pair("after", next)
        .finish();
    format!("<?{query}>; rel=\"next\"")
}
