//! The questions: each file has a question's parameters, its rows and how to send it; its SQL is beside it.

pub mod duplicates;
pub mod freshness;

/// A row that JSON and CSV show.
pub trait Row: serde::Serialize {
    /// The names of its fields, in the order of the columns in CSV.
    const COLUMNS: &'static [&'static str];

    /// Returns the row's place in the order of the answer, which `after` continues from.
    fn position(&self) -> String;
}
