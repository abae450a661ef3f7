//! The command line.

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

use crate::redrive::RedriveArguments;

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
    pub global: GlobalOptions,
    #[command(subcommand)]
    pub command: Command,
}

/// The options of all commands.
#[derive(Debug, Args)]
pub(crate) struct GlobalOptions {
    /// Environment of ./samconfig.toml, which has the name and the region of the stack
    #[arg(long, global = true, value_name = "NAME", conflicts_with = "stack")]
    pub env: Option<String>,
    /// Name of the stack
    #[arg(long, global = true, value_name = "NAME")]
    pub stack: Option<String>,
    /// Region of the stack; without it, the region of --env, of AWS_REGION or of the profile
    #[arg(long, global = true, value_name = "REGION")]
    pub region: Option<String>,
    /// Print the result as one JSON document
    #[arg(long, global = true)]
    pub json: bool,
    /// Do not ask before a change
    #[arg(long, global = true)]
    pub yes: bool,
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
    /// Write the dead letters to the table; bad messages stay
    ///
    /// Turns the mapping of the dead-letter queue on, so that the function reads
    /// this queue, and off again when no more letters succeed, after an error, and
    /// after a signal. If it was killed, run it again.
    #[command(verbatim_doc_comment)]
    Redrive(RedriveArguments),
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
