//! Which days are exported, and when.

use std::collections::BTreeMap;

use login_etl_export::run::Summary;

use crate::support::{Book, Lake, noon_after};

fn days<const N: usize>(days: [(&str, usize); N]) -> BTreeMap<String, usize> {
    days.map(|(day, rows)| (day.to_owned(), rows)).into()
}

#[tokio::test]
async fn grown_day_is_exported_again() {
    let lake = Lake::create().await;
    lake.log_in("2026-11-14", 3).await;
    lake.log_in("2026-11-10", 2).await;

    let first = lake.exported(noon_after(0)).await;
    let second = lake.exported(noon_after(0)).await;
    // A message that was sent on the 10th comes three days late.
    lake.log_in("2026-11-10", 1).await;
    let third = lake.exported(noon_after(1)).await;

    assert_eq!((first, second, third), ((2, 5), (0, 0), (1, 3)));
    assert_eq!(lake.days().await, days([("2026-11-10", 3), ("2026-11-14", 3)]));
    let object = &lake.objects().await["user_logins/dt=2026-11-10/part-00000.parquet"];
    assert_eq!(*object, lake.table("2026-11-10").await);
    let book = Book { rows: Some(3), ledger_entries: Some(3), is_final: false, is_changed: false };
    assert_eq!(lake.book("2026-11-10").await, book);
}

/// SQS delivers a message of the 14th until the 28th, and `migrate` empties that day of the ledger on the 30th.
#[tokio::test]
async fn day_is_final_before_the_ledger_forgets_it() {
    let lake = Lake::create().await;
    lake.log_in("2026-11-14", 3).await;

    let mut exported = Vec::new();
    for day in 0..=18 {
        if day == 13 {
            lake.log_in("2026-11-14", 1).await;
        }
        if day == 17 {
            lake.execute("TRUNCATE processed_messages").await;
        }
        exported.push(lake.exported(noon_after(day)).await.1);
    }

    // At once, with the late message, and the final export.
    assert_eq!(exported, [3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 4, 0, 0, 0]);
    let book = Book { rows: Some(4), ledger_entries: Some(4), is_final: true, is_changed: false };
    assert_eq!(lake.book("2026-11-14").await, book);
}

/// The ledger was not emptied for a month, so a slot has the entries of two days.
#[tokio::test]
async fn days_of_a_slot_are_counted_apart() {
    let lake = Lake::create().await;
    lake.log_in("2026-10-13", 2).await;
    lake.log_in("2026-11-14", 3).await;

    let first = lake.exported(noon_after(0)).await;
    lake.log_in("2026-11-14", 1).await;
    let second = lake.exported(noon_after(0)).await;

    assert_eq!((first, second), ((2, 5), (1, 4)));
    let book =
        |rows, is_final| Book { rows: Some(rows), ledger_entries: Some(rows), is_final, is_changed: false };
    assert_eq!(lake.book("2026-10-13").await, book(2, true));
    assert_eq!(lake.book("2026-11-14").await, book(4, false));
}

/// A clock that was ahead by a month has closed the day.
#[tokio::test]
async fn late_message_is_exported_after_a_clock_jumped() {
    let lake = Lake::create().await;
    lake.log_in("2026-11-14", 3).await;
    lake.exported(noon_after(30)).await;
    lake.log_in("2026-11-14", 1).await;

    let exported = lake.exported(noon_after(0)).await;

    assert_eq!(exported, (1, 4));
    assert!(!lake.book("2026-11-14").await.is_final);
}

#[tokio::test]
async fn day_unlike_the_ledger_keeps_its_object() {
    let lake = Lake::create().await;
    lake.log_in("2026-11-13", 2).await;
    lake.log_in("2026-11-14", 3).await;
    lake.exported(noon_after(0)).await;
    lake.log_in("2026-11-13", 1).await;
    lake.log_in("2026-11-14", 1).await;
    lake.execute("DELETE FROM user_logins WHERE create_date = '2026-11-14' AND user_id = 'user-2'").await;

    let report = lake.export(noon_after(0)).await;

    assert_eq!(report.summary, Summary { days: 1, rows: 3, days_left: 1 });
    assert_eq!(report.failures, 1);
    assert_eq!(
        report.error.unwrap().to_string(),
        "1 of the days were not exported; of 2026-11-14: user_logins has 3 rows of the day, and the ledger 4; the objects \
         stay as they are. If rows were deleted, or inserted without the ledger, call mark_changed(day, number of deleted \
         rows)"
    );
    assert_eq!(lake.days().await, days([("2026-11-13", 3), ("2026-11-14", 3)]));
    assert_eq!(lake.unfinished_uploads().await, 0);
}

#[tokio::test]
async fn deleted_and_changed_rows_leave_the_lake() {
    let lake = Lake::create().await;
    lake.log_in("2026-11-14", 3).await;
    lake.exported(noon_after(0)).await;
    lake.exported(noon_after(20)).await;

    let erase = "BEGIN; DELETE FROM user_logins WHERE user_id = 'user-2';
        SELECT lake.mark_changed('2026-11-14', 1); COMMIT";
    lake.execute(erase).await;
    let marked = lake.book("2026-11-14").await;
    let erased = lake.exported(noon_after(20)).await;
    let resalt = "BEGIN; UPDATE user_logins SET masked_ip = repeat('a', 64);
        SELECT lake.mark_changed('2026-11-14'); COMMIT";
    lake.execute(resalt).await;
    let resalted = lake.exported(noon_after(20)).await;
    let after = lake.exported(noon_after(20)).await;

    assert!(marked.is_changed && !marked.is_final, "{marked:?}");
    assert_eq!((erased, resalted, after), ((1, 2), (1, 2), (0, 0)));
    let objects = lake.objects().await;
    assert_eq!(objects["user_logins/dt=2026-11-14/part-00000.parquet"], lake.table("2026-11-14").await);
    let book = Book { rows: Some(2), ledger_entries: Some(3), is_final: true, is_changed: false };
    assert_eq!(lake.book("2026-11-14").await, book);
}

/// The day is erased whole, and its object has no rows. But a day whose rows were dropped keeps its object.
#[tokio::test]
async fn only_marked_rows_leave_the_lake() {
    let lake = Lake::create().await;
    lake.log_in("2026-11-13", 2).await;
    lake.log_in("2026-11-14", 3).await;
    lake.exported(noon_after(20)).await;
    lake.execute("TRUNCATE user_logins, processed_messages; SELECT lake.mark_changed('2026-11-14', 3)").await;
    lake.execute("SELECT lake.mark_changed('2026-11-13')").await;

    let report = lake.export(noon_after(20)).await;

    assert_eq!(report.summary, Summary { days: 1, rows: 0, days_left: 1 });
    let error = report.error.unwrap().to_string();
    assert!(error.contains("user_logins has 0 rows of the day, and the last export 2; "), "{error}");
    assert_eq!(lake.days().await, days([("2026-11-13", 2), ("2026-11-14", 0)]));
}

#[tokio::test]
async fn days_before_the_ledger_are_exported_without_count() {
    let lake = Lake::create().await;
    lake.execute("UPDATE lake.state SET ledger_since = '2026-11-12'").await;
    let old = "INSERT INTO user_logins (user_id, create_date)
        SELECT 'old', unnest('{2026-11-12, 2026-06-01, 1969-12-31, 0001-01-01, 9999-12-31}'::date[])";
    lake.execute(old).await;
    lake.execute("SELECT lake.mark_changed('9999-12-31', -1)").await;
    lake.log_in("2026-11-12", 2).await;
    lake.log_in("2026-11-13", 3).await;

    let first = lake.exported(noon_after(0)).await;
    let second = lake.exported(noon_after(0)).await;
    lake.log_in("2026-11-12", 1).await;
    let third = lake.exported(noon_after(0)).await;

    assert_eq!((first, second, third), ((6, 10), (0, 0), (1, 4)));
    let expected = [
        ("0001-01-01", 1),
        ("1969-12-31", 1),
        ("2026-06-01", 1),
        ("2026-11-12", 4),
        ("2026-11-13", 3),
        ("9999-12-31", 1),
    ];
    assert_eq!(lake.days().await, days(expected));
    let book = |rows, ledger_entries, is_final| Book { rows, ledger_entries, is_final, is_changed: false };
    assert_eq!(lake.book("2026-11-12").await, book(Some(4), None, false));
    assert_eq!(lake.book("2026-11-13").await, book(Some(3), Some(3), false));
    assert_eq!(lake.book("2026-06-01").await, book(Some(1), None, true));
}

#[tokio::test]
async fn rows_without_date_are_counted() {
    let lake = Lake::create().await;
    let rows = "INSERT INTO user_logins (user_id, create_date)
        SELECT 'u', unnest('{NULL, infinity, -infinity, 10000-01-01, 0044-03-15 BC}'::date[])";
    lake.execute(rows).await;

    let exported = lake.exported(noon_after(0)).await;

    let known = "SELECT rows_without_date FROM lake.state";
    let known: i64 = lake.admin.query_one(known, &[]).await.unwrap().get(0);
    assert_eq!((exported, known, lake.keys().await.len()), ((0, 0), 5, 0));
}

/// The day that the ledger forgets next comes first, then today.
#[tokio::test]
async fn day_that_the_ledger_forgets_is_first() {
    let lake = Lake::create().await;
    lake.execute("INSERT INTO user_logins (user_id, create_date) VALUES ('old', '2026-06-01')").await;
    for day in ["2026-10-30", "2026-11-13", "2026-11-14"] {
        lake.log_in(day, 1).await;
    }

    lake.exported(noon_after(0)).await;

    let order = "SELECT day::text FROM lake.exports ORDER BY exported_at";
    let rows = lake.admin.query(order, &[]).await.unwrap();
    let order: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(order, ["2026-10-30", "2026-11-14", "2026-11-13", "2026-06-01"]);
}
