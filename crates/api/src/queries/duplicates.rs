//! The tokens that several users share.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::cursor::NumberThenKey;
use crate::database::{Database, DatabaseError};
use crate::parameters::{Day, Field, Limit, Number, Period, Token};
use crate::rows::Row;
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
    pub after: NumberThenKey,
}

/// A token that several users share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Duplicate {
    /// The masked value.
    pub token: Token,
    /// The different users in the period.
    #[schema(minimum = 2)]
    pub users: i64,
    /// The logins in the period.
    #[schema(minimum = 1)]
    pub logins: i64,
    /// The day of the first login in the period.
    pub first_day: Day,
    /// The day of the last login in the period.
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
            Parameter::Integer(self.after.number),
            Parameter::Text(self.after.key.clone()),
            Parameter::Integer(self.limit.get()),
        ];
        Statement::new(include_str!("duplicates.sql"), parameters)
    }

    /// Lists the tokens, the most shared first.
    ///
    /// # Errors
    ///
    /// [`DatabaseError`].
    pub async fn rows(&self, database: &Database) -> Result<Vec<Duplicate>, DatabaseError> {
        database.rows(&self.statement()).await
    }
}

impl Row for Duplicate {
    const COLUMNS: &'static [&'static str] = &["token", "users", "logins", "first_day", "last_day"];

    fn read(row: &tokio_postgres::Row) -> Result<Self, tokio_postgres::Error> {
        Ok(Self {
            token: row.try_get("token")?,
            users: row.try_get("users")?,
            logins: row.try_get("logins")?,
            first_day: row.try_get("first_day")?,
            last_day: row.try_get("last_day")?,
        })
    }

    fn position(&self) -> Option<String> {
        Some(format!("{},{}", self.users, self.token))
    }
}
