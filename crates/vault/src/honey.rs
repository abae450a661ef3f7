//! `POST /honey`: tokens that belong to no value. Whoever asks for one found it where it was planted.

use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rand;
use serde::Serialize;

use crate::token::Token;

/// The answer to [`HoneyRequest`](crate::requests::HoneyRequest).
#[derive(Debug, Serialize)]
pub struct Honey {
    /// The number of the entry of this request.
    pub audit_entry: i64,
    /// The tokens.
    pub tokens: Vec<String>,
}

/// Makes tokens of random bytes. Nobody without the salt can tell them from the tokens of values.
///
/// # Errors
///
/// [`Unspecified`] if the operating system gives no random numbers.
pub fn tokens(count: u16) -> Result<Vec<Token>, Unspecified> {
    (0..count)
        .map(|_| {
            let mut bytes = [0; 32];
            rand::fill(&mut bytes)?;
            Ok(Token::from(bytes))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn tokens_are_random() {
        let tokens = tokens(100).unwrap();

        let texts: BTreeSet<_> = tokens.iter().map(Token::to_text).collect();
        assert_eq!(texts.len(), 100);
        let first_bytes: BTreeSet<_> = tokens.iter().map(|token| token.as_bytes()[0]).collect();
        assert!(first_bytes.len() > 50);
    }
}
