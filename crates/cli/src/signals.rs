//! The signals that end the program. A command that must put something back does so before it ends.

use std::io;

use tokio::signal::unix::{self, SignalKind};

use crate::error::{Error, Signal};

/// Receives the signals. From then on, they no longer end the process by themselves.
#[derive(Debug)]
pub(crate) struct Signals {
    hangup: unix::Signal,
    interrupt: unix::Signal,
    terminate: unix::Signal,
}

impl Signals {
    /// Starts to receive the signals.
    pub(crate) fn listen() -> Result<Self, Error> {
        let listen = || {
            Ok(Self {
                hangup: unix::signal(SignalKind::hangup())?,
                interrupt: unix::signal(SignalKind::interrupt())?,
                terminate: unix::signal(SignalKind::terminate())?,
            })
        };
        listen().map_err(|error: io::Error| Error::Failed(format!("signals cannot be received: {error}")))
    }

    /// Waits for the next signal.
    pub(crate) async fn received(&mut self) -> Signal {
        tokio::select! {
            _ = self.hangup.recv() => Signal::Hangup,
            _ = self.interrupt.recv() => Signal::Interrupt,
            _ = self.terminate.recv() => Signal::Terminate,
        }
    }

    /// Runs `work` until it ends or a signal arrives. A signal drops `work` where it waits: it must leave nothing
    /// behind that has to be put back.
    pub(crate) async fn interrupt<T>(
        &mut self,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        tokio::select! {
            biased;
            signal = self.received() => Err(Error::Interrupted(signal)),
            result = work => result,
        }
    }
}
