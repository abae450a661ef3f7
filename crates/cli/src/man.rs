//! `login-etl man`: prints a man page.

use clap::CommandFactory;
use clap_mangen::Man;

use crate::arguments::Arguments;
use crate::error::{Error, Outcome};
use crate::output;

/// Prints the man page of a command, or of the program if no command is named, in roff.
pub(crate) fn man(of: &[String]) -> Result<Outcome, Error> {
    let mut program = Arguments::command();
    // Adds the options of all commands to each command, and the program's name to its name.
    program.build();
    let mut command = &program;
    for name in of {
        command = command.find_subcommand(name).ok_or_else(|| {
            let of = of.join(" ");
            Error::Usage(format!("login-etl has no command {of}; login-etl --help lists them"))
        })?;
    }
    let mut page = Vec::new();
    Man::new(command.clone())
        .render(&mut page)
        .map_err(|error| Error::Failed(format!("the man page cannot be written: {error}")))?;
    output::write(&page)?;
    Ok(Outcome::Good)
}
