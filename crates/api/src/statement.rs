//! A SQL statement with its parameters, and the same statement as text that psql runs.

use std::borrow::Cow;

use jiff::civil::Date;
use postgres_protocol::escape::escape_literal;
use tokio_postgres::types::{ToSql, Type};

/// Stands for the schema of the rollups.
const SCHEMA: &str = "{analytics}";

/// The text of a query, with the parameters `$1` to `$9`. `{analytics}` stands for the schema of the rollups.
#[derive(Clone, Debug)]
pub struct Statement {
    template: Cow<'static, str>,
    parameters: Vec<Parameter>,
}

/// A parameter of a statement.
#[derive(Clone, Debug)]
pub enum Parameter {
    /// Of the type `text`.
    Text(String),
    /// Of the type `bigint`.
    Integer(i64),
    /// Of the type `date`.
    Date(Date),
}

impl Statement {
    /// Makes a statement of the text of a `.sql` file.
    pub fn new(
        template: impl Into<Cow<'static, str>>,
        parameters: impl IntoIterator<Item = Parameter>,
    ) -> Self {
        Self { template: template.into(), parameters: parameters.into_iter().collect() }
    }

    /// Returns the text with the quoted name of the schema.
    #[must_use]
    pub fn text(&self, analytics: &str) -> String {
        self.template.replace(SCHEMA, analytics)
    }

    /// Returns the parameters with their types.
    #[must_use]
    pub fn parameters(&self) -> Vec<(&(dyn ToSql + Sync), Type)> {
        self.parameters.iter().map(Parameter::typed).collect()
    }

    /// Returns the text with a literal in the place of each parameter. psql runs it and returns the same rows.
    #[must_use]
    pub fn as_sql(&self, analytics: &str) -> String {
        // The name of the schema comes last, because it may contain a `$`.
        let mut parts = self.template.trim_end().split('$');
        let mut sql = parts.next().unwrap_or_default().replace(SCHEMA, analytics);
        for part in parts {
            // A part begins with the number of a parameter.
            let (number, text) = part.split_at(1);
            let parameter = number.parse().ok().and_then(|number: usize| self.parameters.get(number - 1));
            sql += &parameter.map_or_else(|| unreachable!("each parameter is given"), Parameter::literal);
            sql += &text.replace(SCHEMA, analytics);
        }
        sql + ";\n"
    }
}

impl Parameter {
    fn typed(&self) -> (&(dyn ToSql + Sync), Type) {
        match self {
            Self::Text(text) => (text, Type::TEXT),
            Self::Integer(integer) => (integer, Type::INT8),
            Self::Date(date) => (date, Type::DATE),
        }
    }

    fn literal(&self) -> String {
        match self {
            Self::Text(text) => escape_literal(text).trim_start().to_owned(),
            Self::Integer(integer) => integer.to_string(),
            Self::Date(date) => format!("DATE '{date}'"),
        }
    }
}
