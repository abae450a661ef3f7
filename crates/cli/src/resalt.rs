//! `login-etl resalt`: replaces all tokens by those of a later salt.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::confirmation;
use crate::error::{Error, Outcome};
use crate::invoke::Invoker;
use crate::output::{self, Printer};
use crate::salt;
use crate::signals::Signals;
use crate::stack::Stack;

/// The answer of the migrate function.
#[derive(Deserialize)]
struct Step {
    done: bool,
    rows: u64,
    parts_left: u64,
    others: u64,
}

/// The result: fingerprints, never a salt.
#[derive(Debug, Serialize)]
struct Resalted {
    stack: String,
    accepted: String,
    rows: u64,
    /// Number of values that were no tokens, and stayed as they are.
    others: u64,
}

/// Replaces the tokens, after the operator confirmed. Each invocation of the migrate function does as much as it can; an
/// interruption leaves what is copied, and the next run continues.
pub(crate) async fn resalt(
    stack: &Stack,
    printer: Printer,
    signals: &mut Signals,
    yes: bool,
) -> Result<Outcome, Error> {
    let invoker = Invoker::new(&stack.aws);
    let (fingerprints, schema) = signals
        .interrupt(async {
            Ok((salt::fingerprints(&invoker, stack).await?, salt::schema_status(&invoker, stack).await?))
        })
        .await?;
    let later = fingerprints.current;
    let Some(accepted) = schema.accepted_salt else {
        let reason = "no salt is accepted yet: the first batch accepts the last salt of the secret";
        return Err(Error::Failed(reason.to_owned()));
    };
    if accepted.fingerprint != later {
        let change = format!(
            "{} replaces all tokens of the salt {} by tokens of the later salt {later}. Copies of the tokens elsewhere \
             can then no longer be joined with them.",
            stack.name, accepted.fingerprint
        );
        signals.interrupt(confirmation::confirm(&change, yes)).await?;
    }
    let mut resalted = Resalted { stack: stack.name.clone(), accepted: later, rows: 0, others: 0 };
    loop {
        let step = signals.interrupt(invoker.migrate::<Step>(stack, &json!({ "action": "resalt" }))).await;
        let step = step.inspect_err(|_| {
            output::progress(
                "What is copied stays, and until the end the old salt counts: run resalt again.",
            );
        })?;
        resalted.rows += step.rows;
        resalted.others += step.others;
        if step.done {
            break;
        }
        output::progress(format_args!(
            "{} rows copied, {} parts of the table left…",
            resalted.rows, step.parts_left
        ));
    }
    printer.print(&resalted)?;
    Ok(Outcome::Good)
}

impl fmt::Display for Resalted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { stack, accepted, rows, others } = self;
        write!(
            f,
            "{stack} has the tokens of the salt with the fingerprint {accepted}. {rows} rows were copied."
        )?;
        if *others > 0 {
            write!(f, " {others} values were no tokens, and are as before.")?;
        }
        Ok(())
    }
}
