//! Counts the messages of a queue. Their bodies are personal data: no command receives a message.

use std::collections::HashMap;
use std::time::Duration;

use aws_sdk_sqs::types::QueueAttributeName;
use serde::Serialize;

use crate::aws::{self, Aws};
use crate::error::Error;

/// Numbers of messages. SQS calls them approximate: they can be a minute old.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Counts {
    /// Messages that can be received.
    pub waiting: u64,
    /// Messages that were received, and are neither deleted nor given back.
    pub in_flight: u64,
}

/// A queue, as SQS describes it.
#[derive(Debug)]
pub(crate) struct Described {
    pub counts: Counts,
    /// How long a message that was received stays in flight.
    pub visibility_timeout: Duration,
}

impl Counts {
    /// Returns the number of all messages.
    pub(crate) fn total(self) -> u64 {
        self.waiting + self.in_flight
    }
}

/// Describes the queue with this URL.
pub(crate) async fn describe(aws: &Aws, url: &str) -> Result<Described, Error> {
    use QueueAttributeName::{
        ApproximateNumberOfMessages, ApproximateNumberOfMessagesDelayed,
        ApproximateNumberOfMessagesNotVisible, VisibilityTimeout,
    };
    let names = [
        ApproximateNumberOfMessages,
        ApproximateNumberOfMessagesDelayed,
        ApproximateNumberOfMessagesNotVisible,
        VisibilityTimeout,
    ];
    let request = aws.sqs().get_queue_attributes().queue_url(url).set_attribute_names(Some(names.to_vec()));
    let answer = request.send().await.map_err(|error| aws::failure("GetQueueAttributes", &error))?;
    let attributes = answer.attributes.unwrap_or_default();
    Ok(Described {
        counts: Counts {
            waiting: number(&attributes, &ApproximateNumberOfMessages)?
                + number(&attributes, &ApproximateNumberOfMessagesDelayed)?,
            in_flight: number(&attributes, &ApproximateNumberOfMessagesNotVisible)?,
        },
        visibility_timeout: Duration::from_secs(number(&attributes, &VisibilityTimeout)?),
    })
}

fn number(attributes: &HashMap<QueueAttributeName, String>, name: &QueueAttributeName) -> Result<u64, Error> {
    let text = attributes.get(name).map_or("", String::as_str);
    text.parse().map_err(|_| Error::Failed(format!("SQS did not return the attribute {}", name.as_str())))
}
