//! What the program prints: results on standard output, progress on standard error.

use std::fmt::{self, Write as _};
use std::io::{self, Write as _};

use comfy_table::{Table, presets};
use serde::Serialize;

use crate::error::Error;

/// Prints the result of a command: a text for people, or one JSON document for programs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Printer {
    /// Whether to print JSON.
    pub json: bool,
}

impl Printer {
    /// Prints a result.
    pub(crate) fn print<R: fmt::Display + Serialize>(self, result: &R) -> Result<(), Error> {
        let text = if self.json {
            serde_json::to_string_pretty(result)
                .map_err(|error| Error::Failed(format!("the result cannot be written as JSON: {error}")))?
        } else {
            result.to_string()
        };
        write(format!("{}\n", printable(&text)).as_bytes())
    }
}

/// Formats a table, in Markdown, so that it can be pasted into a report.
pub(crate) fn table<const N: usize>(
    header: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header(header);
    for row in rows {
        // A line end in a cell would look like the next row.
        table.add_row(row.map(|cell| printable(&cell).replace('\n', "\\u000a")));
    }
    table.to_string()
}

/// Writes a file that the program generates to standard output, as it is.
pub(crate) fn write(file: &[u8]) -> Result<(), Error> {
    let mut stdout = io::stdout().lock();
    stdout
        .write_all(file)
        .and_then(|()| stdout.flush())
        .map_err(|error| Error::Failed(format!("standard output cannot be written: {error}")))
}

/// Writes a line to standard error. Errors are ignored: a closed terminal must not end a command that still has
/// something to put back, and `eprintln!` would.
pub(crate) fn progress(line: impl fmt::Display) {
    let _ = writeln!(io::stderr().lock(), "{}", printable(&line.to_string()));
}

/// Replaces each character that could control a terminal by its JSON escape. Line ends stay.
pub(crate) fn printable(text: &str) -> String {
    let mut printable = String::with_capacity(text.len());
    for character in text.chars() {
        if character != '\n' && (character.is_control() || reorders_text(character)) {
            // Writing to a text cannot fail.
            let _ = write!(printable, "\\u{:04x}", u32::from(character));
        } else {
            printable.push(character);
        }
    }
    printable
}

/// Whether a terminal may show the characters that follow in another order.
fn reorders_text(character: char) -> bool {
    matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped() {
        let shown = printable("one\ntwo\r\u{1b}[2J\u{9b}31m\u{202e}äß");

        assert_eq!(shown, "one\ntwo\\u000d\\u001b[2J\\u009b31m\\u202eäß");
    }
}
