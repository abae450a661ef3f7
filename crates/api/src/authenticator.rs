//! Finds out who sent a request. In Lambda, a request without a caller that AWS has verified is refused.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use lambda_http::request::RequestContext;

use crate::caller::{Caller, Refusal};
use crate::load_balancer::{LoadBalancer, LoadBalancerSettings};
use crate::problem::Problem;

/// The header in which a load balancer names the user that it has logged in.
const OIDC_DATA: HeaderName = HeaderName::from_static("x-amzn-oidc-data");

/// Finds out who sent a request.
#[derive(Clone, Debug)]
pub struct Authenticator {
    /// `None` if no load balancer may forward requests.
    load_balancer: Option<Arc<LoadBalancer>>,
}

impl Authenticator {
    /// Accepts the users of a load balancer, or without one the callers that IAM has verified.
    #[must_use]
    pub fn new(load_balancer: Option<LoadBalancerSettings>) -> Self {
        Self { load_balancer: load_balancer.map(|settings| Arc::new(LoadBalancer::new(settings))) }
    }

    /// Returns the caller. `None` behind the plain server, which has no authentication of its own.
    ///
    /// # Errors
    ///
    /// [`Refusal`].
    pub async fn caller(
        &self,
        headers: &HeaderMap,
        context: Option<&RequestContext>,
    ) -> Result<Option<Caller>, Refusal> {
        let unverified = |reason| Err(Refusal::Unverified(reason));
        let mut tokens = headers.get_all(OIDC_DATA).iter();
        let token = tokens.next();
        if tokens.next().is_some() {
            return unverified("two headers name the caller");
        }
        match (&self.load_balancer, context, token) {
            (Some(load_balancer), Some(RequestContext::Alb(_)) | None, Some(token)) => {
                load_balancer.verify(token.as_bytes()).await.map(Some)
            }
            (Some(_), _, _) => unverified("the request did not come through the load balancer"),
            (None, _, Some(_)) => unverified("no load balancer may name the caller"),
            (None, Some(RequestContext::ApiGatewayV2(context)), None) => {
                let iam = context.authorizer.as_ref().and_then(|authorizer| authorizer.iam.as_ref());
                let arn = iam.and_then(|iam| iam.user_arn.clone());
                arn.map(|arn| Some(Caller(arn))).ok_or(Refusal::Unverified("IAM names no caller"))
            }
            (None, Some(_), None) => unverified("the event is of another service"),
            (None, None, None) => Ok(None),
        }
    }
}

/// Answers requests whose caller is known, and adds the caller to the answer's extensions, for the log.
pub async fn require(State(authenticator): State<Authenticator>, request: Request, next: Next) -> Response {
    match authenticator.caller(request.headers(), request.extensions().get()).await {
        Ok(caller) => {
            let mut response = next.run(request).await;
            if let Some(caller) = caller {
                response.extensions_mut().insert(caller);
            }
            response
        }
        Err(refusal) => {
            tracing::warn!(error = %refusal, "the caller was refused");
            Problem::from(refusal).into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use lambda_http::RequestExt;
    use serde_json::{Value, json};

    use super::*;

    const ARN: &str = "arn:aws:sts::123456789012:assumed-role/analyst/anna";
    const NOT_THROUGH: &str = "the request did not come through the load balancer";
    const NOT_NAMED: &str = "IAM names no caller";
    const NO_BALANCER: &str = "no load balancer may name the caller";

    /// An event of an HTTP API or a function URL, with this `authorizer`.
    fn http_api(authorizer: &Value, headers: &Value) -> Value {
        json!({
            "version": "2.0",
            "routeKey": "$default",
            "rawPath": "/v1/freshness",
            "rawQueryString": "",
            "headers": headers,
            "isBase64Encoded": false,
            "requestContext": {
                "accountId": "123456789012",
                "apiId": "a1b2c3",
                "authorizer": authorizer,
                "domainName": "a1b2c3.execute-api.eu-central-1.amazonaws.com",
                "domainPrefix": "a1b2c3",
                "http": {
                    "method": "GET",
                    "path": "/v1/freshness",
                    "protocol": "HTTP/1.1",
                    "sourceIp": "192.0.2.1",
                    "userAgent": "python",
                },
                "requestId": "id",
                "routeKey": "$default",
                "stage": "$default",
                "time": "22/Nov/2026:23:46:21 +0000",
                "timeEpoch": 1_795_391_181_000_u64,
            },
        })
    }

    fn iam(arn: &Value) -> Value {
        json!({ "iam": {
            "accessKey": "AKIDEXAMPLE",
            "accountId": "123456789012",
            "callerId": "AROAEXAMPLE:anna",
            "cognitoIdentity": null,
            "principalOrgId": null,
            "userArn": arn,
            "userId": "AROAEXAMPLE:anna",
        }})
    }

    fn load_balancer_event(headers: &Value) -> Value {
        json!({
            "requestContext": { "elb": { "targetGroupArn": "arn:aws:elasticloadbalancing:…" } },
            "httpMethod": "GET",
            "path": "/v1/freshness",
            "queryStringParameters": {},
            "multiValueHeaders": headers,
            "body": "",
            "isBase64Encoded": false,
        })
    }

    /// Nothing listens on port 9, so a token of the right load balancer gets no key.
    fn authenticator() -> Authenticator {
        Authenticator::new(Some(LoadBalancerSettings {
            arn: "arn".into(),
            issuer: "issuer".into(),
            client_id: "client".into(),
            keys_url: "http://127.0.0.1:9".into(),
        }))
    }

    async fn caller(authenticator: &Authenticator, event: &Value) -> Result<Option<Caller>, Refusal> {
        let request = lambda_http::request::from_str(&event.to_string()).unwrap();
        authenticator.caller(request.headers(), request.request_context_ref()).await
    }

    #[tokio::test]
    async fn iam_caller_is_the_caller() {
        let event = http_api(&iam(&json!(ARN)), &json!({}));

        assert_eq!(caller(&Authenticator::new(None), &event).await, Ok(Some(Caller(ARN.into()))));
    }

    #[tokio::test]
    async fn unverified_callers_are_refused() {
        let (iam_only, behind_balancer) = (Authenticator::new(None), authenticator());
        let token = json!({ "x-amzn-oidc-data": "a.b.c" });
        let named = iam(&json!(ARN));
        let jwt = json!({ "jwt": { "claims": { "sub": "anna" }, "scopes": null } });

        for (authenticator, event, expected) in [
            (&iam_only, http_api(&Value::Null, &json!({})), NOT_NAMED),
            (&iam_only, http_api(&iam(&Value::Null), &json!({})), NOT_NAMED),
            (&iam_only, http_api(&jwt, &json!({})), NOT_NAMED),
            (&iam_only, http_api(&named, &token), NO_BALANCER),
            (&iam_only, load_balancer_event(&json!({})), "the event is of another service"),
            (&iam_only, load_balancer_event(&json!({ "x-amzn-oidc-data": ["a.b.c"] })), NO_BALANCER),
            (&behind_balancer, http_api(&named, &json!({})), NOT_THROUGH),
            (&behind_balancer, http_api(&named, &token), NOT_THROUGH),
            (&behind_balancer, load_balancer_event(&json!({})), NOT_THROUGH),
            (
                &behind_balancer,
                load_balancer_event(&json!({ "x-amzn-oidc-data": ["a.b.c"] })),
                "the token's header cannot be read",
            ),
            (
                &behind_balancer,
                load_balancer_event(&json!({ "x-amzn-oidc-data": ["a.b.c", "a.b.c"] })),
                "two headers name the caller",
            ),
        ] {
            assert_eq!(caller(authenticator, &event).await, Err(Refusal::Unverified(expected)), "{event}");
        }
    }

    #[tokio::test]
    async fn plain_server_has_no_callers() {
        let headers = |token: Option<&str>| {
            let request = axum::http::Request::builder();
            let request = token.into_iter().fold(request, |request, token| request.header(OIDC_DATA, token));
            request.body(Body::empty()).unwrap().headers().clone()
        };
        let plain = Authenticator::new(None);

        assert_eq!(plain.caller(&headers(None), None).await, Ok(None));
        assert_eq!(plain.caller(&headers(Some("a.b.c")), None).await, Err(Refusal::Unverified(NO_BALANCER)));
        assert_eq!(authenticator().caller(&headers(None), None).await, Err(Refusal::Unverified(NOT_THROUGH)));
    }
}
