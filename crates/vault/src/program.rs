//! Serves Lambda's events.

use lambda_runtime::{Context, Error, LambdaEvent};
use login_etl::aws::secrets::Secrets;
use login_etl::config::SettingError;
use login_etl::deadline::Deadline;
use serde_json::Value;

use crate::answer::Answer;
use crate::broker::Broker;
use crate::event::{Event, HttpRequest};
use crate::kms::Kms;
use crate::public_key;
use crate::record::Record;
use crate::settings::Settings;

/// The program of a process.
#[derive(Debug)]
pub struct Program {
    kms: Kms,
    /// A wrong setting fails the requests, and not the process: CloudFormation would wait for a response until its
    /// timeout.
    broker: Result<Broker, SettingError>,
}

impl Program {
    /// Reads the settings, connects and fetches the salt. `environment` returns the value of an environment variable,
    /// if it is set.
    pub async fn start(environment: impl Fn(&str) -> Option<String>) -> Self {
        let secrets = Secrets::from_env().await;
        let kms = Kms::new(secrets.sdk_config());
        let broker =
            Settings::read(environment).and_then(|settings| Broker::new(settings, secrets, kms.clone()));
        match &broker {
            Ok(broker) => broker.warm_up().await,
            Err(error) => tracing::error!(error = %error, "requests will fail"),
        }
        Self { kms, broker }
    }

    /// Handles one event. The answer to CloudFormation is sent elsewhere.
    ///
    /// # Errors
    ///
    /// The event is unknown, a setting is wrong, or the response to CloudFormation cannot be delivered.
    pub async fn handle(
        &self,
        LambdaEvent { payload, context }: LambdaEvent<Value>,
        environment: impl Fn(&str) -> Option<String> + Copy,
    ) -> Result<Option<Answer>, Error> {
        let outcome = match Event::read(payload) {
            Ok(Event::Http(request)) => self.answer(&request, &context).await.map(Some),
            Ok(Event::PublicKey(request)) => {
                let responded = Box::pin(public_key::respond(&request, &self.kms, environment)).await;
                responded.map(|()| None).map_err(Error::from)
            }
            Err(error) => Err(error.into()),
        };
        // CloudFormation and an HTTP API do not show the error.
        if let Err(error) = &outcome {
            tracing::error!(error = %error, "the event failed");
        }
        outcome
    }

    async fn answer(&self, request: &HttpRequest, context: &Context) -> Result<Answer, Error> {
        let broker = self.broker.as_ref().map_err(Clone::clone)?;
        let mut record = Record::start();
        let deadline = Deadline::before(context.deadline());
        let answer = Box::pin(broker.answer(request, deadline, &mut record)).await;
        record.write(answer.status_code, context);
        Ok(answer)
    }
}
