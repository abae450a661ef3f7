//! Bodies as senders and AWS services write them: which are unwrapped, and which values are not changed.

use login::envelope::ExpectedEnvelopes;
use login_etl::config::Settings;
use login_etl::handler::Ingest;
use serde_json::{Value, json};

use crate::programs::create_secret;
use crate::support::{Database, Logs, SALT, batch, body, failures, invoke, login, record};

const BYTE_ORDER_MARK: char = '\u{feff}';

/// Returns the body of a login of `user` as AWS services and clients wrap it. Everything beside the login is
/// `leak-me`.
fn wrapped(user: &str) -> Vec<String> {
    let object = body(user);
    let plain = object.to_string();
    let twice = json!(plain).to_string();
    let record = |body: &Value| {
        let mut record = record("leak-me", body.clone());
        record["receiptHandle"] = "leak-me".into();
        record["messageAttributes"] = json!({"user_id": {"stringValue": "leak-me"}});
        record.to_string()
    };
    let sns = |message: &str| {
        json!({"Type": "Notification", "TopicArn": "leak-me", "Subject": "leak-me", "Message": message})
            .to_string()
    };
    let http_api = json!({
        "version": "2.0",
        "headers": {"user_id": "leak-me"},
        "requestContext": {"http": {"sourceIp": "leak-me"}},
        "isBase64Encoded": false,
        "body": plain,
    });
    let rest_api = json!({
        "resource": "leak-me",
        "queryStringParameters": {"ip": "leak-me"},
        "requestContext": {"identity": {"sourceIp": "leak-me"}},
        "body": plain,
        "isBase64Encoded": false,
    });
    vec![
        format!("{BYTE_ORDER_MARK}{plain}"),
        twice.clone(),
        format!(" {twice}\n"),
        format!("{BYTE_ORDER_MARK}{twice}"),
        json!(format!("{BYTE_ORDER_MARK}{plain}")).to_string(),
        sns(&format!("{BYTE_ORDER_MARK}{plain}")),
        sns(&twice),
        record(&json!(plain)),
        record(&json!(twice)),
        record(&object),
        record(&json!(sns(&plain))),
        sns(&record(&json!(plain))),
        json!(record(&json!(plain))).to_string(),
        http_api.to_string(),
        rest_api.to_string(),
        json!({"detail-type": "leak-me", "source": "leak-me", "detail": http_api}).to_string(),
    ]
}

/// Invokes the function with these bodies and a good login. Returns the positions of the bodies that failed.
async fn failed_positions(ingest: &Ingest, bodies: &[String]) -> Vec<usize> {
    let records = bodies.iter().enumerate().map(|(position, body)| record(&position.to_string(), &**body));
    let answer = invoke(ingest, &batch(records.chain([login("good", "good")]))).await.unwrap();
    let failures = answer["batchItemFailures"].as_array().unwrap().clone();
    failures.iter().map(|failure| failure["itemIdentifier"].as_str().unwrap().parse().unwrap()).collect()
}

#[tokio::test]
async fn wrapped_body_has_the_row_inside() {
    let database = Database::create().await;
    let ingest = database.ingest().await;
    let logs = Logs::capture();
    let bodies = wrapped("good");

    let failed = failed_positions(&ingest, &bodies).await;

    assert_eq!(failed, [0; 0]);
    let rows = database.rows().await;
    assert_eq!(rows.len(), bodies.len() + 1);
    assert!(rows.iter().all(|row| *row == rows[0]), "a wrapped login has another row");
    assert!(!logs.text().contains("leak-me"));
}

#[tokio::test]
async fn login_with_keys_of_envelopes_is_written() {
    let database = Database::create().await;
    let ingest = database.ingest().await;
    let extras = [
        json!({"body": "x", "isBase64Encoded": false, "requestContext": null}),
        json!({"eventSource": "app", "messageId": "m", "receiptHandle": "r", "body": "{}"}),
        json!({"eventSource": "aws:sqs", "messageId": "m", "body": "{}"}),
        json!({"eventSource": "aws:kinesis"}),
        json!({"Event": "s3:TestEvent"}),
        json!({"Event": "login", "Service": "Amazon S3"}),
        json!({"Type": "SubscriptionConfirmation"}),
        json!({"Type": "Login", "Message": "{}", "Token": "t"}),
        json!({"Type": "Notification"}),
        json!({"Type": "Notification", "Message": "{\"user_id\": \"v\"}"}),
        json!({"detail-type": "x", "source": "s", "detail": "y"}),
        json!({"detail-type": "x", "detail": {"user_id": "v"}}),
        json!({"source": "s", "detail": {"user_id": "v"}}),
        json!({"Records": []}),
        json!({"Records": [{"user_id": "v"}]}),
        json!({"Records": [{"eventSource": "x"}, 1]}),
        json!({"userId": "v", "deviceId": "d", "appVersion": 1}),
    ];
    let bodies = extras.map(|extra| {
        let mut body = body("good");
        body.as_object_mut().unwrap().append(&mut extra.as_object().unwrap().clone());
        body.to_string()
    });

    let failed = failed_positions(&ingest, &bodies).await;

    assert_eq!(failed, [0; 0]);
    let rows = database.rows().await;
    assert_eq!(rows.len(), bodies.len() + 1);
    assert!(rows.iter().all(|row| *row == rows[0]), "an unknown key changed a row");
}

#[tokio::test]
async fn unexpected_envelope_fails_alone() {
    let database = Database::create().await;
    let ingest = database.ingest().await;
    let object = body("good");
    let sns =
        |message: &str| json!({"Type": "Notification", "TopicArn": "t", "Message": message}).to_string();
    let eventbridge = json!({"detail-type": "login", "source": "s", "detail": object}).to_string();
    let http = json!({"requestContext": {}, "isBase64Encoded": false, "body": object.to_string()});
    let bodies = [
        object.to_string(),
        sns(&object.to_string()),
        eventbridge.clone(),
        sns(&eventbridge),
        http.to_string(),
    ];
    let logs = Logs::capture();

    let ingest = ingest.expecting("sns".parse().unwrap());
    let only_sns = failed_positions(&ingest, &bodies).await;
    let ingest = ingest.expecting("none".parse().unwrap());
    let none = failed_positions(&ingest, &bodies).await;

    assert_eq!(only_sns, [2, 3, 4]);
    assert_eq!(none, [1, 2, 3, 4]);
    assert!(logs.lines("message failed").iter().all(|line| {
        line["reason"] == "UnsupportedEnvelope"
            && line["error"]
                == "the body is an envelope that EXPECTED_ENVELOPES does not list, which is not unwrapped"
    }));
}

#[test]
fn expected_envelopes_are_a_setting() {
    let read = |envelopes: &str| {
        Settings::read(|name| match name {
            "EXPECTED_ENVELOPES" => Some(envelopes.to_owned()),
            "SALT_SECRET_ID" => Some("salt".to_owned()),
            "DATABASE_SECRET_ID" => Some("database".to_owned()),
            _ => None,
        })
        .map(|settings| settings.expected_envelopes)
        .map_err(|error| error.to_string())
    };

    assert_eq!(read(""), Ok(ExpectedEnvelopes::default()));
    assert_eq!(read(" sns, http\n"), Ok("sns,http".parse().unwrap()));
    let problem = "EXPECTED_ENVELOPES is neither none nor a list of sns, eventbridge, sqs and http";
    assert_eq!(read("sns,kinesis"), Err(problem.to_owned()));
}

/// Each token is that of `printf 'ip:…' | openssl dgst -sha256 -hmac …`: no spelling is guessed to be an address.
#[tokio::test]
async fn decorated_addresses_have_tokens_of_their_own() {
    let database = Database::create().await;
    let ingest = database.ingest().await;
    let spellings = [
        ("192.0.2.1", "fadc60fe27578c94ae3481d3cf8f232ae63d3e3880d9c5ac1a481ef6ea51a5a3"),
        ("192.0.2.1:443", "a29b3a8d59283ca87d33a897a6de4e9859e0cabb8684d5d221441ad2c6ac9ee4"),
        ("1.2.3.4:5678", "b58d6c46bd609b30c40d9c2a65e0ee6cf880e91dd76fa072113a93360d0bd037"),
        ("[::1]", "72e1521f646ec0412f19bc585011a0eea76b10780a6b388a4e1f0a340710b7cd"),
        ("[::1]:443", "6855786a083db5fe5b243453a857964bf1c15422eb4b3a025139e526ac1a1d5b"),
        ("[2001:db8::1]", "d4bc991872ae702bc6125aec47616319c309dafecf3c193846704b8bb8d694cb"),
        ("fe80::1%eth0", "d57a43c860a16fa2009f186786d874a9fb24283b0e320577752ac9a0fc236698"),
        ("192.0.2.1, 198.51.100.7", "fd3398cfca0a80420d582b973864308abe57f8dfae192bf1c0e297f35c744b61"),
        ("192.0.2.1,198.51.100.7", "f065db58fa9d44acf4734761536a6d4d05f5f9b081f1f35d3697bfeff8ed909f"),
        ("192.0.2.1/32", "022f9599b2421e1399064b718e9e9ec072a1ade94bf96a9e5a7b24826a659ac5"),
        ("192.000.002.001", "8a4afe5d756715be5f5eab54fb74d2fd34f67e03160188f910feb6ac54b92363"),
        ("3221225985", "5341d05ee74a77e992e5e1e9aa88c243e5739eb14b8eb0c90226662b89ef30a7"),
        ("0xC0000201", "a5b1d8ebcb64231c8d2dcb4abe080726f24fcbe233d1053c7ee51f7e48738d11"),
        ("localhost", "2e3035cea3792f7eb4100abe49aa6cdedf656e7dc1cfaffe01e40f92df22f669"),
    ];
    let records = spellings.iter().map(|(spelling, _)| {
        let mut body = body(spelling);
        body["ip"] = (*spelling).into();
        record(spelling, body.to_string())
    });

    let answer = invoke(&ingest, &batch(records)).await;

    assert_eq!(answer, failures(&[]));
    let rows = database.admin.query("SELECT user_id, masked_ip FROM user_logins", &[]).await.unwrap();
    let written: Vec<(String, String)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    assert_eq!(written.len(), spellings.len());
    for (spelling, token) in spellings {
        assert!(written.contains(&(spelling.to_owned(), token.to_owned())), "{spelling}");
    }
}

#[tokio::test]
async fn other_spellings_of_versions_fail_alone() {
    let database = Database::create().await;
    let ingest = database.ingest().await;
    let spellings = [
        "2.3.0.1",
        "2.3.0.1234",
        "v2.3.0",
        "V2.3.0",
        "v2",
        "2.3.0-beta",
        "2.3.0-rc.1",
        "2.3.0+45",
        "2.3.0 (45)",
        "2.3.0b",
        "2.3.x",
        "2.3.*",
        "2,3,0",
        "2_3_0",
        "2.3.",
        ".3.0",
        "2..0",
        "",
        " ",
        " 2.3.0",
        "2.3.0 ",
        "+2.3.0",
        "-2.3.0",
        "2.3e1",
        "0x2.3",
        "2147.0.0",
        "2.1000.0",
        "2.3.1000",
        "20260520",
        "20260520.1",
        "r45",
        "1.2.3/4",
        "latest",
        "unknown",
        "null",
        "２.3.0",
    ];
    let bodies = spellings.map(|spelling| {
        let mut body = body("bad");
        body["app_version"] = spelling.into();
        body.to_string()
    });
    let logs = Logs::capture();

    let failed = failed_positions(&ingest, &bodies).await;

    assert_eq!(failed, (0..spellings.len()).collect::<Vec<_>>());
    assert_eq!(database.user_ids().await, ["good"]);
    let lines = logs.lines("message failed");
    assert_eq!(lines.len(), spellings.len());
    assert!(lines.iter().all(|line| line["reason"] == "BadVersion" && line["field"] == "app_version"));
}

#[tokio::test]
async fn started_function_expects_the_envelopes_of_its_setting() {
    let database = Database::create().await;
    let salt = create_secret(SALT).await;
    let settings = Settings::read(|name| match name {
        "EXPECTED_ENVELOPES" => Some("none".to_owned()),
        "SALT_SECRET_ID" => Some(salt.clone()),
        "DATABASE_URL" => Some(database.url()),
        _ => None,
    });
    let ingest = Ingest::start(settings.unwrap()).await.unwrap();
    let sns = json!({"Type": "Notification", "TopicArn": "t", "Message": body("good").to_string()});

    let failed = failed_positions(&ingest, &[sns.to_string()]).await;

    assert_eq!(failed, [0]);
}
