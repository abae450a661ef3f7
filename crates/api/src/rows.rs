//! What the tables of all questions have in common: how a row is read and shown, and which rows a page has.

use serde::Deserialize;
use utoipa::IntoParams;

use crate::cursor::NumberThenKey;
use crate::freshness::NotReady;
use crate::parameters::{Limit, Token};
use crate::statement::Parameter;

/// A row that JSON and CSV show.
pub trait Row: serde::Serialize + Sized {
    /// The names of its fields, in the order of the columns in CSV.
    const COLUMNS: &'static [&'static str];

    /// Reads a row of the database.
    ///
    /// # Errors
    ///
    /// The row has other columns.
    fn read(row: &tokio_postgres::Row) -> Result<Self, tokio_postgres::Error>;

    /// Returns the row's place in the order of the answer, which `after` continues from. A table without pages has no
    /// such place.
    fn position(&self) -> Option<String> {
        None
    }
}

/// Reads the rows of the database.
///
/// # Errors
///
/// [`NotReady`]: the rows have other columns.
pub fn read<R: Row>(rows: &[tokio_postgres::Row]) -> Result<Vec<R>, NotReady> {
    Ok(rows.iter().map(R::read).collect::<Result<_, _>>()?)
}

/// Which rows of a table to return, for the tables without other parameters.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct Page {
    /// The most rows of the answer.
    #[serde(default)]
    #[param(inline)]
    pub limit: Limit,
    /// Continues after this place: `next` of the answer before.
    #[serde(default)]
    #[param(inline)]
    pub after: NumberThenKey,
}

impl Page {
    /// Returns the parameters of a statement that pages through the rows of `subject`.
    pub(crate) fn parameters(&self, subject: &Token) -> [Parameter; 4] {
        [
            Parameter::Text(subject.to_string()),
            Parameter::Integer(self.after.number),
            Parameter::Text(self.after.key.clone()),
            Parameter::Integer(self.limit.get()),
        ]
    }
}

/// For the operations without parameters.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoParameters {}
