//! A new salt without loss: replaces each token by its keyed hash with the later salt. No original value is needed.
//!
//! The rows are copied, part by part, into tables of a schema of their own, while batches are written. Then one
//! transaction locks the batches out for a moment, copies what was written meanwhile, replaces the tables, and makes the
//! later salt the accepted salt. So there is never a row of one salt beside a row of the other. A run that is
//! interrupted is continued by the next run; before the last transaction, the schema can be dropped, and nothing has
//! happened.
//!
//! `user_logins` has no key. The numbers of transactions grow, so the rows that were written after a part was copied are
//! found by the number of the transaction that wrote them. Rows that were deleted or changed are noticed because the copy
//! has more rows than the table; this table is copied anew.

use login::pii::{Masker, Salts};
use tokio_postgres::Client;

use self::replace::Replaced;
pub use self::run::{Resalted, schema_name};
use self::run::{Run, not_ready};
use crate::deadline::Deadline;
use crate::schema::SchemaError;

mod copy;
mod replace;
mod rewriter;
mod run;

/// How often a table whose rows were changed meanwhile is copied anew.
const ATTEMPTS: usize = 3;

/// Replaces the tokens of the accepted salt by those of the last salt, in `user_logins`, in the vault and in the roll-ups,
/// and accepts the last salt. Does as much as it can before the deadline.
///
/// Batches and queries wait only for the last transaction's last seconds. Roll-ups, exports, folds and erasures wait for the
/// whole last transaction. Needs two connections, and as much room as the tables have.
///
/// # Errors
///
/// [`SchemaError::NotReady`] if the tables cannot be replaced, or if the accepted salt is none of these salts;
/// [`SchemaError::Busy`] if another run works; [`SchemaError::TableInUse`]; and [`SchemaError::Postgres`]. The parts that
/// were copied before are kept.
pub async fn resalt(
    reader: &mut Client,
    writer: &mut Client,
    logins_schema: &str,
    salts: &Salts,
    deadline: Deadline,
) -> Result<Resalted, SchemaError> {
    let maskers = salts.maskers().map_err(|weak| not_ready(&weak.to_string(), "set another salt"))?;
    let Some(to) = maskers.last().map(Masker::salt_fingerprint) else {
        unreachable!("there is a masker for each salt");
    };
    let Some(mut run) = Run::begin(writer, logins_schema, salts, &to).await? else {
        return Ok(Resalted { done: true, ..Resalted::default() });
    };
    for _ in 0..ATTEMPTS {
        if !run.copy_parts(reader, writer, deadline).await? {
            return Ok(run.done);
        }
        match run.replace(reader, writer).await? {
            Replaced::Yes => {
                run.done.done = true;
                return Ok(run.done);
            }
            Replaced::Changed(sources) => {
                for source in sources {
                    tracing::warn!(
                        table = source.copy,
                        "rows were changed or deleted meanwhile: the table is copied anew"
                    );
                    run.copy_anew(writer, &source).await?;
                }
            }
        }
    }
    Err(not_ready(
        "rows of user_logins are changed or deleted all the time",
        "stop this, and run resalt again",
    ))
}
