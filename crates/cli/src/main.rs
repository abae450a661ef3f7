//! `login-etl`: the program for whoever operates a deployed stack. `login-etl --help` lists its commands.

mod arguments;
mod aws;
mod completions;
mod environment;
mod error;
mod man;
mod output;
mod question;
mod signals;
mod stack;

use std::process::ExitCode;

use clap::Parser;

use crate::arguments::{Arguments, Command};
use crate::error::{Error, Outcome};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => {
            let outcome = runtime.block_on(run(arguments));
            // A question that a signal ended still waits for its answer in a thread.
            runtime.shutdown_background();
            outcome
        }
        Err(error) => Err(Error::Failed(format!("the program cannot start: {error}"))),
    };
    match outcome {
        Ok(outcome) => outcome.into(),
        Err(error) => {
            output::progress(format_args!("login-etl: {error}"));
            error.exit_code()
        }
    }
}

#[expect(clippy::unused_async, reason = "each command that follows waits for AWS")]
async fn run(arguments: Arguments) -> Result<Outcome, Error> {
    match arguments.command {
        Command::Completions { shell } => completions::completions(shell),
        Command::Man => man::man(),
    }
}
