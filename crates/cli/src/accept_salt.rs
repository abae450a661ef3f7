//! `login-etl accept-salt`: accepts the salt that is in Secrets Manager.

use std::fmt;

use serde::Serialize;

use crate::confirmation;
use crate::error::{Error, Outcome};
use crate::invoke::Invoker;
use crate::output::Printer;
use crate::salt;
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

/// Accepts the salt in Secrets Manager, after the operator confirmed.
pub(crate) async fn accept_salt(stack: &Stack, printer: Printer, yes: bool) -> Result<Outcome, Error> {
    let invoker = Invoker::new(&stack.aws);
    let fingerprints = salt::fingerprints(&invoker, stack).await?;
    let accepted = salt::schema_status(&invoker, stack).await?.accepted_salt;
    if accepted.as_ref().is_some_and(|accepted| fingerprints.has_later_than(&accepted.fingerprint)) {
        let reason = "the secret has the accepted salt and a later salt: run resalt, which replaces the tokens. To \
                      accept another salt would end all joins with older rows, so nothing was done";
        return Err(Error::Failed(reason.to_owned()));
    }
    let current = fingerprints.current;
    let before = accepted.as_ref().map(|salt| salt.fingerprint.clone());
    let changed = before.as_ref() != Some(&current);
    if changed {
        confirmation::confirm(&change(&stack.name, accepted.as_ref(), &current), yes).await?;
        // The answer may have taken long.
        if salt::fingerprints(&invoker, stack).await?.current != current {
            let problem = "somebody changed the salt in Secrets Manager meanwhile, so nothing was accepted";
            return Err(Error::Failed(problem.to_owned()));
        }
        salt::accept(&invoker, stack, &current).await?;
    }
    printer.print(&AcceptedSalt { stack: stack.name.clone(), before, accepted: current, changed })?;
    Ok(Outcome::Good)
}

fn change(stack: &str, accepted: Option<&salt::AcceptedSalt>, current: &str) -> String {
    let accepted = accepted.map_or("accepts no salt yet".to_owned(), |salt| {
        format!("accepts the salt with the fingerprint {} since {}", salt.fingerprint, salt.accepted_at)
    });
    format!(
        "{stack} {accepted}. The salt in Secrets Manager has the fingerprint {current}. If it is accepted, new rows can \
         never be joined with older rows."
    )
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
