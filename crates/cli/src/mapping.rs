//! The event-source mapping with which the function reads the dead-letter queue during a redrive.
//!
//! Lambda turns a mapping on and off in the [background][states]: its state is `Enabling` or `Disabling` meanwhile,
//! and an update of such a mapping fails with `ResourceInUseException`.
//!
//! [states]: https://docs.aws.amazon.com/lambda/latest/api/API_GetEventSourceMapping.html

use std::cell::Cell;
use std::time::Duration;

use aws_sdk_lambda::Client;
use aws_sdk_lambda::error::ProvideErrorMetadata;
use tokio::time::{Instant, sleep};

use crate::aws;
use crate::error::Error;
use crate::output;
use crate::signals::Signals;
use crate::stack::Stack;

/// How long Lambda may take to turn the mapping on or off. AWS names no limit; a minute is common.
const TIME_LIMIT: Duration = Duration::from_mins(5);
/// Time between two looks at the mapping.
const INTERVAL: Duration = Duration::from_secs(1);

const ENABLED: &str = "Enabled";
const DISABLED: &str = "Disabled";

/// The mapping of the dead-letter queue.
#[derive(Debug)]
pub(crate) struct RedriveMapping<'s> {
    client: Client,
    id: &'s str,
    region: &'s str,
    /// Whether a request to turn it on was sent that Lambda may carry out.
    was_turned_on: Cell<bool>,
}

impl<'s> RedriveMapping<'s> {
    /// Returns the mapping of a stack.
    pub(crate) fn of(stack: &'s Stack) -> Result<Self, Error> {
        Ok(Self {
            client: stack.aws.lambda(),
            id: stack.output("RedriveMappingId")?,
            region: stack.aws.region(),
            was_turned_on: Cell::new(false),
        })
    }

    /// Whether [`turn_on`](Self::turn_on) may have turned the mapping on.
    pub(crate) fn was_turned_on(&self) -> bool {
        self.was_turned_on.get()
    }

    /// Whether the mapping is off. A mapping that is being turned off is not.
    pub(crate) async fn is_off(&self) -> Result<bool, Error> {
        Ok(self.state().await? == DISABLED)
    }

    /// Turns the mapping on, and waits until it is.
    ///
    /// A signal waits for the answer of a request that was sent: Lambda could carry it out after
    /// [`turn_off`](Self::turn_off). If this fails, the caller must call that if
    /// [`was_turned_on`](Self::was_turned_on).
    pub(crate) async fn turn_on(&self, signals: &mut Signals) -> Result<(), Error> {
        let deadline = Instant::now() + TIME_LIMIT;
        let mut accepted = false;
        loop {
            if !accepted {
                accepted = self.update(true).await?;
            }
            let state = self.state().await?;
            match &*state {
                ENABLED if accepted => return Ok(()),
                DISABLED => accepted = false,
                _ => {}
            }
            if Instant::now() > deadline {
                return Err(Error::Failed(format!(
                    "the mapping was not turned on within {} minutes; its state is {state}",
                    TIME_LIMIT.as_secs() / 60
                )));
            }
            signals.interrupt(wait()).await?;
        }
    }

    /// Turns the mapping off, and waits until it is. Signals that arrive meanwhile only print that it goes on.
    pub(crate) async fn turn_off(&self, signals: &mut Signals) -> Result<(), Error> {
        output::progress("turning the mapping of the dead-letter queue off");
        let mut work = std::pin::pin!(self.try_to_turn_off());
        loop {
            tokio::select! {
                result = &mut work => break result.map_err(|error| self.still_on(&error)),
                signal = signals.received() => output::progress(format_args!(
                    "{signal} was received, but the mapping must be turned off first"
                )),
            }
        }?;
        output::progress("the mapping is off");
        Ok(())
    }

    async fn try_to_turn_off(&self) -> Result<(), Error> {
        let deadline = Instant::now() + TIME_LIMIT;
        // The request is sent whatever the description says, which may be older than the request that turned the
        // mapping on.
        let mut accepted = false;
        loop {
            let step = async {
                if !accepted {
                    accepted = self.update(false).await?;
                }
                let state = self.state().await?;
                accepted &= state != ENABLED;
                Ok(accepted && state == DISABLED)
            };
            match step.await {
                Ok(true) => return Ok(()),
                Err(error @ Error::Denied(_)) => return Err(error),
                Err(error) if Instant::now() > deadline => return Err(error),
                Ok(false) if Instant::now() > deadline => {
                    return Err(Error::Failed(format!(
                        "not done within {} minutes",
                        TIME_LIMIT.as_secs() / 60
                    )));
                }
                Ok(false) => {}
                Err(error) => output::progress(format_args!("{error}; trying again")),
            }
            sleep(INTERVAL).await;
        }
    }

    /// Sends an update. Returns whether Lambda accepted it; it does not while it carries out another update.
    async fn update(&self, enabled: bool) -> Result<bool, Error> {
        let request = self.client.update_event_source_mapping().uuid(self.id).enabled(enabled);
        let accepted = match request.send().await {
            Ok(_) => Ok(true),
            Err(error) if error.code() == Some("ResourceInUseException") => Ok(false),
            Err(error) => Err(aws::failure("UpdateEventSourceMapping", &error)),
        };
        if enabled && !matches!(accepted, Ok(false) | Err(Error::Denied(_))) {
            self.was_turned_on.set(true);
        }
        accepted
    }

    async fn state(&self) -> Result<String, Error> {
        let answer = self.client.get_event_source_mapping().uuid(self.id).send().await;
        let mapping = answer.map_err(|error| aws::failure("GetEventSourceMapping", &error))?;
        Ok(mapping.state.unwrap_or_default())
    }

    fn still_on(&self, error: &Error) -> Error {
        Error::Failed(format!(
            "the mapping may still be on: {error}. Turn it off: aws lambda update-event-source-mapping --region {} \
             --uuid {} --no-enabled",
            self.region, self.id
        ))
    }
}

async fn wait() -> Result<(), Error> {
    sleep(INTERVAL).await;
    Ok(())
}
