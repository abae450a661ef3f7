//! `login-etl completions`: prints the completions of a shell.

use clap::CommandFactory;
use clap_complete::{Shell, generate};

use crate::arguments::Arguments;
use crate::error::{Error, Outcome};
use crate::output;

/// Prints the completions of a shell.
pub(crate) fn completions(shell: Shell) -> Result<Outcome, Error> {
    let mut script = Vec::new();
    generate(shell, &mut Arguments::command(), "login-etl", &mut script);
    output::write(&script)?;
    Ok(Outcome::Good)
}
