//! Events of Lambda.

use lambda_http::request::LambdaRequest;
use lambda_http::{Body, http};
use login_etl_api::lambda::without_host;
use serde_json::json;

#[test]
fn host_that_is_no_host_is_ignored() {
    let event = json!({
        "requestContext": { "elb": { "targetGroupArn": "arn:aws:elasticloadbalancing:eu-central-1:1:targetgroup/a/b" } },
        "httpMethod": "GET",
        "path": "/v1/daily",
        "queryStringParameters": { "days": "2" },
        "headers": { "host": "a.127.0.0.1:1234", "x-forwarded-proto": "https" },
        "body": "",
        "isBase64Encoded": false,
    });
    let event: LambdaRequest = serde_json::from_value(event).unwrap();

    let request: http::Request<Body> = without_host(event).into();

    assert_eq!(request.uri(), "/v1/daily?days=2");
}
