//! Links within the page, and each list as SQL, CSV, JSON and permalink.

use crate::database::Database;
use crate::statement::Statement;

/// The rows of a list in other forms.
pub(super) struct Offer {
    /// The name of the list, for readers who see the links without the list.
    pub(super) name: &'static str,
    /// The path of the same rows in the API, from `/`.
    pub(super) json: Option<String>,
    /// The path of the view, from `/`.
    pub(super) permalink: Option<String>,
    /// The statement, which psql runs.
    pub(super) sql: String,
}

impl Offer {
    pub(super) fn new(name: &'static str, database: &Database, statement: &Statement) -> Self {
        Self { name, json: None, permalink: None, sql: database.as_sql(statement) }
    }

    pub(super) fn in_api(self, json: String) -> Self {
        Self { json: Some(json), ..self }
    }

    pub(super) fn at(self, permalink: String) -> Self {
        Self { permalink: Some(permalink), ..self }
    }

    /// The separator between the path in the API and one more parameter.
    pub(super) fn separator(&self) -> char {
        if self.json.as_ref().is_some_and(|path| path.contains('?')) { '&' } else { '?' }
    }
}

/// Returns a path with its parameters. A parameter without a value is left out.
pub(super) fn link(path: &str, parameters: &[(&str, String)]) -> String {
    let given = parameters.iter().filter(|(_, value)| !value.is_empty());
    let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(given).finish();
    if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameter_without_value_is_left_out() {
        let none = link("rings", &[("after", String::new())]);
        let some = link("rings", &[("after", "3,ab".to_owned()), ("limit", "50".to_owned())]);

        assert_eq!(none, "rings");
        assert_eq!(some, "rings?after=3%2Cab&limit=50");
    }
}
