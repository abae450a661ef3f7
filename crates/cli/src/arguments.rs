//! The command line.

use clap::{Parser, Subcommand};
use clap_complete::Shell;

use crate::agree::AgreeArguments;
use crate::erase::EraseArguments;
use crate::honey::HoneyArguments;
use crate::logs::LogsArguments;
use crate::page::PageArguments;
use crate::redrive::RedriveArguments;
use crate::reveal::RevealArguments;
use crate::smoke::SmokeArguments;
use crate::stack::StackOptions;
use crate::token::TokenArguments;
use crate::verify::VerifyArguments;

/// Operates a deployed stack of login-etl
///
/// Name the stack with --env or --stack. Credentials come from where the AWS SDK
/// finds them: environment variables, the profile AWS_PROFILE, or the machine's role.
///
/// Exit status: 0 if everything is done or well, 1 if something is not well or is
/// left to do, 2 for wrong use, 3, 4 or 5 if the vault denies a request, does not
/// know a token or has erased its value, 6 if the vault is not as it should be, 129,
/// 130 or 143 after SIGHUP, SIGINT (Ctrl-C) or SIGTERM.
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
    /// Serve the analysts' page on this machine, until Ctrl-C
    ///
    /// Prints an address for the browser. Requests are sent to AWS, signed with your
    /// own credentials, and logged without their paths. Nothing is written to disk.
    #[command(verbatim_doc_comment)]
    Page(PageArguments),
    /// Compute the tokens of values that are typed on standard input
    ///
    /// Reads a value from each line, and prints the tokens in the same order. A value
    /// is no argument, because other users of this machine can read arguments, and
    /// your shell keeps them. The vault must be on (Vault=true).
    #[command(verbatim_doc_comment)]
    Token(TokenArguments),
    /// Reveal the value of a token
    ///
    /// The vault first writes an audit entry with your AWS identity, the reason and
    /// the ticket. A reveal that fails leaves an entry, too.
    #[command(verbatim_doc_comment)]
    Reveal(RevealArguments),
    /// Erase the value of a token, a value, or the values of a user
    ///
    /// Name a token, or type the value or the user id on standard input. Of a user,
    /// only values that no other user has are erased; the others are listed. The
    /// tokens stay in the rows unless you add --rows. Nothing brings an erased value
    /// back.
    #[command(verbatim_doc_comment)]
    Erase(EraseArguments),
    /// Look after the vault
    #[command(subcommand)]
    Vault(VaultCommand),
    /// Print the completions of a shell
    Completions { shell: Shell },
    /// Print the man page of the program or of one of its commands
    Man {
        /// The command; without it, the program
        #[arg(value_name = "COMMAND")]
        of: Vec<String>,
    },
}

/// The commands for those who look after the vault.
#[derive(Debug, Subcommand)]
pub(crate) enum VaultCommand {
    /// Compare the vault's audit with CloudTrail, both ways
    ///
    /// Finds uses of the vault's keys without an audit entry, entries without a use,
    /// and values that were taken without an outcome. The last 15 minutes do not
    /// count, because CloudTrail delivers late. Exits with 6 if there is a difference.
    #[command(verbatim_doc_comment)]
    Agree(AgreeArguments),
    /// Let the vault open values at random; check the result
    ///
    /// No value and no token leaves the vault. Each value that is tried leaves an
    /// audit entry. Exits with 6 if a value does not open, if KMS refuses a key, or if
    /// the current key is not that of the settings, and with 1 if nothing was tried.
    #[command(verbatim_doc_comment)]
    Verify(VerifyArguments),
    /// Make tokens that belong to no value, to plant where thieves look
    ///
    /// Whoever asks the vault for such a token is told that it is unknown, and raises
    /// an alarm. Do not plant them in user_logins: analysts count its rows.
    #[command(verbatim_doc_comment)]
    Honey(HoneyArguments),
    /// Repeat the erasures that a restored database does not have
    ///
    /// Reads the erasure list, and erases what the list has and the database does
    /// not: sealed values and, where the erasure included them, tokens in the rows.
    /// Do this before anybody reads a restored database. It may be repeated. Exits
    /// with 1 if an erasure could not be repeated, and names it.
    #[command(verbatim_doc_comment)]
    Replay,
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
    /// Give the logins of the database new passwords
    ///
    /// Nothing is deployed, and open connections stay open. An interruption at any
    /// place leaves a password that works: run it again.
    #[command(verbatim_doc_comment)]
    Rotate,
    /// Accept the salt that is in Secrets Manager now
    ///
    /// Do this only if the salt was changed on purpose: new rows can never be joined
    /// with older rows. It prints the fingerprints of both salts and waits for y.
    #[command(verbatim_doc_comment)]
    AcceptSalt,
    /// Replace all tokens by those of the later salt in Secrets Manager
    ///
    /// First add the later salt to the secret, in the list later_salts, and deploy with
    /// Resalt=true. Nothing is lost: equal values stay equal. The rows are copied while
    /// batches are written, and replaced at the end. After an interruption, run it
    /// again.
    #[command(verbatim_doc_comment)]
    Resalt,
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
    /// after a signal. If redrive was killed, the mapping is still on: run it again.
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
    use clap::{Arg, CommandFactory};

    use super::*;

    const OPERATIONS: &str = include_str!("../../../docs/operations.md");

    /// Returns the rows of the document's table with this header.
    fn documented(header: &str) -> Vec<Vec<&'static str>> {
        let (_, table) = OPERATIONS.split_once(header).unwrap();
        let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
        rows.map(|row| row.trim_matches('|').split('|').map(str::trim).collect()).collect()
    }

    /// Returns how `--help` spells an option or a positional argument.
    fn spelling(argument: &Arg) -> String {
        let value = argument.get_value_names().filter(|_| argument.get_action().takes_values());
        let value = value.map(|names| format!("<{}>", names[0]));
        let long = argument.get_long().map(|long| format!("--{long}"));
        format!("`{}`", [long, value].into_iter().flatten().collect::<Vec<_>>().join(" "))
    }

    fn help_of(argument: &Arg) -> String {
        argument.get_help().map(ToString::to_string).unwrap_or_default()
    }

    #[test]
    fn definition_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn document_lists_every_command_and_option() {
        let program = Arguments::command();
        let row = |name: String, command: &clap::Command| {
            let options: Vec<_> = command.get_arguments().map(spelling).collect();
            let about = command.get_about().map(ToString::to_string).unwrap_or_default();
            vec![format!("`{name}`"), about, options.join(", ")]
        };
        let mut commands: Vec<Vec<String>> = Vec::new();
        for command in program.get_subcommands() {
            let name = command.get_name();
            if command.has_subcommands() {
                let parts = command.get_subcommands();
                commands.extend(parts.map(|part| row(format!("{name} {}", part.get_name()), part)));
            } else {
                commands.push(row(name.to_owned(), command));
            }
        }
        let options: Vec<Vec<String>> =
            program.get_arguments().map(|argument| vec![spelling(argument), help_of(argument)]).collect();

        let mut documented_commands = documented("| command | what it does | its options |");
        documented_commands.sort_unstable();
        commands.sort_unstable();
        assert_eq!(documented_commands, commands);
        assert_eq!(documented("| option | meaning |"), options);
    }
}
