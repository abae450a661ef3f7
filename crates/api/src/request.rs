//! The extractors of the handlers. A refused request becomes a [`Problem`], which never repeats a value.

use std::time::Duration;

use axum::body::{Body as HttpBody, to_bytes};
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Uri, header};
use serde::de::DeserializeOwned;
use serde_json::error::Category;

use crate::answer::{Reply, Stop};
use crate::database::Database;
use crate::etag::{etag, is_known};
use crate::negotiation::{Format, FormatParameter};
use crate::parameters::Token;
use crate::problem::Problem;

/// The largest body of a request, in bytes.
const MAX_BODY: usize = 4096;

/// How long a client may take to send a body.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// The parts of a request that decide the form of the answer.
pub(crate) struct Wanted {
    format: Format,
    headers: HeaderMap,
    uri: Uri,
}

/// The parameters in the query string.
pub(crate) struct Query<P>(pub(crate) P);

/// The token in the path.
pub(crate) struct TokenInPath(pub(crate) Token);

/// The parameters in a body of JSON.
pub(crate) struct Body<P>(pub(crate) P);

/// The fields of a form in the body.
pub(crate) struct Form<P>(pub(crate) P);

impl Wanted {
    /// Begins the answer to a question about the rollups.
    ///
    /// # Errors
    ///
    /// [`Stop::NotModified`] if the client has the answer of this run already, and [`Stop::Problem`].
    pub(crate) async fn of_rollups(self, database: &Database) -> Result<Reply, Stop> {
        // Before the rows: they may be newer than the tag, and never older.
        let freshness = database.freshness().await?;
        let etag = etag(&freshness, self.format.name());
        if is_known(&self.headers, &etag) {
            return Err(Stop::NotModified { etag });
        }
        Ok(Reply { freshness, format: self.format, uri: self.uri, etag: Some(etag) })
    }

    /// Begins the answer to a question about `user_logins`, which changes between the runs of the rollups.
    ///
    /// # Errors
    ///
    /// [`Stop::Problem`].
    pub(crate) async fn of_logins(self, database: &Database) -> Result<Reply, Stop> {
        let freshness = database.freshness().await?;
        Ok(Reply { freshness, format: self.format, uri: self.uri, etag: None })
    }
}

impl<S: Sync> FromRequestParts<S> for Wanted {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let (format, _) = split_query(&parts.uri);
        let format = match read::<FormatParameter>(&format)?.format {
            Some(format) => format,
            None => Format::negotiate(&parts.headers, &[Format::Json, Format::Csv])?,
        };
        Ok(Self { format, headers: parts.headers.clone(), uri: parts.uri.clone() })
    }
}

impl<S: Sync, P: DeserializeOwned> FromRequestParts<S> for Query<P> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let (_, others) = split_query(&parts.uri);
        Ok(Self(read(&others)?))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for TokenInPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        let text = path.map_or_else(|_| String::new(), |Path(text)| text);
        let token = Token::try_from(text);
        token.map(Self).map_err(|rule| Problem::bad_request(format!("the token in the path {rule}")))
    }
}

impl<S: Sync, P: DeserializeOwned> FromRequest<S> for Body<P> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        if !is_json(request.headers()) {
            return Err(Problem::unsupported_media_type());
        }
        let body = read_body(request.into_body()).await?;
        // serde would also read the fields from an array, in their order.
        if body.trim_ascii_start().starts_with(b"[") {
            return Err(Problem::bad_request("the body is not a JSON object"));
        }
        let mut json = serde_json::Deserializer::from_slice(&body);
        let parameters = serde_path_to_error::deserialize(&mut json).map_err(|error| {
            // The texts of serde_json quote values, so only the name of a field is passed on.
            let text = error.inner().to_string();
            let name = error.path().to_string();
            match error.inner().classify() {
                Category::Data if text.starts_with("unknown field") => {
                    Problem::bad_request("the body has an unknown field; /openapi.json lists the fields")
                }
                Category::Data if text.starts_with("missing field") => {
                    Problem::bad_request("the body lacks a field that /openapi.json requires")
                }
                Category::Data if name != "." => Problem::bad_request(format!(
                    "the field {name} of the body breaks its rule in /openapi.json"
                )),
                Category::Data => Problem::bad_request("the body breaks a rule in /openapi.json"),
                Category::Io | Category::Syntax | Category::Eof => {
                    Problem::bad_request("the body is not JSON")
                }
            }
        })?;
        json.end().map_err(|_| Problem::bad_request("the body is more than one JSON value"))?;
        Ok(Self(parameters))
    }
}

impl<S: Sync, P: DeserializeOwned> FromRequest<S> for Form<P> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let body = read_body(request.into_body()).await?;
        let fields = serde_urlencoded::from_bytes(&body);
        // The texts of the error may quote values.
        fields.map(Self).map_err(|_| Problem::bad_request("the body is not the form of the page"))
    }
}

/// Splits the query string into the parameter `format` and the others.
fn split_query(uri: &Uri) -> (String, String) {
    let query = uri.query().unwrap_or_default();
    let (format, others): (Vec<_>, Vec<_>) =
        form_urlencoded::parse(query.as_bytes()).partition(|(name, _)| name == "format");
    let [format, others] = [format, others]
        .map(|pairs| form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish());
    (format, others)
}

/// Reads parameters. The text of an error is one of ours, unless it names a parameter that does not exist.
fn read<P: DeserializeOwned>(query: &str) -> Result<P, Problem> {
    // Rust would read +5 as a number, but the schema does not allow it.
    if form_urlencoded::parse(query.as_bytes()).any(|(_, value)| value.starts_with('+')) {
        return Err(Problem::bad_request("a parameter begins with +"));
    }
    let pairs = form_urlencoded::parse(query.as_bytes());
    serde_path_to_error::deserialize(serde_urlencoded::Deserializer::new(pairs)).map_err(|error| {
        let text = error.inner().to_string();
        if text.starts_with("unknown field") {
            return Problem::bad_request("the operation has no such parameter; /openapi.json lists them");
        }
        let name = |prefix| text.strip_prefix(prefix)?.strip_suffix('`');
        if let Some(name) = name("missing field `") {
            return Problem::bad_request(format!("the parameter {name} is missing"));
        }
        if let Some(name) = name("duplicate field `") {
            return Problem::bad_request(format!("the parameter {name} occurs more than once"));
        }
        Problem::bad_request(format!("the parameter {} {text}", error.path()))
    })
}

fn is_json(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media_type = content_type.and_then(|value| value.split(';').next()).unwrap_or_default();
    media_type.trim().eq_ignore_ascii_case("application/json")
}

async fn read_body(body: HttpBody) -> Result<axum::body::Bytes, Problem> {
    match tokio::time::timeout(BODY_TIMEOUT, to_bytes(body, MAX_BODY)).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(_)) => Err(Problem::too_large()),
        Err(_) => Err(Problem::too_slow_body()),
    }
}
