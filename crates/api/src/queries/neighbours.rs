//! The tokens and users around a token.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::database::{Database, DatabaseError};
use crate::parameters::{Day, Field, Number, Token};
use crate::rows::Row;
use crate::statement::{Parameter, Statement};

/// A token of more users is a hub: its neighbours are not shown.
pub const MAX_USERS: i64 = 50;

/// How far to look.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct Neighbours {
    /// 1: the users of the token. 2: also their tokens. 3: also the users of those tokens.
    #[serde(default)]
    #[param(inline)]
    pub depth: Number<1, 3, 2>,
}

/// A token and a user who logged in with it.
#[derive(Clone, PartialEq, Eq, Serialize)]
#[expect(missing_debug_implementations, reason = "a user id is personal data")]
pub struct Neighbour {
    /// The distance of the later of the two from the first token. 0 for a hub, whose users are not shown.
    pub depth: i32,
    /// The masked field.
    pub field: Field,
    /// The masked value.
    pub token: Token,
    /// The different users of the token, of all time.
    pub token_users: i64,
    /// The user's id; none for a hub.
    pub user_id: Option<String>,
    /// The user's logins with the token.
    pub logins: Option<i64>,
    /// The day of the first of these logins.
    pub first_day: Option<Day>,
    /// The day of the last of these logins.
    pub last_day: Option<Day>,
    /// Whether something was left out.
    pub truncated: bool,
}

/// The tokens and users around a token, as a graph.
#[derive(Clone, PartialEq, Eq, Serialize, ToSchema)]
#[expect(missing_debug_implementations, reason = "a user id is personal data")]
pub struct Graph {
    /// Whether tokens, users or edges were left out: a graph has at most 200 tokens and users, 50 tokens of each user,
    /// and 2,000 edges.
    pub truncated: bool,
    /// The tokens, the first token first.
    pub tokens: Vec<GraphToken>,
    /// The users.
    pub users: Vec<GraphUser>,
    /// Which user logged in with which token.
    pub edges: Vec<Edge>,
}

/// A token of a graph.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct GraphToken {
    /// The distance from the first token.
    #[schema(minimum = 0, maximum = 2)]
    pub depth: i32,
    /// The masked field.
    pub field: Field,
    /// The masked value.
    pub token: Token,
    /// The different users of the token, of all time.
    #[schema(minimum = 1)]
    pub users: i64,
    /// Whether the token has more than 50 users, so that its neighbours are not shown.
    pub hub: bool,
}

/// A user of a graph.
#[derive(Clone, PartialEq, Eq, Serialize, ToSchema)]
#[expect(missing_debug_implementations, reason = "a user id is personal data")]
pub struct GraphUser {
    /// The distance from the first token.
    #[schema(minimum = 1, maximum = 3)]
    pub depth: i32,
    /// The user's id.
    pub user_id: String,
}

/// A user who logged in with a token.
#[derive(Clone, PartialEq, Eq, Serialize, ToSchema)]
#[expect(missing_debug_implementations, reason = "a user id is personal data")]
pub struct Edge {
    /// The masked value.
    pub token: Token,
    /// The user's id.
    pub user_id: String,
    /// The user's logins with the token.
    #[schema(minimum = 1)]
    pub logins: i64,
    /// The day of the first of these logins.
    pub first_day: Day,
    /// The day of the last of these logins.
    pub last_day: Day,
}

impl Neighbours {
    /// Returns the statement.
    #[must_use]
    pub fn statement(&self, token: &Token) -> Statement {
        let parameters = [Parameter::Text(token.to_string()), Parameter::Integer(self.depth.get())];
        let sql = "SELECT depth, field, token, token_users, user_id, logins, first_day, last_day, truncated \
                   FROM {analytics}.token_neighbours($1, $2)";
        Statement::new(sql, parameters)
    }

    /// Looks around a token, the nearest first. A token without logins has no rows.
    ///
    /// # Errors
    ///
    /// [`DatabaseError`].
    pub async fn rows(&self, database: &Database, token: &Token) -> Result<Vec<Neighbour>, DatabaseError> {
        database.rows(&self.statement(token)).await
    }
}

impl Row for Neighbour {
    const COLUMNS: &'static [&'static str] = &[
        "depth",
        "field",
        "token",
        "token_users",
        "user_id",
        "logins",
        "first_day",
        "last_day",
        "truncated",
    ];

    fn read(row: &tokio_postgres::Row) -> Result<Self, tokio_postgres::Error> {
        Ok(Self {
            depth: row.try_get("depth")?,
            field: row.try_get("field")?,
            token: row.try_get("token")?,
            token_users: row.try_get("token_users")?,
            user_id: row.try_get("user_id")?,
            logins: row.try_get("logins")?,
            first_day: row.try_get("first_day")?,
            last_day: row.try_get("last_day")?,
            truncated: row.try_get("truncated")?,
        })
    }
}

impl Graph {
    /// Makes the graph of the rows around a token.
    #[must_use]
    pub fn of(rows: &[Neighbour]) -> Self {
        let mut tokens: Vec<GraphToken> = Vec::new();
        let mut users: Vec<GraphUser> = Vec::new();
        // The rows come nearest first, so the first row of a token or user has its distance. Those of even distance
        // are tokens.
        let (mut seen_tokens, mut seen_users) = (HashSet::new(), HashSet::new());
        for row in rows {
            if seen_tokens.insert(&row.token) {
                let Neighbour { field, token_users, .. } = *row;
                tokens.push(GraphToken {
                    depth: row.depth / 2 * 2,
                    field,
                    token: row.token.clone(),
                    users: token_users,
                    hub: token_users > MAX_USERS,
                });
            }
            let Some(user_id) = &row.user_id else { continue };
            if seen_users.insert(user_id) {
                users.push(GraphUser { depth: (row.depth - 1) / 2 * 2 + 1, user_id: user_id.clone() });
            }
        }
        let edges = rows.iter().filter_map(|row| {
            Some(Edge {
                token: row.token.clone(),
                user_id: row.user_id.clone()?,
                logins: row.logins?,
                first_day: row.first_day?,
                last_day: row.last_day?,
            })
        });
        let truncated = rows.first().is_some_and(|row| row.truncated);
        Self { truncated, edges: edges.collect(), tokens, users }
    }
}
