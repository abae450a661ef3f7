//! The tokens that several users share.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Row;
use crate::cursor::CountThenKey;
use crate::database::{Database, DatabaseError};
use crate::parameters::{Day, Field, Limit, Number, Period, Token};
use crate::statement::{Parameter, Statement};

/// Which shared tokens to list.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct Duplicates {
    /// The masked field.
    #[param(inline)]
    pub field: Field,
    /// The period: the last 1, 7 or 28 days that end on `through`, or all time.
    #[serde(default)]
    #[param(inline)]
    pub period: Period,
    /// The fewest users of a token.
    #[serde(default)]
    #[param(inline)]
    pub min_users: Number<2, 1_000_000, 2>,
    /// The most rows of the answer.
    #[serde(default)]
    #[param(inline)]
    pub limit: Limit,
    /// Continues after this place: `next` of the answer before.
    #[serde(default)]
    #[param(inline)]
    pub after: CountThenKey,
}

/// A token that several users share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Duplicate {
    /// The masked value.
    #[schema(inline)]
    pub token: Token,
    /// The different users in the period.
    pub users: i64,
    /// The logins in the period.
    pub logins: i64,
    /// The day of the first login in the period.
    #[schema(inline)]
    pub first_day: Day,
    /// The day of the last login in the period.
    #[schema(inline)]
    pub last_day: Day,
}

impl Duplicates {
    /// Returns the statement.
    #[must_use]
    pub fn statement(&self) -> Statement {
        let parameters = [
            Parameter::Text(self.field.name().to_owned()),
            Parameter::Text(self.period.name().to_owned()),
            Parameter::Integer(self.min_users.get()),
            Parameter::Integer(self.after.count),
            Parameter::Text(self.after.key.clone()),
            Parameter::Integer(self.limit.get()),
        ];
        Statement::new(include_str!("duplicates.sql"), parameters)
    }

    /// Asks the database.
    ///
    /// # Errors
    ///
    /// [`DatabaseError`].
    pub async fn rows(&self, database: &Database) -> Result<Vec<Duplicate>, DatabaseError> {
        let rows = database.rows(&self.statement()).await?;
        Ok(rows.iter().map(Duplicate::read).collect())
    }
}

impl Duplicate {
    fn read(row: &tokio_postgres::Row) -> Self {
        Self {
            token: Token::stored(row.get("token")),
            users: row.get("users"),
            logins: row.get("logins"),
            first_day: Day(row.get("first_day")),
            last_day: Day(row.get("last_day")),
        }
    }
}

impl Row for Duplicate {
    const COLUMNS: &'static [&'static str] = &["token", "users", "logins", "first_day", "last_day"];

    fn position(&self) -> String {
        format!("{},{}", self.users, self.token)
    }
}
