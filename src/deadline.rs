//! The time that an invocation has left.

use std::time::{Duration, Instant, SystemTime};

const YEAR: Duration = Duration::from_hours(365 * 24);

/// The moment until which work may wait: a little before Lambda ends the invocation, so that there
/// is time to answer with an error that says what was waited for.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    at: Instant,
    grace: Duration,
}

/// The deadline has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the invocation's time is nearly up")]
pub struct Passed;

impl Deadline {
    /// Leaves a tenth of what remains until `end`, one second at most, for the answer.
    ///
    /// An `end` within the year 1970 is taken for the time that remains, because that is what
    /// `cargo lambda watch` (as of 1.9.2) sends in place of a date.
    #[must_use]
    pub fn before(end: SystemTime) -> Self {
        let since_1970 = end.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let left = if since_1970 < YEAR {
            since_1970
        } else {
            end.duration_since(SystemTime::now()).unwrap_or_default()
        };
        let for_the_answer = (left / 10).min(Duration::from_secs(1));
        Self { at: Instant::now() + left.saturating_sub(for_the_answer), grace: for_the_answer / 2 }
    }

    /// The deadline that is `left` from now, and does not mind some grace.
    #[must_use]
    pub fn within(left: Duration) -> Self {
        Self { at: Instant::now() + left, grace: Duration::from_millis(500) }
    }

    /// Half of what is left, so that after a failure there is time for another try.
    #[must_use]
    pub fn halved(self) -> Self {
        Self { at: Instant::now() + self.left() / 2, ..self }
    }

    /// How long work may still wait.
    #[must_use]
    pub fn left(self) -> Duration {
        self.at.saturating_duration_since(Instant::now())
    }

    /// How long may be spent on leaving things in order when the deadline has passed, without being
    /// late with the answer.
    #[must_use]
    pub fn grace(self) -> Duration {
        self.grace
    }

    /// Waits for `work` until the deadline, no longer.
    ///
    /// # Errors
    ///
    /// [`Passed`] if the work was not done by then; it is dropped where it stood.
    pub async fn bound<T>(self, work: impl Future<Output = T>) -> Result<T, Passed> {
        tokio::time::timeout_at(self.at.into(), work).await.map_err(|_| Passed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(end: SystemTime) -> u64 {
        Deadline::before(end).left().as_millis().try_into().unwrap()
    }

    #[test]
    fn there_is_time_left_for_the_answer() {
        let now = SystemTime::now();

        assert!((26_000..=29_000).contains(&left(now + Duration::from_secs(30))));
        assert!((800..=900).contains(&left(now + Duration::from_secs(1))));
        assert_eq!(left(now), 0);
        assert_eq!(left(now - Duration::from_secs(30)), 0);
    }

    #[test]
    fn a_duration_in_place_of_a_date_is_the_time_left() {
        let sent_by_cargo_lambda = SystemTime::UNIX_EPOCH + Duration::from_mins(10);

        assert!((590_000..=599_000).contains(&left(sent_by_cargo_lambda)));
    }
}
