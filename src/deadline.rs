//! The time that an invocation has left.

use std::time::{Duration, Instant, SystemTime};

/// The moment until which work may wait: a little before Lambda ends the invocation, so that there
/// is time to answer with an error that says what was waited for.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(Instant);

/// The deadline has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the invocation's time is nearly up")]
pub struct Passed;

impl Deadline {
    /// Leaves a tenth of what remains until `end`, one second at most, for the answer.
    #[must_use]
    pub fn before(end: SystemTime) -> Self {
        let left = end.duration_since(SystemTime::now()).unwrap_or_default();
        Self::within(left.saturating_sub((left / 10).min(Duration::from_secs(1))))
    }

    /// The deadline that is `left` from now.
    #[must_use]
    pub fn within(left: Duration) -> Self {
        Self(Instant::now() + left)
    }

    /// Half of what is left, so that after a failure there is time for another try.
    #[must_use]
    pub fn halved(self) -> Self {
        Self::within(self.0.saturating_duration_since(Instant::now()) / 2)
    }

    /// Waits for `work` until the deadline, no longer.
    ///
    /// # Errors
    ///
    /// [`Passed`] if the work was not done by then; it is dropped where it stood.
    pub async fn bound<T>(self, work: impl Future<Output = T>) -> Result<T, Passed> {
        tokio::time::timeout_at(self.0.into(), work).await.map_err(|_| Passed)
    }
}
