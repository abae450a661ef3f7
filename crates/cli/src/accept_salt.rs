//! `login-etl accept-salt`: accepts the salt that is in Secrets Manager.

use std::fmt;

use serde::Serialize;

use crate::error::{Error, Outcome};
use crate::invoke::Invoker;
use crate::output::Printer;
use crate::question;
use crate::salt;
use crate::signals::Signals;
use crate::stack::Stack;

/// The result: fingerprints, never a salt.
#[derive(Debug, Serialize)]
struct AcceptedSalt {
    stack: String,
    /// `None` if no row was written yet.
    before: Option<String>,
    accepted: String,
    changed: bool,
}

/// Accepts the salt in Secrets Manager, after asking.
pub(crate) async fn accept_salt(stack: &Stack, yes: bool, printer: Printer) -> Result<Outcome, Error> {
    let invoker = Invoker::new(&stack.aws);
    let work = async {
        let salts = salt::fingerprints(&invoker, stack).await?;
        let accepted = salt::schema_status(&invoker, stack).await?.accepted_salt;
        let before = accepted.as_ref().map(|salt| salt.fingerprint.clone());
        if before.as_ref() == Some(&salts.current) {
            return Ok(AcceptedSalt {
                stack: stack.name.clone(),
                before,
                accepted: salts.current,
                changed: false,
            });
        }
        let old = accepted.map_or("no salt is accepted yet".to_owned(), |salt| {
            format!("the accepted salt has the fingerprint {} (since {})", salt.fingerprint, salt.accepted_at)
        });
        let change = format!(
            "In {}, {old}; the salt in Secrets Manager has {}. If it is accepted, new rows can never be joined with \
             the older rows.",
            stack.name, salts.current
        );
        question::ask(&change, yes).await?;
        let changed = salt::accept(&invoker, stack, &salts.current).await?.changed;
        Ok(AcceptedSalt { stack: stack.name.clone(), before, accepted: salts.current, changed })
    };
    let result = Signals::listen()?.interrupt(work).await?;
    printer.print(&result)?;
    Ok(Outcome::Good)
}

impl fmt::Display for AcceptedSalt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { stack, accepted, .. } = self;
        if self.changed {
            write!(
                f,
                "{stack} accepts the salt with the fingerprint {accepted}. Messages that wait are written with it."
            )
        } else {
            write!(f, "{stack} accepts the salt in Secrets Manager already: its fingerprint is {accepted}.")
        }
    }
}
