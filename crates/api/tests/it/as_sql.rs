//! psql runs each question "as SQL", and returns the rows of the API.

use std::process::Command;

use login_etl_api::cursor::NumberThenKey;
use login_etl_api::database::Database as ApiDatabase;
use login_etl_api::parameters::{Field, Number, Period, Token, UserId};
use login_etl_api::queries::daily::{Daily, DailyCount, Dimension};
use login_etl_api::queries::duplicates::{Duplicate, Duplicates};
use login_etl_api::queries::logins::{Login, TokenLogins, UserLogins};
use login_etl_api::queries::neighbours::{Neighbour, Neighbours};
use login_etl_api::queries::users::{UserToken, UserTokens};
use login_etl_api::queries::{rings, tokens};
use login_etl_api::rows::{Page, Row};
use login_etl_api::statement::Statement;
use serde_json::Value;

use crate::support::{Database, token, variable};

/// Runs the statement as SQL in psql, and compares the columns of the rows.
async fn assert_equal_in_psql<R: Row>(database: &Database, api: &ApiDatabase, statement: &Statement) {
    let rows: Vec<R> = api.rows(statement).await.unwrap();
    let sql = api.as_sql(statement);
    let psql = format!("{}/psql", variable("TEST_POSTGRES_BIN"));
    let output = Command::new(psql)
        .args(["--csv", "-X", "-v", "ON_ERROR_STOP=1", "-c", &sql, &database.url()])
        .env("PGCLIENTENCODING", "UTF8")
        .output()
        .unwrap();
    assert!(output.status.success(), "{sql}\n{}", String::from_utf8_lossy(&output.stderr));

    let mut printed = csv::Reader::from_reader(&*output.stdout);
    let headers = printed.headers().unwrap().clone();
    let places: Vec<_> = R::COLUMNS
        .iter()
        .map(|column| headers.iter().position(|header| header == *column).unwrap())
        .collect();
    let printed = printed.records().map(|record| {
        let record = record.unwrap();
        places.iter().map(|&place| record[place].to_owned()).collect::<Vec<_>>()
    });
    let expected = rows.iter().map(|row| {
        let row = serde_json::to_value(row).unwrap();
        R::COLUMNS.iter().map(|column| as_psql_prints(&row[column])).collect::<Vec<_>>()
    });
    assert!(!rows.is_empty(), "{sql}");
    assert_eq!(printed.collect::<Vec<_>>(), expected.collect::<Vec<_>>(), "{sql}");
}

fn as_psql_prints(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::Bool(truth) => if *truth { "t" } else { "f" }.to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[tokio::test]
async fn psql_returns_rows_of_rollups() {
    let database = Database::rolled_up().await;
    let api = &database.connected().await;
    let ring = &Token::try_from(token("d")).unwrap();
    let page = &Page { limit: Number::new(2).unwrap(), ..Page::default() };
    let later = &Page { after: format!("9,{}", token("0")).try_into().unwrap(), ..Page::default() };
    let duplicates = Duplicates {
        field: Field::DeviceId,
        period: Period::All,
        min_users: Number::default(),
        limit: Number::default(),
        after: format!("2,{}", token("a")).try_into().unwrap(),
    };
    let through = api.freshness().await.unwrap().last_day();
    let daily = Daily { by: Dimension::Locale, ..Daily::default() };
    let neighbours = Neighbours { depth: Number::new(3).unwrap() };

    assert_equal_in_psql::<Duplicate>(&database, api, &duplicates.statement()).await;
    assert_equal_in_psql::<rings::Ring>(&database, api, &rings::statement(page)).await;
    assert_equal_in_psql::<rings::Ring>(&database, api, &rings::ring_statement(ring)).await;
    assert_equal_in_psql::<Duplicate>(&database, api, &rings::devices_statement(ring, page)).await;
    assert_equal_in_psql::<rings::RingMember>(&database, api, &rings::members_statement(ring, later)).await;
    assert_equal_in_psql::<tokens::TokenPeriod>(&database, api, &tokens::statement(ring)).await;
    assert_equal_in_psql::<tokens::TokenDay>(&database, api, &tokens::daily_statement(ring)).await;
    assert_equal_in_psql::<tokens::TokenUser>(&database, api, &tokens::users_statement(ring, page)).await;
    assert_equal_in_psql::<DailyCount>(&database, api, &daily.statement(through)).await;
    assert_equal_in_psql::<Neighbour>(&database, api, &neighbours.statement(ring)).await;
}

#[tokio::test]
async fn psql_returns_rows_of_logins() {
    let database = Database::rolled_up().await;
    let api = &database.connected().await;
    let through = api.freshness().await.unwrap().last_day();
    let logins = TokenLogins { days: Number::new(31).unwrap(), ..TokenLogins::default() };
    let by_token = logins.statement(&Token::try_from(token("1")).unwrap(), through);
    // A user id with each character that could end a literal.
    let user_id = || UserId::try_from(r#"eve"'\,"#.to_owned()).unwrap();
    let by_user = UserLogins {
        user_id: user_id(),
        day: None,
        days: Number::default(),
        limit: Number::default(),
        after: NumberThenKey::default(),
    };
    let tokens = UserTokens { user_id: user_id(), limit: Number::default(), after: NumberThenKey::default() };

    assert_equal_in_psql::<Login>(&database, api, &by_token).await;
    assert_equal_in_psql::<Login>(&database, api, &by_user.statement(through)).await;
    assert_equal_in_psql::<UserToken>(&database, api, &tokens.statement()).await;
}
