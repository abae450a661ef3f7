//! Logins and users by day.

use serde::{Deserialize, Serialize};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{IntoParams, PartialSchema, ToSchema};

use crate::cursor::NumberThenRank;
use crate::database::{Database, DatabaseError};
use crate::parameters::{Day, Number, text_schema};
use crate::rows::Row;
use crate::statement::{Parameter, Statement};

/// The dimension by which logins are counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Dimension {
    /// All logins together.
    #[default]
    All,
    /// By type of device.
    DeviceType,
    /// By locale.
    Locale,
    /// By version of the app.
    AppVersion,
}

/// Which days to count.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct Daily {
    /// The last day of the range. By default the latest day in the rollups.
    #[param(inline, nullable = false)]
    pub day: Option<Day>,
    /// The number of days in the range.
    #[serde(default)]
    #[param(inline)]
    pub days: Number<1, 366, 28>,
    /// The dimension.
    #[serde(default)]
    #[param(inline)]
    pub by: Dimension,
    /// The most rows of the answer.
    #[serde(default)]
    #[param(inline)]
    pub limit: Number<1, 1000, 366>,
    /// Continues after this place: `next` of the answer before.
    #[serde(default)]
    #[param(inline)]
    pub after: NumberThenRank,
}

/// The logins of a day with one value of the dimension.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct DailyCount {
    /// The day.
    pub day: Day,
    /// The place of the value on this day: 1 has the most logins.
    #[schema(minimum = 1)]
    pub rank: i64,
    /// The value. Null for logins without a value, and for all logins together.
    pub value: Option<String>,
    /// The logins.
    #[schema(minimum = 1)]
    pub logins: i64,
    /// The different users. They do not add up over days or values.
    #[schema(minimum = 0)]
    pub users: i64,
}

impl Daily {
    /// Returns the statement. `through` is the latest day in the rollups.
    #[must_use]
    pub fn statement(&self, through: Day) -> Statement {
        let parameters = [
            Parameter::Text(self.by.name().to_owned()),
            Parameter::Date(self.day.unwrap_or(through).0),
            Parameter::Integer(self.days.get()),
            Parameter::Date(Day::numbered(self.after.number).0),
            Parameter::Integer(self.after.rank),
            Parameter::Integer(self.limit.get()),
        ];
        let sql =
            "SELECT day, rank, value, logins, users FROM {analytics}.daily_values($1, $2, $3, $4, $5, $6)";
        Statement::new(sql, parameters)
    }

    /// Counts the logins and users of each day, the latest day first.
    ///
    /// # Errors
    ///
    /// [`DatabaseError`].
    pub async fn rows(&self, database: &Database, through: Day) -> Result<Vec<DailyCount>, DatabaseError> {
        database.rows(&self.statement(through)).await
    }
}

impl Dimension {
    /// All dimensions.
    pub const ALL: [Self; 4] = [Self::All, Self::DeviceType, Self::Locale, Self::AppVersion];

    /// Returns the name in URLs and in the database.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::DeviceType => "device_type",
            Self::Locale => "locale",
            Self::AppVersion => "app_version",
        }
    }
}

impl TryFrom<String> for Dimension {
    type Error = &'static str;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        let dimension = Self::ALL.into_iter().find(|dimension| dimension.name() == name);
        dimension.ok_or("must be all, device_type, locale or app_version")
    }
}

impl PartialSchema for Dimension {
    fn schema() -> RefOr<Schema> {
        let names = Self::ALL.map(Self::name);
        let schema = text_schema()
            .enum_values(Some(names))
            .default(Some(Self::default().name().into()))
            .examples([Self::Locale.name()]);
        RefOr::T(Schema::Object(schema.build()))
    }
}

impl ToSchema for Dimension {}

impl Row for DailyCount {
    const COLUMNS: &'static [&'static str] = &["day", "rank", "value", "logins", "users"];

    fn read(row: &tokio_postgres::Row) -> Result<Self, tokio_postgres::Error> {
        Ok(Self {
            day: row.try_get("day")?,
            rank: row.try_get("rank")?,
            value: row.try_get("value")?,
            logins: row.try_get("logins")?,
            users: row.try_get("users")?,
        })
    }

    fn position(&self) -> Option<String> {
        Some(format!("{},{}", self.day.number(), self.rank))
    }
}
