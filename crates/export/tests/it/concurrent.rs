//! Runs, batches and operators at the same time.

use std::time::Duration;

use jiff::civil::Date;
use login_etl::deadline::Deadline;
use login_etl_export::day::{self, Outcome, Run};
use login_etl_export::error::RunError;
use login_etl_export::run::Summary;
use login_etl_export::session::Schemas;
use tokio::sync::Mutex;
use tokio::time::sleep;

use crate::support::{Book, Lake, connect, noon_after, superuser};

#[tokio::test]
async fn second_run_ends_at_once() {
    let lake = Lake::create().await;
    lake.log_in("2026-11-14", 1).await;
    // Another run is in a day.
    let other = connect(&lake.login()).await;
    other.batch_execute("BEGIN; LOCK TABLE lake.state IN SHARE ROW EXCLUSIVE MODE").await.unwrap();

    let busy = lake.export(noon_after(0)).await;
    other.batch_execute("ROLLBACK").await.unwrap();
    let free = lake.exported(noon_after(0)).await;

    assert!(matches!(busy.error, Some(RunError::Busy)), "{busy:?}");
    assert_eq!((busy.failures, free), (0, (1, 1)));
}

/// The run before is in a day of either lock. Operators can still mark days.
#[tokio::test]
async fn either_lock_ends_the_second_run() {
    let lake = Lake::create().await;
    lake.log_in("2026-11-14", 1).await;
    let other = connect(&lake.login()).await;
    for lock in ["state IN SHARE ROW EXCLUSIVE MODE", "exports IN SHARE UPDATE EXCLUSIVE MODE"] {
        other.batch_execute(&format!("BEGIN; LOCK TABLE lake.{lock}")).await.unwrap();

        let busy = lake.export(noon_after(0)).await;
        lake.execute("SET lock_timeout = '1s'; SELECT lake.mark_changed('2026-11-14')").await;
        other.batch_execute("ROLLBACK").await.unwrap();

        assert!(matches!(busy.error, Some(RunError::Busy)), "{lock}: {busy:?}");
        assert_eq!((busy.failures, lake.keys().await.len()), (0, 0), "{lock}");
    }
}

/// Two runs have planned the same day. The second waits until the day is in the books, and reads them then.
#[tokio::test]
async fn two_runs_export_a_day_once() {
    let lake = Lake::create().await;
    let (bucket, schemas) = (lake.bucket().await, Schemas::of("public"));
    let deadline = Deadline::within(Duration::from_mins(1));
    let run = Run { bucket: &bucket, schemas: &schemas, now: noon_after(0), deadline, most_entries: 0 };
    let (mut first, mut second) = (connect(&lake.login()).await, connect(&lake.login()).await);
    for date in ["2026-11-13", "2026-11-12"] {
        lake.log_in(date, 200).await;
        let date: Date = date.parse().unwrap();
        let turns = (Mutex::new(()), Mutex::new(()));

        let outcomes = tokio::join!(
            day::export(&mut first, run, date, turns.0.lock().await),
            day::export(&mut second, run, date, turns.1.lock().await),
        );

        let outcomes = [outcomes.0.unwrap(), outcomes.1.unwrap()];
        let exported = outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Exported(_))).count();
        assert_eq!(exported, 1, "{outcomes:?}");
        assert!(outcomes.contains(&Outcome::NotDue), "{outcomes:?}");
    }
}

/// Whoever comes first exports a day, and all objects are right.
#[tokio::test]
async fn two_runs_export_each_day_once() {
    let lake = Lake::create().await;
    for day in 1..=14 {
        lake.log_in(&format!("2026-11-{day:02}"), 20).await;
    }

    let (first, second) = tokio::join!(lake.export(noon_after(0)), lake.export(noon_after(0)));
    let rest = lake.exported(noon_after(0)).await;

    for report in [&first, &second] {
        assert!(matches!(report.error, None | Some(RunError::Busy)), "{report:?}");
    }
    assert_eq!(first.summary.days + second.summary.days + rest.0, 14);
    for (key, rows) in lake.objects().await {
        let (_, day) = key.split_once("dt=").unwrap();
        assert_eq!(rows, lake.table(&day[..10]).await);
    }
}

/// The operator's transaction is open while the day is exported: the objects have its rows, but the day stays due.
#[tokio::test]
async fn mark_during_an_export_is_kept() {
    let lake = Lake::create().await;
    lake.log_in("2026-11-14", 3).await;
    lake.exported(noon_after(0)).await;
    lake.log_in("2026-11-14", 1).await;
    let operator = connect(superuser().dbname(&lake.name)).await;
    let erase =
        "BEGIN; DELETE FROM user_logins WHERE user_id = 'user-2'; SELECT lake.mark_changed('2026-11-14', 1)";
    operator.batch_execute(erase).await.unwrap();

    let (during, ()) = tokio::join!(lake.export(noon_after(0)), async {
        wait_until_blocked(&lake).await;
        operator.batch_execute("COMMIT").await.unwrap();
    });
    let after = lake.exported(noon_after(0)).await;

    assert!(during.error.is_none(), "{during:?}");
    assert_eq!(during.summary, Summary { days: 0, rows: 0, days_left: 1 });
    assert_eq!(after, (1, 3));
    let objects = lake.objects().await;
    assert_eq!(objects["user_logins/dt=2026-11-14/part-00000.parquet"], lake.table("2026-11-14").await);
}

/// The newest day waits for an operator. The day before is exported meanwhile, and marked after that: both stay due.
#[tokio::test]
async fn mark_does_not_stop_the_neighbour() {
    let lake = Lake::create().await;
    lake.exported(noon_after(0)).await;
    lake.log_in("2026-11-14", 3).await;
    lake.log_in("2026-11-13", 2).await;
    let operator = connect(superuser().dbname(&lake.name)).await;
    operator.batch_execute("BEGIN; SELECT lake.mark_changed('2026-11-14')").await.unwrap();

    let (during, neighbour) = tokio::join!(lake.export(noon_after(0)), async {
        let neighbour = wait_until_exported(&lake, "2026-11-13").await;
        wait_until_blocked(&lake).await;
        lake.execute("SELECT lake.mark_changed('2026-11-13')").await;
        operator.batch_execute("COMMIT").await.unwrap();
        neighbour
    });
    let marked = (lake.book("2026-11-13").await.is_changed, lake.book("2026-11-14").await.is_changed);
    let after = lake.exported(noon_after(0)).await;

    assert!(during.error.is_none(), "{during:?}");
    assert_eq!(during.summary, Summary { days: 1, rows: 2, days_left: 1 });
    assert_eq!(neighbour.rows, Some(2));
    assert_eq!((marked, after), ((true, true), (2, 5)));
}

/// A day fails at its end, while the next day is read.
#[tokio::test]
async fn failed_day_does_not_stop_its_neighbours() {
    let lake = Lake::create().await;
    for day in 11..=14 {
        lake.log_in(&format!("2026-11-{day}"), 5).await;
    }
    lake.execute("DELETE FROM user_logins WHERE create_date = '2026-11-13' AND user_id = 'user-2'").await;

    let report = lake.export(noon_after(0)).await;

    assert_eq!(report.summary, Summary { days: 3, rows: 15, days_left: 1 });
    assert_eq!(report.failures, 1);
    let error = report.error.unwrap().to_string();
    assert!(error.starts_with("1 of the days were not exported; of 2026-11-13: "), "{error}");
    let days: Vec<_> = lake.days().await.into_keys().collect();
    assert_eq!(days, ["2026-11-11", "2026-11-12", "2026-11-14"]);
}

/// Both days need the same lock, for which the second waits longer than a run waits for another.
#[tokio::test]
async fn days_of_one_lock_take_turns() {
    let lake = Lake::create().await;
    lake.exported(noon_after(0)).await;
    lake.log_in("2026-11-14", 3).await;
    lake.log_in("2026-11-12", 2).await;
    let operator = connect(superuser().dbname(&lake.name)).await;
    operator.batch_execute("BEGIN; SELECT lake.mark_changed('2026-11-14')").await.unwrap();

    let (report, ()) = tokio::join!(lake.export(noon_after(0)), async {
        wait_until_blocked(&lake).await;
        sleep(Duration::from_secs(3)).await;
        operator.batch_execute("COMMIT").await.unwrap();
    });

    assert!(report.error.is_none(), "{report:?}");
    assert_eq!(report.summary, Summary { days: 1, rows: 2, days_left: 1 });
}

/// A batch that is written during the export is in the rows and in the ledger, or in neither.
#[tokio::test]
async fn day_grows_while_it_is_exported() {
    let lake = Lake::create().await;
    let writer = async {
        for _ in 0..30 {
            lake.log_in("2026-11-14", 10).await;
        }
    };
    let exports = async {
        for _ in 0..8 {
            lake.exported(noon_after(0)).await;
        }
    };

    tokio::join!(writer, exports);
    lake.exported(noon_after(0)).await;

    let objects = lake.objects().await;
    assert_eq!(objects["user_logins/dt=2026-11-14/part-00000.parquet"], lake.table("2026-11-14").await);
}

async fn wait_until_blocked(lake: &Lake) {
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE usename = $1 AND wait_event_type = 'Lock'";
    for _ in 0..300 {
        if lake.admin.query_one(sql, &[&lake.name]).await.unwrap().get::<_, i64>(0) > 0 {
            return;
        }
        sleep(Duration::from_millis(20)).await;
    }
    panic!("the export does not wait");
}

async fn wait_until_exported(lake: &Lake, day: &str) -> Book {
    let sql = "SELECT count(*) FROM lake.exports WHERE day::text = $1 AND exported_at IS NOT NULL";
    for _ in 0..300 {
        if lake.admin.query_one(sql, &[&day]).await.unwrap().get::<_, i64>(0) > 0 {
            return lake.book(day).await;
        }
        sleep(Duration::from_millis(20)).await;
    }
    panic!("{day} is not exported");
}
