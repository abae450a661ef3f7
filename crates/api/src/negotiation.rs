//! Chooses JSON or CSV: by the parameter `format`, else by the header `Accept`.

use axum::http::{HeaderMap, header};
use serde::Deserialize;
use utoipa::openapi::{RefOr, Schema};
use utoipa::{IntoParams, PartialSchema, ToSchema};

use crate::parameters::text_schema;
use crate::problem::Problem;

/// The format of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Format {
    /// JSON, the default.
    Json,
    /// CSV with a header line.
    Csv,
}

/// The parameter of all answers that are tables.
#[derive(Clone, Copy, Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct FormatParameter {
    /// The format of the answer. It overrides the header `Accept`.
    #[serde(default)]
    #[param(inline, nullable = false, required = false)]
    pub format: Option<Format>,
}

impl Format {
    const ALL: [Self; 2] = [Self::Json, Self::Csv];

    /// Returns the name in URLs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Csv => "csv",
        }
    }

    /// Returns the value of the header `Content-Type`.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Csv => "text/csv; charset=utf-8; header=present",
        }
    }

    /// Returns the media type.
    #[must_use]
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Csv => "text/csv",
        }
    }

    /// Chooses the offered format that the client prefers, the first of two that it likes equally.
    ///
    /// # Errors
    ///
    /// A [`Problem`] with the status 406 if it accepts none.
    pub fn negotiate(headers: &HeaderMap, offered: &[Self]) -> Result<Self, Problem> {
        let lists = headers.get_all(header::ACCEPT).iter();
        let ranges: Vec<_> =
            lists.filter_map(|list| list.to_str().ok()).flat_map(|list| list.split(',')).collect();
        if ranges.iter().all(|range| range.trim().is_empty()) {
            return offered.first().copied().ok_or_else(Problem::not_acceptable);
        }
        let quality = |format: Self| quality(&ranges, format.media_type());
        let best = offered.iter().copied().rev().max_by_key(|format| quality(*format));
        best.filter(|format| quality(*format) > 0).ok_or_else(Problem::not_acceptable)
    }
}

impl TryFrom<String> for Format {
    type Error = &'static str;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        Self::ALL.into_iter().find(|format| format.name() == name).ok_or("must be json or csv")
    }
}

impl PartialSchema for Format {
    fn schema() -> RefOr<Schema> {
        let names = Self::ALL.map(Self::name);
        RefOr::T(Schema::Object(text_schema().enum_values(Some(names)).examples([Self::Csv.name()]).build()))
    }
}

impl ToSchema for Format {}

/// Returns the quality, in thousandths, of the most specific range that matches (RFC 9110, section 12.5.1).
fn quality(ranges: &[&str], media_type: &str) -> u16 {
    let any_subtype = media_type.split_once('/').map(|(kind, _)| format!("{kind}/*")).unwrap_or_default();
    let matches = ranges.iter().filter_map(|range| {
        let mut parts = range.split(';').map(str::trim);
        let name = parts.next()?.to_ascii_lowercase();
        let specificity = [media_type, &any_subtype, "*/*"].iter().rev().position(|known| *known == name)?;
        let quality = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
        Some((specificity, quality.map_or(1000, thousandths)))
    });
    matches.max().map_or(0, |(_, quality)| quality)
}

fn thousandths(quality: &str) -> u16 {
    let quality: f32 = quality.parse().unwrap_or(0.0);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 1000")]
    let thousandths = (quality.clamp(0.0, 1.0) * 1000.0) as u16;
    thousandths
}
