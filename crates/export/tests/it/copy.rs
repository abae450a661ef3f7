//! The decoder of COPY against Postgres's own text of each value.

use futures_util::TryStreamExt;
use login_etl_export::copy::CopyDecoder;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use tokio_postgres::types::Type;

use crate::support::{Lake, Login};

/// Postgres's earliest and latest date, in days since 1970.
const DATES: std::ops::RangeInclusive<i32> = -2_440_588..=2_145_042_905;

fn login() -> impl Strategy<Value = Login> {
    let text = || proptest::option::of("[^\\x00]{0,24}");
    let date = prop_oneof![Just(*DATES.start()), Just(*DATES.end()), DATES, -40_000..40_000];
    let row = (text(), text(), text(), text(), text(), any::<Option<i32>>(), proptest::option::of(date));
    row.prop_map(|(a, b, c, d, e, app_version, create_date)| Login {
        texts: [a, b, c, d, e],
        app_version,
        create_date,
    })
}

#[tokio::test]
async fn decoded_rows_are_those_of_the_table() {
    let lake = Lake::without_books().await;
    lake.execute("CREATE TEMPORARY TABLE login (LIKE user_logins); ALTER TABLE login ADD number serial")
        .await;
    let cases = (proptest::collection::vec(login(), 0..40), 1..400_usize);
    let mut runner = TestRunner::deterministic();
    for _ in 0..100 {
        let (logins, cut) = cases.new_tree(&mut runner).unwrap().current();
        insert(&lake, &logins).await;

        let copy = "COPY (SELECT user_id::text, device_type::text, masked_ip::text, masked_device_id::text,
            locale::text, app_version, create_date FROM login ORDER BY number) TO STDOUT (FORMAT binary)";
        let stream = lake.admin.copy_out(copy).await.unwrap();
        let bytes: Vec<_> = stream.try_collect().await.unwrap();
        let mut rows = Vec::new();
        let mut decoder = CopyDecoder::default();
        for chunk in bytes.concat().chunks(cut) {
            decoder.push(chunk);
            while let Some(row) = decoder.next_row().unwrap() {
                rows.push(Login {
                    texts: row.texts.map(|text| text.map(ToOwned::to_owned)),
                    app_version: row.app_version,
                    create_date: row.create_date,
                });
            }
        }

        decoder.finish().unwrap();
        assert_eq!(rows, logins);
        lake.execute("TRUNCATE login").await;
    }
}

/// Writes the rows in text format, with Postgres's own arithmetic for the date.
async fn insert(lake: &Lake, logins: &[Login]) {
    let column = |number: usize| -> Vec<Option<&str>> {
        logins.iter().map(|login| login.texts[number].as_deref()).collect()
    };
    let texts: [_; 5] = std::array::from_fn(column);
    let app_versions: Vec<_> = logins.iter().map(|login| login.app_version).collect();
    let dates: Vec<_> = logins.iter().map(|login| login.create_date).collect();
    let sql = "INSERT INTO login (user_id, device_type, masked_ip, masked_device_id, locale, app_version, create_date)
        SELECT a, b, c, d, e, f, DATE '1970-01-01' + g
        FROM unnest($1, $2, $3, $4, $5, $6, $7) WITH ORDINALITY AS login (a, b, c, d, e, f, g, number) ORDER BY number";
    let parameters = [
        (&texts[0] as _, Type::TEXT_ARRAY),
        (&texts[1] as _, Type::TEXT_ARRAY),
        (&texts[2] as _, Type::TEXT_ARRAY),
        (&texts[3] as _, Type::TEXT_ARRAY),
        (&texts[4] as _, Type::TEXT_ARRAY),
        (&app_versions as _, Type::INT4_ARRAY),
        (&dates as _, Type::INT4_ARRAY),
    ];
    lake.admin.execute_typed(sql, &parameters).await.unwrap();
}

#[tokio::test]
async fn infinite_date_is_an_error() {
    let lake = Lake::without_books().await;
    let copy = "COPY (SELECT NULL::text, NULL::text, NULL::text, NULL::text, NULL::text, 1, DATE 'infinity')
        TO STDOUT (FORMAT binary)";
    let stream = lake.admin.copy_out(copy).await.unwrap();
    let bytes: Vec<_> = stream.try_collect().await.unwrap();
    let mut decoder = CopyDecoder::default();

    decoder.push(&bytes.concat());
    let error = decoder.next_row().unwrap_err();

    assert_eq!(error.to_string(), "the column create_date has a date that is infinite");
}
