//! The logins themselves, from `user_logins`: those with a token, or those of a user. Postgres reads the whole range of
//! days, so these are the slow questions.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::cursor::NumberThenKey;
use crate::database::{Database, DatabaseError};
use crate::parameters::{Day, Limit, Number, Token, UserId};
use crate::rows::Row;
use crate::statement::{Parameter, Statement};

/// The statement of both questions: `{filter}` stands for one of the conditions below.
const LOGINS: &str = include_str!("logins.sql");
const WITH_TOKEN: &str = "(masked_device_id = $1 OR masked_ip = $1)";
const OF_USER: &str = "user_id = $1";

/// The number of days in which logins are looked for.
pub type LoginDays = Number<1, 31, 1>;

/// Which logins with a token to list.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct TokenLogins {
    /// The last day of the range. By default the latest day in the rollups.
    #[param(inline, nullable = false)]
    pub day: Option<Day>,
    /// The number of days in the range.
    #[serde(default)]
    #[param(inline)]
    pub days: LoginDays,
    /// The most rows of the answer.
    #[serde(default)]
    #[param(inline)]
    pub limit: Limit,
    /// Continues after this place: `next` of the answer before.
    #[serde(default)]
    #[param(inline)]
    pub after: NumberThenKey,
}

/// Which logins of a user to list.
#[derive(Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(missing_debug_implementations, reason = "a user id is personal data")]
pub struct UserLogins {
    /// The user's id.
    pub user_id: UserId,
    /// The last day of the range. By default the latest day in the rollups.
    #[serde(default, deserialize_with = "some")]
    #[schema(nullable = false)]
    pub day: Option<Day>,
    /// The number of days in the range.
    #[serde(default)]
    pub days: LoginDays,
    /// The most rows of the answer.
    #[serde(default)]
    pub limit: Limit,
    /// Continues after this place: `next` of the answer before.
    #[serde(default)]
    pub after: NumberThenKey,
}

/// Logins of a day that are equal in all columns.
#[derive(Clone, PartialEq, Eq, Serialize, ToSchema)]
#[expect(missing_debug_implementations, reason = "a user id is personal data")]
#[expect(missing_docs, reason = "each is named for its column")]
pub struct Login {
    pub day: Day,
    pub user_id: Option<String>,
    pub device_type: Option<String>,
    pub masked_ip: Option<Token>,
    pub masked_device_id: Option<Token>,
    pub locale: Option<String>,
    pub app_version: Option<String>,
    /// The number of equal rows.
    #[schema(minimum = 1)]
    pub logins: i64,
    #[serde(skip)]
    key: String,
}

impl TokenLogins {
    /// Returns the statement. `through` is the latest day in the rollups.
    #[must_use]
    pub fn statement(&self, token: &Token, through: Day) -> Statement {
        let day = self.day.unwrap_or(through);
        logins(WITH_TOKEN, token.to_string(), day, self.days, self.limit, &self.after)
    }

    /// Lists the logins, the latest day first.
    ///
    /// # Errors
    ///
    /// [`DatabaseError`].
    pub async fn rows(
        &self,
        database: &Database,
        token: &Token,
        through: Day,
    ) -> Result<Vec<Login>, DatabaseError> {
        database.rows(&self.statement(token, through)).await
    }
}

impl UserLogins {
    /// Returns the statement. `through` is the latest day in the rollups.
    #[must_use]
    pub fn statement(&self, through: Day) -> Statement {
        let day = self.day.unwrap_or(through);
        logins(OF_USER, self.user_id.as_str().to_owned(), day, self.days, self.limit, &self.after)
    }

    /// Lists the logins, the latest day first.
    ///
    /// # Errors
    ///
    /// [`DatabaseError`].
    pub async fn rows(&self, database: &Database, through: Day) -> Result<Vec<Login>, DatabaseError> {
        database.rows(&self.statement(through)).await
    }
}

impl Row for Login {
    const COLUMNS: &'static [&'static str] = &[
        "day",
        "user_id",
        "device_type",
        "masked_ip",
        "masked_device_id",
        "locale",
        "app_version",
        "logins",
    ];

    fn read(row: &tokio_postgres::Row) -> Result<Self, tokio_postgres::Error> {
        Ok(Self {
            day: row.try_get("day")?,
            user_id: row.try_get("user_id")?,
            device_type: row.try_get("device_type")?,
            masked_ip: row.try_get("masked_ip")?,
            masked_device_id: row.try_get("masked_device_id")?,
            locale: row.try_get("locale")?,
            app_version: row.try_get("app_version")?,
            logins: row.try_get("logins")?,
            key: row.try_get("key")?,
        })
    }

    fn position(&self) -> Option<String> {
        Some(format!("{},{}", self.day.number(), self.key))
    }
}

fn logins(
    filter: &str,
    subject: String,
    day: Day,
    days: LoginDays,
    limit: Limit,
    after: &NumberThenKey,
) -> Statement {
    let parameters = [
        Parameter::Text(subject),
        Parameter::Date(day.0),
        Parameter::Integer(days.get()),
        Parameter::Date(Day::numbered(after.number).0),
        Parameter::Text(after.key.clone()),
        Parameter::Integer(limit.get()),
    ];
    Statement::new(LOGINS.replace("{filter}", filter), parameters)
}

/// Reads a value that is present, so that `null` is refused.
fn some<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Day>, D::Error> {
    Day::deserialize(deserializer).map(Some)
}
