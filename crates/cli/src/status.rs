//! `login-etl status`: shows what the person on call wants to know first.

use crate::error::{Error, Outcome};
use crate::invoke::Invoker;
use crate::output::{self, Printer};
use crate::stack::Stack;

use self::report::{Report, State};

mod database;
mod lambda;
mod monitoring;
mod queues;
mod report;

/// Shows the state of each part of the stack. A part that cannot be read does not hide the others.
pub(crate) async fn status(stack: &Stack, printer: Printer) -> Result<Outcome, Error> {
    output::progress(format_args!("Reading {}; a paused database takes 15 s or more to start…", stack.name));
    let invoker = Invoker::new(&stack.aws);
    let ((deployment, queue, dead_letters), (mappings, alarms, functions), (schema, salt)) = tokio::join!(
        async {
            tokio::join!(
                monitoring::deployment(stack),
                queues::login_queue(stack),
                queues::dead_letters(stack)
            )
        },
        async { tokio::join!(lambda::mappings(stack), monitoring::alarms(stack), lambda::functions(stack)) },
        database::schema_and_salt(&invoker, stack),
    );
    let parts = vec![deployment, queue, dead_letters, mappings, alarms, functions, schema, salt];
    let report = Report { stack: stack.name.clone(), region: stack.aws.region().to_owned(), parts };
    printer.print(&report)?;
    Ok(if report.state() == State::Well { Outcome::Good } else { Outcome::Bad })
}
