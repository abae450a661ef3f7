//! The document of the API, generated from the code: `OpenAPI` 3.1.

use std::collections::BTreeMap;
use std::marker::PhantomData;

use axum::Json;
use axum::response::{IntoResponse, Response as HttpResponse};
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::link::LinkBuilder;
use utoipa::openapi::schema::AdditionalProperties;
use utoipa::openapi::{Content, OpenApi, Ref, RefOr, Response, ResponseBuilder, Schema};
use utoipa::{IntoResponses, OpenApi as _, ToSchema};

use crate::answer::{FreshGraph, Table};
use crate::negotiation::Format;
use crate::parameters::text_schema;
use crate::problem::Problem;
use crate::queries::daily::DailyCount;
use crate::queries::duplicates::Duplicate;
use crate::queries::logins::Login;
use crate::queries::rings::{Ring, RingMember};
use crate::queries::tokens::{TokenDay, TokenPeriod, TokenUser};
use crate::queries::users::UserToken;

/// A path, the part of its answer or of its request that is a token, and the operations that take this token.
const LINKS: [(&str, &str, &[&str]); 6] = [
    ("/v1/duplicates", "$response.body#/rows/0/token", &["token", "token_users", "neighbours"]),
    ("/v1/rings", "$response.body#/rows/0/ring", &["ring", "ring_devices", "ring_members"]),
    ("/v1/rings/{ring}/devices", "$response.body#/rows/0/token", &["token"]),
    (
        "/v1/tokens/{token}",
        "$request.path.token",
        &["token_daily", "token_logins", "token_users", "neighbours"],
    ),
    ("/v1/tokens/{token}/neighbours", "$response.body#/graph/tokens/0/token", &["token"]),
    ("/v1/users/search", "$response.body#/rows/0/token", &["token", "token_logins"]),
];

/// The document, without the paths that the router adds.
#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "login-etl for analysts",
        description = "Read-only answers about masked logins. In AWS, API Gateway or Lambda checks the signature \
            (SigV4) of each request before the program receives it."
    ),
    components(schemas(
        FreshGraph,
        Problem,
        Table<DailyCount>,
        Table<Duplicate>,
        Table<Login>,
        Table<Ring>,
        Table<RingMember>,
        Table<TokenDay>,
        Table<TokenPeriod>,
        Table<TokenUser>,
        Table<UserToken>
    ))
)]
struct Document;

/// The responses with a table of these rows.
pub(crate) struct TableOf<R>(PhantomData<R>);

/// The responses with a graph.
pub(crate) struct GraphOf;

/// The problems of each operation.
pub(crate) struct Problems;

/// The problems of an operation with a token in its path.
pub(crate) struct PathProblems;

/// The problems of an operation with a body.
pub(crate) struct BodyProblems;

impl<R: ToSchema> IntoResponses for TableOf<R> {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        answers(&format!("Table_{}", R::name()))
    }
}

impl IntoResponses for GraphOf {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        answers(&FreshGraph::name())
    }
}

impl IntoResponses for Problems {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        problems(&[
            ("400", "A parameter breaks a rule."),
            ("406", "The header Accept excludes all formats."),
            ("503", "The database is not available or too slow, or the logins are not rolled up yet."),
        ])
    }
}

impl IntoResponses for PathProblems {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let mut responses = Problems::responses();
        responses.extend(problems(&[("404", "No login has the token, or there is no such ring.")]));
        responses
    }
}

impl IntoResponses for BodyProblems {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let mut responses = Problems::responses();
        responses.extend(problems(&[
            ("408", "The body came too slowly."),
            ("413", "The body has more than 4,096 bytes."),
            ("415", "The body is not JSON."),
        ]));
        responses
    }
}

/// Returns the document without paths.
pub(crate) fn document() -> OpenApi {
    let mut document = Document::openapi();
    // utoipa can say this only of types that are read, not of types that are written.
    let schemas = document.components.iter_mut().flat_map(|components| components.schemas.values_mut());
    for schema in schemas {
        if let RefOr::T(Schema::Object(object)) = schema {
            object.additional_properties = Some(Box::new(AdditionalProperties::FreeForm(false)));
        }
    }
    document
}

/// Adds which operations take which parts of an answer.
pub(crate) fn link(document: &mut OpenApi) {
    for (path, expression, targets) in LINKS {
        let Some(item) = document.paths.paths.get_mut(path) else { continue };
        let operation = item.get.as_mut().or(item.post.as_mut());
        let answer = operation.and_then(|operation| operation.responses.responses.get_mut("200"));
        let Some(RefOr::T(answer)) = answer else { continue };
        for target in targets {
            let parameter = if target.starts_with("ring") { "ring" } else { "token" };
            let link = LinkBuilder::new().operation_id(*target).parameter(parameter, expression).build();
            answer.links.insert((*target).to_owned(), RefOr::T(link));
        }
    }
}

/// Answers with the document.
pub(crate) fn answer(document: &OpenApi) -> HttpResponse {
    Json(document).into_response()
}

/// Describes an answer as JSON or CSV, and the absence of a newer answer.
fn answers(schema: &str) -> BTreeMap<String, RefOr<Response>> {
    let json = Content::new(Some(Ref::from_schema_name(schema)));
    let csv = Content::new(Some(text_schema().build()));
    let header = |description: &str| {
        HeaderBuilder::new().schema(Some(text_schema().build())).description(Some(description)).build()
    };
    let answer = ResponseBuilder::new()
        .description("The answer.")
        .content(Format::Json.media_type(), json)
        .content(Format::Csv.media_type(), csv)
        .header(
            "ETag",
            header("The run of the rollups. Absent if the answer does not come from the rollups alone."),
        )
        .header("Link", header("The next page, with rel=\"next\"."));
    let not_modified = ResponseBuilder::new().description("The client has the answer of this run already.");
    BTreeMap::from([
        ("200".to_owned(), RefOr::T(answer.build())),
        ("304".to_owned(), RefOr::T(not_modified.build())),
    ])
}

fn problems(problems: &[(&str, &str)]) -> BTreeMap<String, RefOr<Response>> {
    let response = |(status, description): &(&str, &str)| {
        let content = Content::new(Some(Ref::from_schema_name(Problem::name())));
        let response =
            ResponseBuilder::new().description(*description).content(crate::problem::MEDIA_TYPE, content);
        ((*status).to_owned(), RefOr::T(response.build()))
    };
    problems.iter().map(response).collect()
}
