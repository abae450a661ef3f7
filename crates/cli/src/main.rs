//! `login-etl`: the operators' program for a deployed stack. `login-etl --help` lists its commands.

#![expect(clippy::doc_markdown, reason = "--help shows the texts of clap's types, and is not Markdown")]

mod accept_salt;
mod agree;
mod arguments;
mod aws;
mod cloudtrail;
mod completions;
mod concurrency;
mod confirmation;
mod environment;
mod erase;
mod error;
mod honey;
mod input;
mod invoke;
mod log_lines;
mod logs;
mod man;
mod mapping;
mod output;
mod page;
mod queue;
mod redrive;
mod replay;
mod resalt;
mod reveal;
mod rotate;
mod salt;
mod signals;
mod signed_api;
mod smoke;
mod stack;
mod status;
mod token;
mod vault;
mod verify;

use std::process::ExitCode;

use clap::Parser;

use crate::arguments::{Arguments, Command, StackCommand, VaultCommand};
use crate::error::{Error, Outcome};
use crate::output::Printer;
use crate::signals::Signals;
use crate::stack::Stack;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => {
            let outcome = runtime.block_on(run(arguments));
            // After a signal, a thread may still wait for the operator's answer.
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

async fn run(Arguments { stack, json, yes, command }: Arguments) -> Result<Outcome, Error> {
    let mut signals = Signals::listen()?;
    let printer = Printer { json };
    let command = match command {
        Command::Completions { shell } => return completions::completions(shell),
        Command::Man { of } => return man::man(&of),
        Command::Page(arguments) => {
            return Box::pin(signals.interrupt(page::page(&stack, arguments, printer))).await;
        }
        Command::Token(arguments) => {
            return Box::pin(signals.interrupt(token::token(&stack, arguments, printer))).await;
        }
        Command::Reveal(arguments) => {
            return Box::pin(signals.interrupt(reveal::reveal(&stack, arguments, printer))).await;
        }
        Command::Erase(arguments) => {
            return Box::pin(signals.interrupt(erase::erase(&stack, arguments, printer, yes))).await;
        }
        Command::Vault(VaultCommand::Agree(arguments)) => {
            return Box::pin(signals.interrupt(agree::agree(&stack, arguments, printer))).await;
        }
        Command::Vault(VaultCommand::Verify(arguments)) => {
            return Box::pin(signals.interrupt(verify::verify(&stack, arguments, printer))).await;
        }
        Command::Vault(VaultCommand::Honey(arguments)) => {
            return Box::pin(signals.interrupt(honey::honey(&stack, arguments, printer))).await;
        }
        Command::Vault(VaultCommand::Replay) => {
            let stack = Box::pin(signals.interrupt(Stack::find(&stack))).await?;
            return signals.interrupt(replay::replay(&stack, printer)).await;
        }
        Command::OfStack(command) => command,
    };
    let stack = Box::pin(signals.interrupt(Stack::find(&stack))).await?;
    match command {
        StackCommand::Status => Box::pin(signals.interrupt(status::status(&stack, printer))).await,
        StackCommand::Rotate => rotate::rotate(&stack, printer, &mut signals, yes).await,
        StackCommand::AcceptSalt => signals.interrupt(accept_salt::accept_salt(&stack, printer, yes)).await,
        StackCommand::Resalt => Box::pin(resalt::resalt(&stack, printer, &mut signals, yes)).await,
        StackCommand::Logs(arguments) => signals.interrupt(logs::logs(&stack, arguments, printer)).await,
        StackCommand::Redrive(arguments) => {
            redrive::redrive(&stack, arguments, printer, &mut signals, yes).await
        }
        StackCommand::Smoke(arguments) => {
            signals.interrupt(smoke::smoke(&stack, arguments, printer, yes)).await
        }
    }
}
