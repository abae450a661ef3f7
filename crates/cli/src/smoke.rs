//! `login-etl smoke`: sends test messages through a deployed stack and checks the result.
//!
//! SQS deletes a message only after the function has reported it as written, and the function's log has the number of
//! rows, so no access to the database is needed. A bad message would stay in the queue for an hour and then raise an
//! alarm. Instead it is passed to the function directly, whose answer must name it.

use std::fmt;
use std::time::{Duration, SystemTime};

use aws_sdk_lambda::primitives::Blob;
use aws_sdk_sqs::types::SendMessageBatchRequestEntry as Entry;
use clap::Args;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::aws;
use crate::confirmation;
use crate::error::{Error, Outcome};
use crate::log_lines::{self, Function};
use crate::output::{self, Printer};
use crate::queue;
use crate::stack::Stack;

/// Number of test messages: SQS takes 10 in one request.
const MESSAGES: usize = 10;
/// Time between two looks at the queue or the log.
const INTERVAL: Duration = Duration::from_secs(1);

/// Arguments of `smoke`.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct SmokeArguments {
    /// Time limit. The default allows for a cold start, the batching window, and the delays of SQS and of the log
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub patience: u64,
}

/// Whether the stack works.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Report {
    stack: String,
    works: bool,
    /// Number of test messages that were sent through the queue.
    sent: usize,
    /// What does not work.
    problem: Option<String>,
}

/// Why a check did not pass.
enum Problem {
    /// The part of the stack that does not work.
    Found(String),
    /// The stack could not be looked at.
    Unknown(Error),
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        Self::Unknown(error)
    }
}

/// Sends test messages through a stack, and checks that they are written. A signal may end this at any place: messages
/// that were sent are still written.
pub(crate) async fn smoke(
    stack: &Stack,
    arguments: SmokeArguments,
    printer: Printer,
    yes: bool,
) -> Result<Outcome, Error> {
    let change = format!(
        "{MESSAGES} test messages are sent to {}. They leave rows whose users are called smoke-….",
        stack.name
    );
    confirmation::confirm(&change, yes).await?;
    let problem = match check(stack, Duration::from_secs(arguments.patience)).await {
        Ok(()) => None,
        Err(Problem::Found(problem)) => Some(problem),
        Err(Problem::Unknown(error)) => return Err(error),
    };
    let report = Report { stack: stack.name.clone(), works: problem.is_none(), sent: MESSAGES, problem };
    printer.print(&report)?;
    Ok(if report.works { Outcome::Good } else { Outcome::Bad })
}

async fn check(stack: &Stack, patience: Duration) -> Result<(), Problem> {
    output::progress("passing a bad message to the function");
    check_bad_message(stack).await?;
    let (since, deadline) = (SystemTime::now(), Instant::now() + patience);
    output::progress(format_args!("sending {MESSAGES} messages to the queue"));
    let ids = send(stack).await?;
    output::progress("waiting until they are written");
    wait_until_empty(stack, &ids, since, deadline, patience).await?;
    wait_until_written(stack, &ids, since, deadline).await
}

/// Checks that the function reports a bad message, and only by its id.
async fn check_bad_message(stack: &Stack) -> Result<(), Problem> {
    let id = Uuid::new_v4();
    let event = bad_event(id).to_string();
    let request = stack.aws.invoking_lambda().invoke().function_name(stack.output("FunctionName")?);
    let answer = request.payload(Blob::new(event)).send().await;
    let answer = answer.map_err(|error| aws::failure("Invoke", &error))?;
    let payload = answer.payload().map(|payload| serde_json::from_slice(payload.as_ref()));
    let payload: Value = payload.and_then(Result::ok).unwrap_or_default();
    if answer.function_error().is_some() {
        let error_type = payload["errorType"].as_str().unwrap_or("unknown error").to_owned();
        return Err(Problem::Found(format!("the function failed: {error_type}")));
    }
    if payload != json!({ "batchItemFailures": [{ "itemIdentifier": id.to_string() }] }) {
        return Err(Problem::Found("the function did not report a bad message as failed".to_owned()));
    }
    Ok(())
}

/// Sends the test messages. Returns their ids.
async fn send(stack: &Stack) -> Result<Vec<String>, Problem> {
    let entries = (1..=MESSAGES).map(|number| {
        let entry = Entry::builder().id(number.to_string()).message_body(login(number).to_string());
        entry.build().unwrap_or_else(|_| unreachable!("the id and the body are set"))
    });
    let request = stack.aws.sqs().send_message_batch().queue_url(stack.output("QueueUrl")?);
    let answer = request.set_entries(Some(entries.collect())).send().await;
    let answer = answer.map_err(|error| aws::failure("SendMessageBatch", &error))?;
    if let [refused, ..] = answer.failed() {
        let number = answer.failed().len();
        return Err(Problem::Found(format!("SQS refused {number} messages: {}", refused.code())));
    }
    Ok(answer.successful().iter().map(|sent| sent.message_id().to_owned()).collect())
}

async fn wait_until_empty(
    stack: &Stack,
    ids: &[String],
    since: SystemTime,
    deadline: Instant,
    patience: Duration,
) -> Result<(), Problem> {
    loop {
        let counts = queue::describe(&stack.aws, stack.output("QueueUrl")?).await?.counts;
        if counts.total() == 0 {
            return Ok(());
        }
        check_failures(stack, ids, since).await?;
        if Instant::now() > deadline {
            return Err(Problem::Found(format!(
                "messages are still in the queue after {} s",
                patience.as_secs()
            )));
        }
        sleep(INTERVAL).await;
    }
}

async fn wait_until_written(
    stack: &Stack,
    ids: &[String],
    since: SystemTime,
    deadline: Instant,
) -> Result<(), Problem> {
    loop {
        let lines = log_lines::read(stack, Function::Ingest, "batch done", since).await?;
        let written: u64 = lines.iter().filter_map(|line| line.written).sum();
        if written >= MESSAGES as u64 {
            return Ok(());
        }
        check_failures(stack, ids, since).await?;
        if Instant::now() > deadline {
            return Err(Problem::Found(format!("only {written} of {MESSAGES} messages were written")));
        }
        sleep(INTERVAL).await;
    }
}

/// Looks in the log for test messages that failed.
async fn check_failures(stack: &Stack, ids: &[String], since: SystemTime) -> Result<(), Problem> {
    let lines = log_lines::read(stack, Function::Ingest, "message failed", since).await?;
    let ours = |line: &&log_lines::LogLine| line.message_id.as_ref().is_some_and(|id| ids.contains(id));
    match lines.iter().find(ours) {
        Some(line) => Err(Problem::Found(format!(
            "a test message failed: {}, {}",
            line.reason.as_deref().unwrap_or_default(),
            line.error.as_deref().unwrap_or_default()
        ))),
        None => Ok(()),
    }
}

/// Makes a login of nobody: the address is one of those [for documentation][rfc], the device id is no device's.
///
/// [rfc]: https://www.rfc-editor.org/rfc/rfc5737
fn login(number: usize) -> Value {
    json!({
        "user_id": format!("smoke-{}", Uuid::new_v4()),
        "app_version": "2.3.0",
        "device_type": "android",
        "ip": format!("203.0.113.{number}"),
        "locale": "DE",
        "device_id": format!("000-00-{number:04}"),
    })
}

/// Makes an event of SQS with one message that is no login.
fn bad_event(id: Uuid) -> Value {
    json!({
        "Records": [{
            "messageId": id.to_string(),
            "receiptHandle": "handle",
            "body": r#"{"smoke": "not a login"}"#,
            "attributes": { "ApproximateReceiveCount": "1", "SentTimestamp": "1773791997120" },
            "messageAttributes": {},
            "eventSource": "aws:sqs",
            "eventSourceARN": "arn:aws:sqs:us-east-1:123456789012:smoke-test",
            "awsRegion": "us-east-1",
        }],
    })
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.problem {
            Some(problem) => write!(f, "{} does not work: {problem}", self.stack),
            None => write!(
                f,
                "{} works: {} messages were written, a bad message was reported",
                self.stack, self.sent
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_logins_are_nobodys() {
        let logins: Vec<_> = (1..=MESSAGES).map(login).collect();

        assert!(logins.iter().all(|login| login["user_id"].as_str().unwrap().starts_with("smoke-")));
        assert!(logins.iter().all(|login| login["ip"].as_str().unwrap().starts_with("203.0.113.")));
        assert_eq!(logins[9]["device_id"], "000-00-0010");
    }

    #[test]
    fn report_names_the_problem() {
        let report = |problem: Option<&str>| {
            Report {
                stack: "login-etl-prod".into(),
                works: problem.is_none(),
                sent: MESSAGES,
                problem: problem.map(Into::into),
            }
            .to_string()
        };

        assert_eq!(
            report(None),
            "login-etl-prod works: 10 messages were written, a bad message was reported"
        );
        assert_eq!(
            report(Some("only 3 of 10 messages were written")),
            "login-etl-prod does not work: only 3 of 10 messages were written"
        );
    }
}
