//! `login-etl`: the program for whoever operates a deployed stack. `login-etl --help` lists its commands.

mod accept_salt;
mod arguments;
mod aws;
mod completions;
mod environment;
mod error;
mod invoke;
mod man;
mod output;
mod question;
mod rotate;
mod salt;
mod signals;
mod stack;
mod status;

use std::process::ExitCode;

use clap::Parser;

use crate::arguments::{Arguments, Command};
use crate::error::{Error, Outcome};
use crate::output::Printer;
use crate::stack::Stack;

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

async fn run(arguments: Arguments) -> Result<Outcome, Error> {
    let options = arguments.global;
    let printer = Printer { json: options.json };
    match arguments.command {
        Command::Completions { shell } => completions::completions(shell),
        Command::Man => man::man(),
        Command::Status => status::status(&Stack::find(&options).await?, printer).await,
        Command::Rotate => rotate::rotate(&Stack::find(&options).await?, options.yes, printer).await,
        Command::AcceptSalt => {
            accept_salt::accept_salt(&Stack::find(&options).await?, options.yes, printer).await
        }
    }
}
