//! A SQL statement with its parameters, and the same statement as text that psql runs.

use std::sync::Arc;

use jiff::civil::Date;
use postgres_protocol::escape::{escape_identifier, escape_literal};
use tokio_postgres::types::{ToSql, Type};

/// The text of a query, with the parameters `$1` to `$9`. `{analytics}` and `{logins}` stand for the schemas.
#[derive(Clone, Debug)]
pub struct Statement {
    template: &'static str,
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

/// The quoted names of the two schemas.
#[derive(Clone, Debug)]
pub struct Schemas {
    /// The schema of `user_logins`.
    logins: String,
    /// The schema of the rollups.
    analytics: String,
}

impl Statement {
    /// Makes a statement of the text of a `.sql` file.
    pub fn new(template: &'static str, parameters: impl IntoIterator<Item = Parameter>) -> Self {
        Self { template, parameters: parameters.into_iter().collect() }
    }

    /// Returns the text, with the names of the schemas.
    #[must_use]
    pub fn text(&self, schemas: &Schemas) -> String {
        schemas.name_in(self.template)
    }

    /// Returns the parameters with their types.
    #[must_use]
    pub fn parameters(&self) -> Vec<(&(dyn ToSql + Sync), Type)> {
        self.parameters.iter().map(Parameter::typed).collect()
    }

    /// Returns the text with a literal in the place of each parameter. psql runs it and returns the same rows.
    #[must_use]
    pub fn as_sql(&self, schemas: &Schemas) -> String {
        // The names of the schemas come last, because they may contain a `$`.
        let mut parts = self.template.trim_end().split('$');
        let mut sql = schemas.name_in(parts.next().unwrap_or_default());
        for part in parts {
            // A part begins with the number of a parameter.
            let (number, text) = part.split_at(1);
            let parameter = number.parse().ok().and_then(|number: usize| self.parameters.get(number - 1));
            sql += &parameter.map_or_else(|| unreachable!("each parameter is given"), Parameter::literal);
            sql += &schemas.name_in(text);
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

impl Schemas {
    /// Names the schemas of a database whose `user_logins` is in the schema `logins`.
    #[must_use]
    pub fn of(logins: &str) -> Arc<Self> {
        let analytics =
            if logins == "public" { "analytics".to_owned() } else { format!("{logins}_analytics") };
        Arc::new(Self { logins: escape_identifier(logins), analytics: escape_identifier(&analytics) })
    }

    fn name_in(&self, template: &str) -> String {
        template.replace("{analytics}", &self.analytics).replace("{logins}", &self.logins)
    }

    /// Returns the quoted name of the schema of the rollups.
    #[must_use]
    pub fn analytics(&self) -> &str {
        &self.analytics
    }
}
