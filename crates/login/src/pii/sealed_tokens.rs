//! The tokens whose values a process has sealed, so that it seals none of them again.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};
use std::mem;
use std::time::{Duration, SystemTime};

/// How many tokens a generation holds. Two generations take about 5 MB.
const TOKENS: usize = 100_000;

/// How long tokens are remembered. Nobody tells the process which values were erased.
const LIFETIME: Duration = Duration::from_hours(1);

/// The beginning of a token: of 10^9 random tokens, two have the same beginning with a probability of 10^-21.
type Beginning = u128;

type Generation = HashSet<Beginning, BuildHasherDefault<TokenHasher>>;

/// The tokens that were sealed: those of the vault, and those of a transaction that is not committed yet.
///
/// There are two generations. When the younger one is full, the older one is forgotten.
#[derive(Default)]
pub(super) struct SealedTokens {
    younger: Generation,
    older: Generation,
    /// The tokens of the transaction. They are in the younger generation too.
    uncommitted: Vec<Beginning>,
    /// When the first token was added.
    since: Option<SystemTime>,
}

/// A token is a keyed hash, so it needs no other hash.
#[derive(Default)]
struct TokenHasher(u64);

impl SealedTokens {
    /// Adds a token, and returns whether it is new.
    pub(super) fn insert(&mut self, token: &[u8; 32]) -> bool {
        let beginning = beginning(token);
        if self.older.contains(&beginning) || !self.younger.insert(beginning) {
            return false;
        }
        self.uncommitted.push(beginning);
        true
    }

    /// Forgets all tokens once an hour. No transaction may be open.
    pub(super) fn expire(&mut self, now: SystemTime) {
        let since = *self.since.get_or_insert(now);
        // A clock that was set back is no reason to wait.
        if now.duration_since(since).map_or(true, |age| age >= LIFETIME) {
            *self = Self { since: Some(now), ..Self::default() };
        }
    }

    /// The transaction was committed.
    pub(super) fn keep(&mut self) {
        self.uncommitted.clear();
        if self.younger.len() >= TOKENS {
            self.older = mem::take(&mut self.younger);
        }
    }

    /// The transaction was not committed.
    pub(super) fn forget(&mut self) {
        for beginning in self.uncommitted.drain(..) {
            self.younger.remove(&beginning);
        }
    }
}

impl Hasher for TokenHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("a beginning is one number");
    }

    #[expect(clippy::cast_possible_truncation, reason = "64 of 128 random bits")]
    fn write_u128(&mut self, beginning: u128) {
        self.0 = beginning as u64;
    }
}

fn beginning(token: &[u8; 32]) -> Beginning {
    let (beginning, _) = token.split_first_chunk::<16>().unwrap_or_else(|| unreachable!("16 of 32 bytes"));
    u128::from_be_bytes(*beginning)
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;

    fn token(number: usize) -> [u8; 32] {
        Sha256::digest(number.to_be_bytes()).into()
    }

    #[test]
    fn a_token_is_new_until_it_is_committed() {
        let mut tokens = SealedTokens::default();

        assert!(tokens.insert(&token(1)));
        assert!(!tokens.insert(&token(1)), "twice in one transaction");
        tokens.forget();
        assert!(tokens.insert(&token(1)));
        tokens.keep();
        assert!(!tokens.insert(&token(1)));
        tokens.forget();
        assert!(!tokens.insert(&token(1)), "of an earlier transaction");
    }

    #[test]
    fn tokens_are_forgotten_after_an_hour() {
        let mut tokens = SealedTokens::default();
        let start = SystemTime::now();
        let mut is_new_after = |seconds| {
            tokens.expire(start + Duration::from_secs(seconds));
            let is_new = tokens.insert(&token(1));
            tokens.keep();
            is_new
        };

        assert_eq!(
            [0, 1, 3599, 3600, 3601, 7199, 7200].map(&mut is_new_after),
            [true, false, false, true, false, false, true]
        );
        assert!(is_new_after(0), "the clock was set back");
    }

    #[test]
    fn only_the_oldest_tokens_are_forgotten() {
        let mut tokens = SealedTokens::default();
        for number in 0..3 * TOKENS {
            tokens.insert(&token(number));
            tokens.keep();
        }

        assert!(tokens.younger.len() + tokens.older.len() <= 2 * TOKENS);
        assert!(!tokens.insert(&token(3 * TOKENS - 1)));
        assert!(!tokens.insert(&token(2 * TOKENS)));
        assert!(tokens.insert(&token(0)));
    }
}
