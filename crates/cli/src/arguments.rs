//! The command line.

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

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
pub struct Arguments {
    #[command(flatten)]
    pub global: GlobalOptions,
    #[command(subcommand)]
    pub command: Command,
}

/// The options of all commands.
#[derive(Debug, Args)]
pub struct GlobalOptions {
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
pub enum Command {
    /// Show the state of the queue, the functions, the schema and the salt; change nothing
    Status,
    /// Give the database roles login_writer and login_analyst new passwords
    Rotate,
    /// Accept the salt in Secrets Manager: rows with it cannot be joined with older rows
    AcceptSalt,
    /// Print the completions of a shell
    Completions { shell: Shell },
    /// Print the man page, in roff
    Man,
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
