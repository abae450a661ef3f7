//! How the program ends.

use std::fmt;
use std::process::ExitCode;

/// How a command ended that did its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Everything is done, or everything that the command looked at is well.
    Good,
    /// The command's result says what is not well, or what is left to do.
    Bad,
    /// The vault is not as it should be: its audit and CloudTrail differ, or it cannot open what is sealed.
    Wrong,
}

/// Why a command ended early. The text is a sentence for people; it never holds a secret or a personal value.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The command line or the environment is wrong. Nothing was done.
    #[error("{0}")]
    Usage(String),
    /// The work was not completed.
    #[error("{0}")]
    Failed(String),
    /// AWS refuses the caller the call: trying again is no use.
    #[error("{0}")]
    Denied(String),
    /// The caller may not do this in the vault: other credentials may.
    #[error("{0}")]
    Forbidden(String),
    /// The vault does not have what was asked for.
    #[error("{0}")]
    Unknown(String),
    /// The vault has erased what was asked for: it is gone.
    #[error("{0}")]
    Erased(String),
    /// A signal ended the command. What it had begun is undone, or the next run continues it.
    #[error("ended by {0}")]
    Interrupted(Signal),
}

/// A signal that ends the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    /// The terminal was closed.
    Hangup,
    /// Ctrl-C.
    Interrupt,
    Terminate,
}

impl Error {
    /// Returns the exit status: as clap's for wrong use, as a shell's after a signal.
    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Self::Usage(_) => 2.into(),
            Self::Failed(_) | Self::Denied(_) => 1.into(),
            Self::Forbidden(_) => 3.into(),
            Self::Unknown(_) => 4.into(),
            Self::Erased(_) => 5.into(),
            Self::Interrupted(signal) => signal.exit_status().into(),
        }
    }
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Good => Self::SUCCESS,
            Outcome::Bad => 1.into(),
            Outcome::Wrong => 6.into(),
        }
    }
}

impl Signal {
    /// Returns the exit status of a process that this signal ended, as shells report it.
    fn exit_status(self) -> u8 {
        match self {
            Self::Hangup => 129,
            Self::Interrupt => 130,
            Self::Terminate => 143,
        }
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hangup => "SIGHUP",
            Self::Interrupt => "SIGINT",
            Self::Terminate => "SIGTERM",
        })
    }
}
