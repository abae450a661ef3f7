//! Shortens the visibility timeout of hopeless messages, so that SQS soon moves them to the dead-letter queue.
//!
//! A message that fails stays in flight until its visibility timeout ends. SQS holds about [120,000 messages in
//! flight][quota] per queue. If hopeless messages use them up, SQS delivers no good message either.
//!
//! [quota]: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-queues.html

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use aws_config::SdkConfig;
use aws_sdk_sqs::Client;
use aws_sdk_sqs::types::ChangeMessageVisibilityBatchRequestEntry as Entry;
use futures_util::{StreamExt, TryStreamExt, stream};
use login::event::SqsMessage;

use crate::aws::secrets::request_failure;
use crate::config::{QUEUE_URL, SettingError};
use crate::deadline::Deadline;

/// The visibility timeout of hopeless messages. Not 0: SQS would deliver many of them again and again before good
/// messages that were sent later.
const VISIBILITY_TIMEOUT_S: i32 = 1;

/// Time limit of all requests of a batch: a function that cannot reach SQS must not slow its batches much.
const TIME_LIMIT: Duration = Duration::from_secs(1);

/// How long no request is sent after a request failed.
const PAUSE: Duration = Duration::from_mins(1);

/// The [maximum][api] of one request.
///
/// [api]: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_ChangeMessageVisibilityBatch.html
const MAX_ENTRIES: usize = 10;

/// How many requests of one batch may be open at the same time.
const MAX_REQUESTS: usize = 10;

/// The queue that delivers the logins.
pub struct LoginQueue {
    client: Client,
    url: String,
    /// The end of its ARN: a colon, the account, a colon, the name.
    arn_end: String,
    /// No request is sent before this moment.
    paused_until: Mutex<Option<Instant>>,
}

/// Messages stay in flight until their visibility timeout ends.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{cause}")]
pub struct LeftInFlight {
    /// Number of messages.
    pub messages: usize,
    /// Why.
    pub cause: String,
}

impl LoginQueue {
    /// Makes a client of the queue with this URL.
    ///
    /// # Errors
    ///
    /// [`SettingError`] if the URL does not end with an account and a name.
    pub fn new(sdk: &SdkConfig, url: String) -> Result<Self, SettingError> {
        let mut parts = url.rsplit('/');
        let arn_end = match (parts.next(), parts.next()) {
            (Some(name), Some(account)) if !name.is_empty() && !account.is_empty() => {
                format!(":{account}:{name}")
            }
            _ => {
                let problem = "is not the URL of a queue";
                return Err(SettingError::Invalid { variable: QUEUE_URL, problem });
            }
        };
        Ok(Self { client: Client::new(sdk), url, arn_end, paused_until: Mutex::new(None) })
    }

    /// Shortens the visibility timeout of messages, so that SQS soon delivers them again, or moves them to the
    /// dead-letter queue.
    ///
    /// Messages of other queues stay as they are: a dead letter would come back without end, because the
    /// dead-letter queue has no dead-letter queue of its own.
    ///
    /// # Errors
    ///
    /// [`LeftInFlight`]: SQS delivers these messages again, but later.
    pub async fn redeliver_soon(
        &self,
        messages: &[&SqsMessage<'_>],
        deadline: Deadline,
    ) -> Result<(), LeftInFlight> {
        let ours = messages.iter().filter(|message| self.delivered(message));
        let handles: Vec<String> = ours.filter_map(|message| message.receipt_handle()).collect();
        if handles.is_empty() {
            return Ok(());
        }
        let changed = AtomicUsize::new(0);
        let left_in_flight =
            |cause| LeftInFlight { messages: handles.len() - changed.load(Ordering::Relaxed), cause };
        if self.is_paused() {
            return Err(left_in_flight("an earlier request failed less than a minute ago".to_owned()));
        }
        let requests: Vec<_> =
            handles.chunks(MAX_ENTRIES).map(|handles| self.change_visibility(handles, &changed)).collect();
        let all = stream::iter(requests).buffer_unordered(MAX_REQUESTS).try_collect::<Vec<_>>();
        match tokio::time::timeout(TIME_LIMIT.min(deadline.left()), all).await {
            Ok(Ok(refusals)) => {
                refusals.into_iter().flatten().next().map_or(Ok(()), |code| Err(left_in_flight(code)))
            }
            Ok(Err(cause)) => {
                self.pause();
                Err(left_in_flight(cause))
            }
            Err(_) => {
                self.pause();
                Err(left_in_flight("SQS did not answer in time".to_owned()))
            }
        }
    }

    /// Sends one request and counts the messages that it changed. Returns the code of the first refusal.
    async fn change_visibility(
        &self,
        handles: &[String],
        changed: &AtomicUsize,
    ) -> Result<Option<String>, String> {
        let entries = handles.iter().enumerate().map(|(position, handle)| {
            let entry = Entry::builder()
                .id(position.to_string())
                .receipt_handle(handle)
                .visibility_timeout(VISIBILITY_TIMEOUT_S);
            entry.build().unwrap_or_else(|_| unreachable!("the id and the handle are set"))
        });
        let request = self.client.change_message_visibility_batch().queue_url(&self.url);
        // Boxed: the SDK's future is tens of kilobytes large.
        let response = Box::pin(request.set_entries(Some(entries.collect())).send()).await;
        let response = response.map_err(|error| request_failure(&error))?;
        changed.fetch_add(response.successful().len(), Ordering::Relaxed);
        Ok(response.failed().first().map(|refusal| refusal.code().to_owned()))
    }

    fn delivered(&self, message: &SqsMessage<'_>) -> bool {
        message.queue_arn.as_ref().is_some_and(|arn| arn.ends_with(&self.arn_end))
    }

    fn is_paused(&self) -> bool {
        let paused_until = self.paused_until.lock().unwrap_or_else(PoisonError::into_inner);
        paused_until.is_some_and(|until| Instant::now() < until)
    }

    fn pause(&self) {
        let mut paused_until = self.paused_until.lock().unwrap_or_else(PoisonError::into_inner);
        *paused_until = Some(Instant::now() + PAUSE);
    }
}

impl fmt::Debug for LoginQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoginQueue").finish_non_exhaustive()
    }
}
