//! `login-etl man`: prints the man page.

use clap::CommandFactory;
use clap_mangen::Man;

use crate::arguments::Arguments;
use crate::error::{Error, Outcome};
use crate::output;

/// Prints the man page, in roff.
pub(crate) fn man() -> Result<Outcome, Error> {
    let mut page = Vec::new();
    Man::new(Arguments::command())
        .render(&mut page)
        .map_err(|error| Error::Failed(format!("the man page cannot be written: {error}")))?;
    output::write(&page)?;
    Ok(Outcome::Good)
}
