//! A user: the tokens that the user logged in with.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::cursor::NumberThenKey;
use crate::database::{Database, DatabaseError};
use crate::parameters::{Day, Field, Limit, Token, UserId};
use crate::rows::Row;
use crate::statement::{Parameter, Statement};

/// Which tokens of a user to list.
#[derive(Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(missing_debug_implementations, reason = "a user id is personal data")]
pub struct UserTokens {
    /// The user's id.
    pub user_id: UserId,
    /// The most rows of the answer.
    #[serde(default)]
    pub limit: Limit,
    /// Continues after this place: `next` of the answer before.
    #[serde(default)]
    pub after: NumberThenKey,
}

/// A token that a user logged in with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct UserToken {
    /// The masked field.
    pub field: Field,
    /// The masked value.
    pub token: Token,
    /// The different users of the token, of all time.
    #[schema(minimum = 1)]
    pub users: i64,
    /// The user's logins with the token.
    #[schema(minimum = 1)]
    pub logins: i64,
    /// The day of the first of these logins.
    pub first_day: Day,
    /// The day of the last of these logins.
    pub last_day: Day,
}

impl UserTokens {
    /// Returns the statement.
    #[must_use]
    pub fn statement(&self) -> Statement {
        let parameters = [
            Parameter::Text(self.user_id.as_str().to_owned()),
            Parameter::Integer(self.after.number),
            Parameter::Text(self.after.key.clone()),
            Parameter::Integer(self.limit.get()),
        ];
        let sql = "SELECT field, token, users, logins, first_day, last_day FROM {analytics}.user_tokens($1, $2, $3, $4)";
        Statement::new(sql, parameters)
    }

    /// Lists the tokens, the most shared first.
    ///
    /// # Errors
    ///
    /// [`DatabaseError`].
    pub async fn rows(&self, database: &Database) -> Result<Vec<UserToken>, DatabaseError> {
        database.rows(&self.statement()).await
    }
}

impl Row for UserToken {
    const COLUMNS: &'static [&'static str] = &["field", "token", "users", "logins", "first_day", "last_day"];

    fn read(row: &tokio_postgres::Row) -> Result<Self, tokio_postgres::Error> {
        Ok(Self {
            field: row.try_get("field")?,
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
