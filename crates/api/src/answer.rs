//! Writes rows as JSON or CSV, with the headers that pages and caches need.

use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::negotiation::Format;
use crate::parameters::Day;
use crate::queries::Row;
use crate::queries::freshness::Freshness;

/// The largest body of an answer, in bytes. (An Application Load Balancer passes on 1 MB.)
const MAX_BODY: usize = 1_000_000;

/// The characters that begin a formula in a spreadsheet.
const FORMULA_STARTS: [char; 6] = ['=', '+', '-', '@', '\t', '\r'];

/// Rows, and how fresh they are.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Table<R> {
    /// The run of the rollups.
    #[schema(minimum = 1)]
    pub run: i64,
    /// The latest day in the rollups.
    #[schema(inline)]
    pub through: Option<Day>,
    /// The rows.
    pub rows: Vec<R>,
    /// The value of `after` for the next page. Null on the last page.
    pub next: Option<String>,
}

/// A page of rows for a client.
#[derive(Debug)]
pub struct Page<'r, R> {
    /// How fresh the rows are.
    pub freshness: &'r Freshness,
    /// The rows.
    pub rows: Vec<R>,
    /// The most rows of a page: a page with as many may have a next page.
    pub limit: i64,
    /// The format.
    pub format: Format,
    /// The URI of the request.
    pub uri: &'r Uri,
}

impl<R: Row> Page<'_, R> {
    /// Writes the page. Rows that would make the body too large are left for the next page.
    #[must_use]
    pub fn into_response(mut self) -> Response {
        let mut is_cut = usize::try_from(self.limit).is_ok_and(|limit| self.rows.len() >= limit);
        loop {
            let next = self.rows.last().filter(|_| is_cut).map(Row::position);
            let body = self.body(next.clone());
            if body.len() > MAX_BODY && self.rows.len() > 1 {
                self.rows.truncate(self.rows.len() / 2);
                is_cut = true;
                continue;
            }
            let media_type = match self.format {
                Format::Json => "application/json",
                Format::Csv => "text/csv; charset=utf-8; header=present",
            };
            let mut response = (StatusCode::OK, [(header::CONTENT_TYPE, media_type)], body).into_response();
            let link = next.and_then(|next| HeaderValue::from_str(&link(self.uri, &next)).ok());
            if let Some(link) = link {
                response.headers_mut().insert(header::LINK, link);
            }
            return response;
        }
    }

    fn body(&self, next: Option<String>) -> String {
        match self.format {
            Format::Csv => csv(&self.rows),
            Format::Json => {
                let Freshness { run, through, .. } = *self.freshness;
                json(&Table { run, through, rows: self.rows.iter().collect(), next })
            }
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
    let mut write = |record: Vec<String>| {
        writer.write_record(record).unwrap_or_else(|_| unreachable!("memory takes all records"));
    };
    write(R::COLUMNS.iter().map(|&column| column.to_owned()).collect());
    for row in rows {
        let row = serde_json::to_value(row).unwrap_or_default();
        write(R::COLUMNS.iter().map(|column| cell(&row[column])).collect());
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

/// Returns the header `Link` (RFC 8288) with the URI of the next page, relative to the host.
fn link(uri: &Uri, next: &str) -> String {
    let pairs = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
    let query = form_urlencoded::Serializer::new(String::new())
        .extend_pairs(pairs.filter(|(name, _)| name != "after"))
        .append_pair("after", next)
        .finish();
    format!("<{}?{query}>; rel=\"next\"", uri.path())
}
