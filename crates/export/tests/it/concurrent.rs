//! Runs, batches and operators at the same time.

use std::time::Duration;

use login_etl_export::error::RunError;
use login_etl_export::run::Summary;
use tokio::time::sleep;

use crate::support::{Lake, connect, noon_after, superuser};

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
