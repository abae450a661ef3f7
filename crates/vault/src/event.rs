//! Reads the event of an invocation. (The types of `aws_lambda_events` are not used: their errors quote values.)

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use login_etl::aws::custom_resource::CustomResourceRequest;
use serde::Deserialize;
use serde_json::Value;
use zeroize::Zeroizing;

/// The most bytes of a body.
pub const MAX_BODY: usize = 4096;

/// The most bytes of an ARN, as in the audit.
const MAX_ARN: usize = 2048;

/// The name of the stage that adds no prefix to the paths of an HTTP API.
const DEFAULT_STAGE: &str = "$default";

/// The event of an invocation.
#[derive(Debug)]
pub enum Event {
    /// A request over HTTP.
    Http(HttpRequest),
    /// CloudFormation asks for the public key.
    PublicKey(CustomResourceRequest),
}

/// A request that an HTTP API or a Function URL received, with [payload 2.0][payload].
///
/// [payload]: https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html
pub struct HttpRequest {
    /// The method.
    pub method: String,
    /// The path, without the stage.
    pub path: String,
    /// Who sent the request, if IAM verified it.
    pub caller: Option<Caller>,
    /// The body, if it is not too large.
    pub body: Result<Zeroizing<Vec<u8>>, TooLarge>,
}

/// The ARN of a user, or of a session of a role, which IAM verified.
///
/// Whoever may invoke the function directly writes the whole event, and could name any caller. So only the HTTP API, or
/// the Function URL, and CloudFormation may have `lambda:InvokeFunction`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller(pub String);

/// The body has more than [`MAX_BODY`] bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLarge;

/// The event is neither a request over HTTP nor one of CloudFormation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the event is neither a request of an HTTP API, with payload 2.0, nor of CloudFormation")]
pub struct UnknownEvent;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Payload {
    raw_path: String,
    request_context: RequestContext,
    body: Option<String>,
    #[serde(default)]
    is_base64_encoded: bool,
}

#[derive(Deserialize)]
struct RequestContext {
    http: Http,
    stage: Option<String>,
    authorizer: Option<Authorizer>,
}

#[derive(Deserialize)]
struct Http {
    method: String,
}

#[derive(Deserialize)]
struct Authorizer {
    iam: Option<Iam>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Iam {
    user_arn: Option<String>,
}

impl Event {
    /// Reads an event.
    ///
    /// # Errors
    ///
    /// [`UnknownEvent`].
    pub fn read(event: Value) -> Result<Self, UnknownEvent> {
        // The parser's errors are dropped: they quote values.
        if event.get("requestContext").is_some() {
            return serde_json::from_value(event)
                .map(|payload| Self::Http(HttpRequest::read(payload)))
                .map_err(|_| UnknownEvent);
        }
        serde_json::from_value(event).map(Self::PublicKey).map_err(|_| UnknownEvent)
    }
}

impl HttpRequest {
    fn read(payload: Payload) -> Self {
        let Payload { raw_path, request_context, body, is_base64_encoded } = payload;
        let RequestContext { http: Http { method }, stage, authorizer } = request_context;
        let arn = authorizer.and_then(|authorizer| authorizer.iam).and_then(|iam| iam.user_arn);
        Self {
            method,
            path: without_stage(raw_path, stage.as_deref()),
            caller: arn.filter(|arn| arn.starts_with("arn:") && arn.len() <= MAX_ARN).map(Caller),
            body: decode(body.unwrap_or_default(), is_base64_encoded),
        }
    }
}

/// An HTTP API writes the name of a stage before the path, unless the stage is the default.
fn without_stage(path: String, stage: Option<&str>) -> String {
    let stage = stage.filter(|stage| *stage != DEFAULT_STAGE);
    let rest = stage.and_then(|stage| path.strip_prefix('/')?.strip_prefix(stage));
    match rest.filter(|rest| rest.starts_with('/')) {
        Some(rest) => rest.to_owned(),
        None => path,
    }
}

/// Decodes a body. One that is not base64, although it says so, is empty, and therefore refused as no JSON.
fn decode(body: String, is_base64: bool) -> Result<Zeroizing<Vec<u8>>, TooLarge> {
    let body = Zeroizing::new(body.into_bytes());
    if body.len() > base64::encoded_len(MAX_BODY, true).unwrap_or(MAX_BODY) {
        return Err(TooLarge);
    }
    let body = if is_base64 { Zeroizing::new(STANDARD.decode(&*body).unwrap_or_default()) } else { body };
    if body.len() > MAX_BODY { Err(TooLarge) } else { Ok(body) }
}

impl fmt::Debug for HttpRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpRequest").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ARN: &str = "arn:aws:sts::123456789012:assumed-role/fraud/ann";

    /// An event as the reference shows it.
    fn event(body: impl Into<Value>) -> Value {
        json!({
            "version": "2.0",
            "routeKey": "POST /reveal",
            "rawPath": "/reveal",
            "rawQueryString": "",
            "headers": { "content-type": "application/json" },
            "requestContext": {
                "accountId": "123456789012",
                "apiId": "api-id",
                "authorizer": { "iam": { "accessKey": "AKIA", "userArn": ARN, "cognitoIdentity": null } },
                "http": { "method": "POST", "path": "/reveal", "sourceIp": "192.0.2.1" },
                "stage": "$default",
            },
            "body": body.into(),
            "isBase64Encoded": false,
        })
    }

    fn http(event: Value) -> HttpRequest {
        match Event::read(event) {
            Ok(Event::Http(request)) => request,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn request_has_the_caller_of_iam() {
        let request = http(event(json!("{}")));

        assert_eq!((&*request.method, &*request.path), ("POST", "/reveal"));
        assert_eq!(request.caller, Some(Caller(ARN.to_owned())));
        assert_eq!(**request.body.as_ref().unwrap(), *b"{}");
    }

    #[test]
    fn only_iam_names_a_caller() {
        for authorizer in [
            json!(null),
            json!({}),
            json!({ "iam": null }),
            json!({ "iam": { "userId": ARN } }),
            json!({ "iam": { "userArn": null } }),
            json!({ "iam": { "userArn": "" } }),
            json!({ "iam": { "userArn": "anonymous" } }),
            json!({ "jwt": { "claims": { "userArn": ARN } } }),
            json!({ "lambda": { "userArn": ARN } }),
        ] {
            let mut event = event(json!("{}"));
            event["requestContext"]["authorizer"] = authorizer;
            event["headers"]["userarn"] = ARN.into();

            assert_eq!(http(event).caller, None);
        }
    }

    #[test]
    fn body_may_be_base64_or_absent() {
        let mut encoded = event(json!("eyJhIjoxfQ=="));
        encoded["isBase64Encoded"] = true.into();
        let mut broken = encoded.clone();
        broken["body"] = "{}".into();

        assert_eq!(**http(encoded).body.as_ref().unwrap(), *br#"{"a":1}"#);
        assert_eq!(**http(broken).body.as_ref().unwrap(), *b"");
        assert_eq!(**http(event(json!(null))).body.as_ref().unwrap(), *b"");
    }

    #[test]
    fn large_bodies_are_not_kept() {
        let body = |length: usize| http(event("x".repeat(length))).body.map(|body| body.len());
        let encoded = |length: usize| {
            let mut event = event(STANDARD.encode(vec![b'x'; length]));
            event["isBase64Encoded"] = true.into();
            http(event).body.map(|body| body.len())
        };

        assert_eq!(body(4096), Ok(4096));
        assert_eq!(encoded(4096), Ok(4096));
        for length in [4097, 1 << 20] {
            assert_eq!(body(length), Err(TooLarge));
            assert_eq!(encoded(length), Err(TooLarge));
        }
    }

    #[test]
    fn stage_is_no_part_of_the_path() {
        for (path, stage, expected) in [
            ("/reveal", "$default", "/reveal"),
            ("/prod/reveal", "prod", "/reveal"),
            ("/prod/reveal", "$default", "/prod/reveal"),
            ("/production/reveal", "prod", "/production/reveal"),
            ("/prod", "prod", "/prod"),
        ] {
            assert_eq!(without_stage(path.to_owned(), Some(stage)), expected);
        }
    }

    #[test]
    fn other_events_are_unknown() {
        for event in [json!(null), json!({}), json!({ "Records": [] }), json!({ "requestContext": {} })] {
            assert_eq!(Event::read(event).err(), Some(UnknownEvent));
        }
    }
}
