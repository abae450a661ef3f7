//! The tokens whose values a process has sealed, so that it seals none of them again.

use std::time::{Duration, SystemTime};

/// The number of sets. Together they hold 262,144 tokens, in 2 MiB.
const SETS: usize = 1 << 15;
const TOKENS_PER_SET: usize = 8;

/// How long tokens are remembered. Nobody tells the process which values were erased.
const LIFETIME: Duration = Duration::from_hours(1);

/// What is remembered of a token. A new token equals one of its set with a probability of 10^-18.
type Remembered = u64;

/// No token.
const EMPTY: Remembered = 0;

/// The tokens that were sealed: those of the vault, and those of a transaction that is not committed yet.
///
/// A token is a keyed hash, so it needs no other hash: its first bytes choose the set. A set forgets its oldest token for
/// a new one. A hash table of the standard library took more time than the encryption, because it reads a few cold lines
/// of the cache for each token. A set is one line.
pub(super) struct SealedTokens {
    sets: Box<[Set]>,
    /// The tokens of the transaction. They are in the sets too.
    uncommitted: Vec<(usize, Remembered)>,
    /// When the first token was added.
    since: Option<SystemTime>,
}

/// Tokens, the newest first.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Set([Remembered; TOKENS_PER_SET]);

impl SealedTokens {
    /// Adds a token, and returns whether it is new.
    #[expect(clippy::needless_bitwise_bool, reason = "the processor would guess an early end wrongly")]
    pub(super) fn insert(&mut self, token: &[u8; 32]) -> bool {
        let (index, remembered) = place(token);
        let Set(set) = &mut self.sets[index];
        if set.iter().fold(false, |found, before| found | (*before == remembered)) {
            return false;
        }
        set.copy_within(..TOKENS_PER_SET - 1, 1);
        set[0] = remembered;
        self.uncommitted.push((index, remembered));
        true
    }

    /// Forgets all tokens once an hour. No transaction may be open.
    pub(super) fn expire(&mut self, now: SystemTime) {
        let since = *self.since.get_or_insert(now);
        // A clock that was set back is no reason to wait.
        if now.duration_since(since).map_or(true, |age| age >= LIFETIME) {
            self.sets.fill(Set::NEW);
            self.uncommitted.clear();
            self.since = Some(now);
        }
    }

    /// The transaction was committed.
    pub(super) fn keep(&mut self) {
        self.uncommitted.clear();
    }

    /// The transaction was not committed.
    pub(super) fn forget(&mut self) {
        for (index, remembered) in self.uncommitted.drain(..) {
            let Set(set) = &mut self.sets[index];
            if let Some(found) = set.iter().position(|before| *before == remembered) {
                set.copy_within(found + 1.., found);
                set[TOKENS_PER_SET - 1] = EMPTY;
            }
        }
    }
}

impl Default for SealedTokens {
    fn default() -> Self {
        Self { sets: vec![Set::NEW; SETS].into_boxed_slice(), uncommitted: Vec::new(), since: None }
    }
}

impl Set {
    const NEW: Self = Self([EMPTY; TOKENS_PER_SET]);
}

/// Returns the set of a token, and what the set remembers of it.
fn place(token: &[u8; 32]) -> (usize, Remembered) {
    let [first, second, rest @ ..] = token;
    let (remembered, _) = rest.split_first_chunk().unwrap_or_else(|| unreachable!("8 of 30 bytes"));
    let index = usize::from(u16::from_be_bytes([*first, *second])) % SETS;
    (index, Remembered::from_be_bytes(*remembered).max(EMPTY + 1))
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
    fn mostly_the_oldest_tokens_are_forgotten() {
        const TOKENS: usize = SETS * TOKENS_PER_SET;
        let mut tokens = SealedTokens::default();
        for number in 0..3 * TOKENS {
            tokens.insert(&token(number));
            tokens.keep();
        }

        let mut forgotten = |numbers: std::ops::Range<usize>| {
            let count = numbers.len();
            let new = numbers.filter(|number| tokens.insert(&token(*number))).count();
            new * 1_000 / count
        };
        // Backwards, because a forgotten token takes the place of another.
        assert_eq!(forgotten(3 * TOKENS - 10_000..3 * TOKENS), 0);
        assert!(forgotten(3 * TOKENS - 100_000..3 * TOKENS - 90_000) < 30);
        assert!(forgotten(0..10_000) > 990);
    }

    #[test]
    fn no_token_is_an_empty_place() {
        let mut tokens = SealedTokens::default();

        assert_eq!([tokens.insert(&[0; 32]), tokens.insert(&[0; 32])], [true, false]);
    }

    #[test]
    fn only_uncommitted_tokens_are_forgotten() {
        let mut tokens = SealedTokens::default();
        // All in one set.
        let of_set = |number| [[0; 2].as_slice(), &[number; 30]].concat().try_into().unwrap();
        let [first, second, third, fourth] = [1, 2, 3, 4].map(of_set);
        for token in [first, second] {
            assert!(tokens.insert(&token));
        }
        tokens.keep();
        for token in [third, fourth] {
            assert!(tokens.insert(&token));
        }

        tokens.forget();

        assert_eq!(
            [first, second, third, fourth].map(|token| tokens.insert(&token)),
            [false, false, true, true]
        );
    }
}
