//! The operator confirms a change before a command makes it.

use std::io::{self, IsTerminal};

use tokio::task::spawn_blocking;

use crate::error::Error;
use crate::output;

/// Prints the change, a sentence, and waits for the operator's `y`. With `yes`, it returns at once.
///
/// # Errors
///
/// [`Error::Usage`] if standard input is no terminal, [`Error::Failed`] if the answer is not `y`.
pub(crate) async fn confirm(change: &str, yes: bool) -> Result<(), Error> {
    if yes {
        return Ok(());
    }
    if !io::stdin().is_terminal() {
        return Err(Error::Usage(format!(
            "{change} There is no terminal to ask on, so nothing was done: add --yes."
        )));
    }
    output::progress(format_args!("{change} Continue? (y/N)"));
    let answer = spawn_blocking(|| {
        let mut answer = String::new();
        io::stdin().read_line(&mut answer).map(|_| answer)
    });
    match answer.await {
        Ok(Ok(answer)) if is_yes(&answer) => Ok(()),
        _ => Err(Error::Failed("the answer was not y; nothing was done".to_owned())),
    }
}

fn is_yes(answer: &str) -> bool {
    matches!(answer.trim(), "y" | "Y" | "yes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_y_is_yes() {
        let answers = ["y\n", "Y\n", "yes\n", "", "\n", "n\n", "no\n", "yy\n"];

        let accepted: Vec<_> = answers.into_iter().filter(|answer| is_yes(answer)).collect();

        assert_eq!(accepted, ["y\n", "Y\n", "yes\n"]);
    }
}
