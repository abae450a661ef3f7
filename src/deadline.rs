//! The time that is left to an invocation.

use std::time::{Duration, Instant, SystemTime};

const YEAR: Duration = Duration::from_hours(365 * 24);

/// The moment until which work may wait: shortly before Lambda ends the invocation, so that the function can
/// return an error that says what took too long.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    at: Instant,
    grace: Duration,
}

/// The deadline has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the invocation ran out of time")]
pub struct DeadlinePassed;

impl Deadline {
    /// Returns the deadline of an invocation that Lambda ends at `end`. A [`reserve`] is kept for the response.
    ///
    /// An `end` in the year 1970 is the remaining time: `cargo lambda watch` (as of 1.9.2) sends this instead
    /// of a date.
    #[must_use]
    pub fn before(end: SystemTime) -> Self {
        let since_1970 = end.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let left = if since_1970 < YEAR {
            since_1970
        } else {
            end.duration_since(SystemTime::now()).unwrap_or_default()
        };
        let reserved = reserve(left);
        Self { at: Instant::now() + left.saturating_sub(reserved), grace: reserved / 2 }
    }

    /// Returns the deadline that is `left` from now.
    #[must_use]
    pub fn within(left: Duration) -> Self {
        Self { at: Instant::now() + left, grace: Duration::from_millis(500) }
    }

    /// Returns the deadline after half of the time left, so that time remains for a second attempt.
    #[must_use]
    pub fn halved(self) -> Self {
        Self { at: Instant::now() + self.left() / 2, ..self }
    }

    /// Returns how long work may still wait.
    #[must_use]
    pub fn left(self) -> Duration {
        self.at.saturating_duration_since(Instant::now())
    }

    /// Returns how long the cancellation of a statement may take after the deadline.
    #[must_use]
    pub fn grace(self) -> Duration {
        self.grace
    }

    /// Waits for `work` until the deadline.
    ///
    /// # Errors
    ///
    /// [`DeadlinePassed`]: the unfinished work is dropped.
    pub async fn timeout<T>(self, work: impl Future<Output = T>) -> Result<T, DeadlinePassed> {
        tokio::time::timeout_at(self.at.into(), work).await.map_err(|_| DeadlinePassed)
    }
}

/// Returns the part of the time `left` that is reserved for the response: 10 %, at most 1 s.
#[must_use]
pub fn reserve(left: Duration) -> Duration {
    (left / 10).min(Duration::from_secs(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(end: SystemTime) -> u64 {
        Deadline::before(end).left().as_millis().try_into().unwrap()
    }

    #[test]
    fn time_is_reserved_for_the_response() {
        let now = SystemTime::now();

        assert!((26_000..=29_000).contains(&left(now + Duration::from_secs(30))));
        assert!((800..=900).contains(&left(now + Duration::from_secs(1))));
        assert_eq!(left(now), 0);
        assert_eq!(left(now - Duration::from_secs(30)), 0);
    }

    #[test]
    fn duration_in_place_of_date_is_time_left() {
        let sent_by_cargo_lambda = SystemTime::UNIX_EPOCH + Duration::from_mins(10);

        assert!((590_000..=599_000).contains(&left(sent_by_cargo_lambda)));
    }

    #[test]
    fn dates_begin_after_the_year_1970() {
        let year = Duration::from_hours(365 * 24);

        assert!(left(SystemTime::UNIX_EPOCH + year - Duration::from_secs(1)) > 31_535_900_000);
        assert_eq!(left(SystemTime::UNIX_EPOCH + year), 0);
    }

    #[test]
    fn cancelling_takes_half_of_reserved_time() {
        let now = SystemTime::now();
        let grace = |seconds| Deadline::before(now + Duration::from_secs(seconds)).grace().as_millis();

        assert_eq!(grace(30), 500);
        assert!((190..=200).contains(&grace(4)), "{}", grace(4));
        assert_eq!(Deadline::within(Duration::ZERO).grace().as_millis(), 500);
    }

    #[test]
    fn half_of_the_time_left_is_kept() {
        let deadline = Deadline::within(Duration::from_mins(1));
        let halved = deadline.halved();

        assert!((59_000..=60_000).contains(&deadline.left().as_millis()), "{deadline:?}");
        assert!((29_000..=30_000).contains(&halved.left().as_millis()), "{halved:?}");
        assert_eq!(halved.grace(), deadline.grace());
    }
}
