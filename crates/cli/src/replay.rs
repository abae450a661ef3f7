//! `login-etl vault replay`: repeats the erasures that a restored database does not have.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::error::{Error, Outcome};
use crate::invoke::Invoker;
use crate::output::{self, Printer};
use crate::stack::Stack;

/// The result, as the migrate function answers it.
#[derive(Debug, Deserialize, Serialize)]
struct Replayed {
    /// How many erasures the list has.
    listed: u64,
    /// How many of them the database did not have.
    erasures: u64,
    tokens: u64,
    /// How many rows of `user_logins` lost a token.
    rows: u64,
}

/// Repeats the erasures. An erasure that cannot be repeated is an error, which names its object.
pub(crate) async fn replay(stack: &Stack, printer: Printer) -> Result<Outcome, Error> {
    output::progress(format_args!("Replaying the erasure list of {}…", stack.name));
    let event = json!({ "action": "replay-erasures" });
    let replayed: Replayed = Invoker::new(&stack.aws).migrate(stack, &event).await?;
    printer.print(&replayed)?;
    Ok(Outcome::Good)
}

impl fmt::Display for Replayed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { listed, erasures, tokens, rows } = self;
        write!(
            f,
            "The erasure list has {listed} erasures. The database did not have {erasures} of them: repeated, with \
             {tokens} tokens and {rows} rows."
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_answer() {
        let answer = json!({ "listed": 4, "erasures": 3, "tokens": 5, "rows": 7 });
        let replayed: Replayed = serde_json::from_value(answer).unwrap();

        assert_eq!(
            replayed.to_string(),
            "The erasure list has 4 erasures. The database did not have 3 of them: repeated, with 5 tokens and 7 rows."
        );
    }
}
