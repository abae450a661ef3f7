//! The login queue where SQS does not answer, and the messages that it is not asked about.

use std::time::{Duration, Instant};

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_sqs::config::{Credentials, SharedCredentialsProvider};
use login::event;
use login_etl::aws::login_queue::{LeftInFlight, LoginQueue};
use login_etl::config::Settings;
use login_etl::deadline::Deadline;
use login_etl::handler::Ingest;
use serde_json::Value;
use tokio::net::TcpListener;

use crate::programs::create_secret;
use crate::support::{Database, Logs, SALT, batch, failures, invoke, record, unique_name};

const URL: &str = "https://sqs.eu-central-1.amazonaws.com/123456789012/logins";

/// Returns a listener that accepts connections and never answers, and the configuration that leads to it.
async fn silent_endpoint() -> (TcpListener, SdkConfig) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let credentials = Credentials::new("id", "key", None, None, "test");
    let sdk = SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("eu-central-1"))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .endpoint_url(format!("http://{}", listener.local_addr().unwrap()))
        .build();
    (listener, sdk)
}

/// Has the messages of these records delivered again soon. Returns the outcome, and how long it took.
async fn redeliver_soon(
    queue: &LoginQueue,
    records: &[Value],
    deadline: Deadline,
) -> (Result<(), LeftInFlight>, Duration) {
    let event = batch(records.to_vec()).to_string();
    let messages = event::read(event.as_bytes()).unwrap();
    let started = Instant::now();
    let outcome = queue.redeliver_soon(&messages.iter().collect::<Vec<_>>(), deadline).await;
    (outcome, started.elapsed())
}

fn with_handle(mut record: Value) -> Value {
    record["receiptHandle"] = "handle".into();
    record
}

fn left_in_flight(messages: usize, cause: &str) -> Result<(), LeftInFlight> {
    Err(LeftInFlight { messages, cause: cause.to_owned() })
}

#[tokio::test]
async fn silent_queue_costs_one_second_a_minute() {
    let (_listener, sdk) = silent_endpoint().await;
    let queue = LoginQueue::new(&sdk, URL.to_owned()).unwrap();
    let records = ["a", "b"].map(|id| with_handle(record(id, "no login")));
    let deadline = Deadline::within(Duration::from_secs(30));

    let (first, first_time) = redeliver_soon(&queue, &records, deadline).await;
    let (second, second_time) = redeliver_soon(&queue, &records, deadline).await;

    assert_eq!(first, left_in_flight(2, "SQS did not answer in time"));
    assert!((900..3000).contains(&first_time.as_millis()), "{first_time:?}");
    assert_eq!(second, left_in_flight(2, "an earlier request failed less than a minute ago"));
    assert!(second_time.as_millis() < 500, "{second_time:?}");
}

#[tokio::test]
async fn silent_queue_does_not_pass_the_deadline() {
    let (_listener, sdk) = silent_endpoint().await;
    let queue = LoginQueue::new(&sdk, URL.to_owned()).unwrap();
    let records = [with_handle(record("a", "no login"))];

    let (outcome, time) =
        redeliver_soon(&queue, &records, Deadline::within(Duration::from_millis(100))).await;

    assert_eq!(outcome, left_in_flight(1, "SQS did not answer in time"));
    assert!(time.as_millis() < 800, "{time:?}");
}

#[tokio::test]
async fn messages_without_this_queue_send_no_request() {
    let (listener, sdk) = silent_endpoint().await;
    let queue = LoginQueue::new(&sdk, URL.to_owned()).unwrap();
    let without_handle = record("a", "no login");
    let mut dead_letter = with_handle(without_handle.clone());
    dead_letter["eventSourceARN"] = "arn:aws:sqs:eu-central-1:123456789012:dead-logins".into();
    let mut of_another_account = with_handle(without_handle.clone());
    of_another_account["eventSourceARN"] = "arn:aws:sqs:eu-central-1:999999999999:logins".into();
    let mut sample = with_handle(without_handle.clone());
    sample.as_object_mut().unwrap().remove("eventSourceARN");
    let records = [without_handle, dead_letter, of_another_account, sample];

    let (outcome, _) = redeliver_soon(&queue, &records, Deadline::within(Duration::from_secs(30))).await;

    assert_eq!(outcome, Ok(()));
    let connected = tokio::time::timeout(Duration::from_millis(100), listener.accept()).await;
    assert!(connected.is_err(), "a request was sent");
}

#[tokio::test]
async fn queue_without_account_or_name_is_refused() {
    let (_listener, sdk) = silent_endpoint().await;

    for url in ["logins", "https://sqs", "https://sqs/123456789012/", "https://sqs//logins"] {
        let error = LoginQueue::new(&sdk, url.to_owned()).unwrap_err();
        assert_eq!(error.to_string(), "QUEUE_URL is not the URL of a queue", "{url}");
    }
}

#[tokio::test]
async fn only_refused_messages_are_left_in_flight() {
    let sdk = aws_config::load_defaults(BehaviorVersion::latest()).await;
    let sqs = aws_sdk_sqs::Client::new(&sdk);
    let name = unique_name();
    let url = sqs.create_queue().queue_name(&name).send().await.unwrap().queue_url.unwrap();
    sqs.send_message().queue_url(&url).message_body("no login").send().await.unwrap();
    let received = sqs.receive_message().queue_url(&url).send().await.unwrap().messages.unwrap();
    let account = url.rsplit('/').nth(1).unwrap();
    let of_queue = |handle: &str| {
        let mut record = record("a", "no login");
        record["eventSourceARN"] = format!("arn:aws:sqs:eu-central-1:{account}:{name}").into();
        record["receiptHandle"] = handle.into();
        record
    };
    let queue = LoginQueue::new(&sdk, url.clone()).unwrap();
    let records = [of_queue(received[0].receipt_handle().unwrap()), of_queue("unknown")];

    let (outcome, _) = redeliver_soon(&queue, &records, Deadline::within(Duration::from_secs(30))).await;

    assert_eq!(outcome, left_in_flight(1, "ReceiptHandleIsInvalid"));
}

#[tokio::test]
async fn started_function_asks_the_queue_of_its_setting() {
    let database = Database::create().await;
    let salt = create_secret(SALT).await;
    let settings = Settings::read(|name| match name {
        // The emulator has no such queue.
        "QUEUE_URL" => Some(URL.to_owned()),
        "SALT_SECRET_ID" => Some(salt.clone()),
        "DATABASE_URL" => Some(database.url()),
        _ => None,
    });
    let ingest = Ingest::start(settings.unwrap()).await.unwrap();
    let logs = Logs::capture();

    let answer = invoke(&ingest, &batch([with_handle(record("a", "no login"))])).await;

    assert_eq!(answer, failures(&["a"]));
    assert_eq!(logs.lines("messages left in flight")[0]["messages"], 1);
}
