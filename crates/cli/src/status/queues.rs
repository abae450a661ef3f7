//! The messages that wait.

use std::time::{Duration, SystemTime};

use aws_sdk_cloudwatch::primitives::DateTime;
use aws_sdk_cloudwatch::types::{Datapoint, Dimension, Statistic};
use serde_json::json;

use super::report::Part;
use crate::aws;
use crate::error::Error;
use crate::queue::{self, Counts};
use crate::stack::Stack;

const ALARMS: &str = "docs/operations.md#alarms";
/// SQS reports the age once a minute, and late.
const AGE_PERIOD: Duration = Duration::from_mins(10);

/// Shows the login queue. Waiting messages alone are no fault: the alarm `oldest-message` decides.
pub(super) async fn login_queue(stack: &Stack) -> Part {
    let read = async {
        let url = stack.output("QueueUrl")?;
        let Counts { waiting, in_flight } = queue::describe(&stack.aws, url).await?.counts;
        let oldest = oldest_seconds(stack, url).await?;
        let age = match oldest {
            _ if waiting + in_flight == 0 => String::new(),
            Some(seconds) => format!(", the oldest for {seconds:.0} s"),
            None => ", the age of the oldest is not measured yet".to_owned(),
        };
        let text = format!("{waiting} waiting, {in_flight} in flight{age}");
        let values = json!({ "waiting": waiting, "in_flight": in_flight, "oldest_s": oldest });
        Ok(Part::new("queue", ALARMS, true, text, values))
    };
    read.await.unwrap_or_else(|error| Part::unknown("queue", ALARMS, &error))
}

/// Shows the dead-letter queue, which must be empty.
pub(super) async fn dead_letters(stack: &Stack) -> Part {
    const RUNBOOK: &str = "docs/operations.md#redrive-dead-letters";
    let read = async {
        let queue = queue::describe(&stack.aws, stack.output("DeadLetterQueueUrl")?).await?;
        let messages = queue.counts.total();
        let text = match messages {
            0 => "none".to_owned(),
            1 => "1 message failed on every delivery".to_owned(),
            messages => format!("{messages} messages failed on every delivery"),
        };
        Ok(Part::new("dead letters", RUNBOOK, messages == 0, text, json!({ "messages": messages })))
    };
    read.await.unwrap_or_else(|error| Part::unknown("dead letters", RUNBOOK, &error))
}

/// Returns the newest age that SQS reported, in seconds.
async fn oldest_seconds(stack: &Stack, url: &str) -> Result<Option<f64>, Error> {
    let now = SystemTime::now();
    let name = url.rsplit('/').next().unwrap_or_default();
    let answer = stack
        .aws
        .cloudwatch()
        .get_metric_statistics()
        .namespace("AWS/SQS")
        .metric_name("ApproximateAgeOfOldestMessage")
        .dimensions(Dimension::builder().name("QueueName").value(name).build())
        .start_time(DateTime::from(now - AGE_PERIOD))
        .end_time(DateTime::from(now))
        .period(60)
        .statistics(Statistic::Maximum)
        .send()
        .await
        .map_err(|error| aws::failure("GetMetricStatistics", &error))?;
    let newest = answer.datapoints().iter().max_by_key(|point| point.timestamp().map(DateTime::secs));
    Ok(newest.and_then(Datapoint::maximum))
}
