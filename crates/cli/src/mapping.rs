//! The event-source mapping with which the function reads the dead-letter queue during a redrive.
//!
//! Lambda turns a mapping on and off in the [background][states]: its state is `Enabling` or `Disabling` meanwhile,
//! and an update of such a mapping fails with `ResourceInUseException`.
//!
//! [states]: https://docs.aws.amazon.com/lambda/latest/api/API_GetEventSourceMapping.html

use std::time::{Duration, SystemTime};

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
    /// The command that turns it off by hand.
    region: &'s str,
}

/// The mapping, as Lambda describes it.
#[derive(Debug)]
struct Described {
    state: String,
    modified: SystemTime,
}

impl<'s> RedriveMapping<'s> {
    /// Returns the mapping of a stack.
    pub(crate) fn of(stack: &'s Stack) -> Result<Self, Error> {
        Ok(Self {
            client: stack.aws.lambda(),
            id: stack.output("RedriveMappingId")?,
            region: stack.aws.region(),
        })
    }

    /// Whether the mapping is off. A mapping that is being turned off is not.
    pub(crate) async fn is_off(&self) -> Result<bool, Error> {
        Ok(self.describe().await?.state == DISABLED)
    }

    /// Turns the mapping on, and waits until it is. Returns when that was, by Lambda's clock.
    ///
    /// A signal waits for the answer of a request that was sent: Lambda could carry it out after
    /// [`turn_off`](Self::turn_off). The caller must call that even if this fails.
    pub(crate) async fn turn_on(&self, signals: &mut Signals) -> Result<SystemTime, Error> {
        let deadline = Instant::now() + TIME_LIMIT;
        let mut accepted = false;
        loop {
            if !accepted {
                accepted = self.update(true).await?;
            }
            let mapping = self.describe().await?;
            match &*mapping.state {
                ENABLED if accepted => return Ok(mapping.modified),
                DISABLED => accepted = false,
                _ => {}
            }
            if Instant::now() > deadline {
                return Err(Error::Failed(format!(
                    "the mapping was not turned on within {} minutes; its state is {}",
                    TIME_LIMIT.as_secs() / 60,
                    mapping.state
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
                let mapping = self.describe().await?;
                accepted &= mapping.state != ENABLED;
                Ok(accepted && mapping.state == DISABLED)
            };
            match step.await {
                Ok(true) => return Ok(()),
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
        match request.send().await {
            Ok(_) => Ok(true),
            Err(error) if error.code() == Some("ResourceInUseException") => Ok(false),
            Err(error) => Err(aws::failure("UpdateEventSourceMapping", &error)),
        }
    }

    async fn describe(&self) -> Result<Described, Error> {
        let answer = self.client.get_event_source_mapping().uuid(self.id).send().await;
        let mapping = answer.map_err(|error| aws::failure("GetEventSourceMapping", &error))?;
        let modified = mapping.last_modified().and_then(|time| SystemTime::try_from(*time).ok());
        Ok(Described {
            state: mapping.state().unwrap_or_default().to_owned(),
            modified: modified.unwrap_or_else(SystemTime::now),
        })
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
