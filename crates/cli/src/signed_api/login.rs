//! The caller's AWS credentials.

use std::time::{Duration, SystemTime};

use aws_sdk_cloudformation::config::{Credentials, ProvideCredentials, SharedCredentialsProvider};
use tokio::sync::Mutex;

use crate::aws;

/// Credentials that expire within this time are replaced: AWS must still accept them when the request arrives.
const MARGIN: Duration = Duration::from_mins(1);

/// Keeps the credentials until they expire: the SDK's providers read files, start programs or send requests each time.
#[derive(Debug)]
pub(crate) struct Login {
    provider: SharedCredentialsProvider,
    kept: Mutex<Option<Credentials>>,
}

impl Login {
    pub(crate) fn new(provider: SharedCredentialsProvider) -> Self {
        Self { provider, kept: Mutex::new(None) }
    }

    /// Returns the credentials.
    ///
    /// # Errors
    ///
    /// The reason why there are none, for the terminal.
    pub(crate) async fn credentials(&self) -> Result<Credentials, String> {
        let mut kept = self.kept.lock().await;
        if let Some(credentials) = kept.as_ref().filter(|credentials| !expires_soon(credentials)) {
            return Ok(credentials.clone());
        }
        let credentials = self.provider.provide_credentials().await;
        let credentials = credentials.map_err(|error| aws::no_credentials(&error))?;
        Ok(kept.insert(credentials).clone())
    }

    /// Forgets the credentials, which AWS has refused: the caller may have logged in again since.
    pub(crate) async fn forget(&self) {
        *self.kept.lock().await = None;
    }
}

fn expires_soon(credentials: &Credentials) -> bool {
    credentials.expiry().is_some_and(|expiry| expiry < SystemTime::now() + MARGIN)
}
