//! Entity tags: an answer from the rollups changes only with the run of the rollups and with the program.

use axum::http::{HeaderMap, header};

use crate::freshness::Freshness;

/// Returns the weak tag of an answer in a format, such as `json`.
#[must_use]
pub fn etag(freshness: &Freshness, format: &str) -> String {
    // A schema that was dropped and made again counts its runs from 1, but has another key.
    let schema = freshness.cursor_key.get(..8).unwrap_or_default();
    format!("W/\"{}-{schema}-{}-{format}\"", freshness.run, env!("CARGO_PKG_VERSION"))
}

/// Whether the client already has the answer with this tag (RFC 9110, section 13.1.2).
#[must_use]
pub fn is_known(headers: &HeaderMap, etag: &str) -> bool {
    let strong = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    let lists = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|list| list.to_str().ok());
    lists.flat_map(|list| list.split(',')).any(|tag| tag.trim() == "*" || strong(tag) == strong(etag))
}
