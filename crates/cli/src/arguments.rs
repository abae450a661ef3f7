//! The command line.

use clap::{Parser, Subcommand};
use clap_complete::Shell;

use crate::logs::LogsArguments;
use crate::redrive::RedriveArguments;
use crate::smoke::SmokeArguments;
use crate::stack::StackOptions;

/// Operates a deployed stack of login-etl
///
/// Name the stack with --env or --stack. Credentials come from where the AWS SDK
/// finds them: environment variables, the profile AWS_PROFILE, or the machine's role.
///
/// Exit status: 0 if everything is done or well, 1 if something is not well or is
/// left to do, 2 for wrong use, 129, 130 or 143 after SIGHUP, SIGINT (Ctrl-C) or
/// SIGTERM.
#[derive(Debug, Parser)]
#[command(name = "login-etl", version, verbatim_doc_comment)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub stack: StackOptions,
    /// Print the result as one JSON document
    #[arg(long, global = true)]
    pub json: bool,
    /// Do not ask before a change
    #[arg(long, global = true)]
    pub yes: bool,
    #[command(subcommand)]
    pub command: Command,
}

/// A module each, of the same name.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    #[command(flatten)]
    OfStack(StackCommand),
    /// Print the completions of a shell
    Completions { shell: Shell },
    /// Print the man page, in roff
    Man,
}

/// The commands that look at a stack or change it.
#[derive(Debug, Subcommand)]
pub(crate) enum StackCommand {
    /// Show the state of the queues, the functions, the schema and the salt
    ///
    /// Changes nothing. Exits with 1 if a part is not well or cannot be read, and
    /// names the section of docs/operations.md that says what to do. It reads the
    /// database, so a paused Aurora database starts.
    #[command(verbatim_doc_comment)]
    Status,
    /// Give login_writer and login_analyst new database passwords
    ///
    /// Nothing is deployed, and open connections stay open. An interruption at any
    /// place leaves a password that works: run it again.
    #[command(verbatim_doc_comment)]
    Rotate,
    /// Accept the salt that is in Secrets Manager now
    ///
    /// Do this only if the salt was changed on purpose: new rows can never be joined
    /// with older rows. It shows the fingerprints of both salts and asks first.
    #[command(verbatim_doc_comment)]
    AcceptSalt,
    /// Show what failed, from the functions' logs
    ///
    /// Prints only lines that the functions wrote themselves, which hold no personal
    /// values. Exits with 1 if anything failed.
    #[command(verbatim_doc_comment)]
    Logs(LogsArguments),
    /// Write the dead letters to the table; bad messages stay
    ///
    /// Turns the mapping of the dead-letter queue on, so that the function reads
    /// this queue, and off again when no more letters succeed, after an error, and
    /// after a signal. If it was killed, run it again.
    #[command(verbatim_doc_comment)]
    Redrive(RedriveArguments),
    /// Send test messages through the stack; check the result
    ///
    /// Passes a bad message to the function, which must report it. Sends ten logins
    /// through the queue, which must be written. Ten rows remain, whose users are
    /// called smoke-….
    #[command(verbatim_doc_comment)]
    Smoke(SmokeArguments),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn definition_is_consistent() {
        Arguments::command().debug_assert();
    }
}
