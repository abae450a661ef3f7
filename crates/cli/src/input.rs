//! Personal values, which are typed on standard input. An argument would stay in the shell's history, and every user of
//! the machine could read it in the list of processes.

use std::io::{self, IsTerminal, Read};

use tokio::task::spawn_blocking;

use crate::error::Error;
use crate::output;

/// Reads the lines of standard input; `what` says what a line is.
///
/// # Errors
///
/// [`Error::Usage`] if standard input is not UTF-8, [`Error::Failed`] if it cannot be read.
pub(crate) async fn lines(what: &str) -> Result<Vec<String>, Error> {
    if io::stdin().is_terminal() {
        output::progress(format_args!("Type {what} in each line, then Ctrl-D:"));
    }
    let text = read(|text| io::stdin().read_to_string(text)).await?;
    Ok(text.lines().map(ToOwned::to_owned).collect())
}

/// Reads the only line of standard input; `what` says what it is. On a terminal, the next lines stay unread.
///
/// # Errors
///
/// [`Error::Usage`] if standard input is not UTF-8, or has not one line, [`Error::Failed`] if it cannot be read.
pub(crate) async fn line(what: &str) -> Result<String, Error> {
    let text = if io::stdin().is_terminal() {
        output::progress(format_args!("Type {what}:"));
        read(|text| io::stdin().read_line(text)).await?
    } else {
        read(|text| io::stdin().read_to_string(text)).await?
    };
    let mut lines = text.lines().filter(|line| !line.trim().is_empty());
    match (lines.next(), lines.next()) {
        (Some(line), None) => Ok(line.to_owned()),
        (None, _) => Err(Error::Usage(format!("standard input is empty: type {what} there"))),
        (Some(_), Some(_)) => {
            Err(Error::Usage(format!("standard input has more than one line: type only {what} there")))
        }
    }
}

async fn read(read: impl FnOnce(&mut String) -> io::Result<usize> + Send + 'static) -> Result<String, Error> {
    let text = spawn_blocking(|| {
        let mut text = String::new();
        read(&mut text).map(|_| text)
    });
    match text.await {
        Ok(Ok(text)) => Ok(text),
        Ok(Err(error)) if error.kind() == io::ErrorKind::InvalidData => {
            Err(Error::Usage("standard input is not UTF-8".to_owned()))
        }
        _ => Err(Error::Failed("standard input cannot be read".to_owned())),
    }
}
