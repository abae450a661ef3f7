//! Objects in the bucket: large ones, several of a day, and the errors of S3.

use std::collections::BTreeSet;
use std::future::ready;
use std::time::Duration;

use login_etl::aws::secrets::Secrets;
use login_etl::deadline::Deadline;
use login_etl_export::bucket::Bucket;
use login_etl_export::run;
use login_etl_export::session::Schemas;
use login_etl_export::settings::BucketSettings;
use tokio_postgres::types::Type;

use crate::support::{Lake, bucket_name, connect, noon_after};

const KEY: &str = "user_logins/dt=2026-11-14/part-00000.parquet";

/// The tokens of a row are random: 130,000 rows are more than 8 MiB.
#[tokio::test]
async fn large_object_is_sent_in_parts() {
    let lake = Lake::create().await;
    lake.log_in("2026-11-14", 140_000).await;

    let exported = lake.exported(noon_after(0)).await;

    let object = lake.object(KEY).await;
    let books = "SELECT bytes, sha256, etag FROM lake.exports";
    let books = lake.admin.query_one(books, &[]).await.unwrap();
    let head = lake.s3.head_object().bucket(bucket_name(&lake.name)).key(KEY).send().await.unwrap();
    assert_eq!(exported, (1, 140_000));
    assert!(object.len() > 8 << 20, "{} bytes are one part", object.len());
    assert_eq!(books.get::<_, i64>(0), i64::try_from(object.len()).unwrap());
    let digest = [(&&object[..] as _, Type::BYTEA)];
    let digest = lake.admin.query_typed_one("SELECT encode(sha256($1), 'hex')", &digest).await.unwrap();
    assert_eq!(books.get::<_, String>(1), digest.get::<_, String>(0));
    let etag = head.e_tag().unwrap().trim_matches('"');
    assert_eq!(books.get::<_, String>(2), etag);
    assert!(etag.ends_with("-2"), "{etag}");
    assert_eq!(lake.objects().await[KEY], lake.table("2026-11-14").await);
}

#[tokio::test]
async fn large_day_has_sixteen_objects() {
    let lake = Lake::create().await;
    lake.log_in("2026-11-14", 1_000).await;
    // As if the first run had found 5 million rows.
    lake.execute("INSERT INTO lake.exports (day, objects) VALUES ('2026-11-14', 16)").await;

    let first = lake.exported(noon_after(0)).await;
    let before = lake.objects().await;
    lake.log_in("2026-11-14", 1).await;
    let second = lake.exported(noon_after(0)).await;

    let objects = lake.objects().await;
    let expected: Vec<_> =
        (0..16).map(|object| format!("user_logins/dt=2026-11-14/part-{object:05}.parquet")).collect();
    assert_eq!((first, second), ((1, 1_000), (1, 1_001)));
    assert_eq!(objects.keys().cloned().collect::<Vec<_>>(), expected);
    assert!(objects.values().all(|rows| rows.len() > 30), "the rows are not spread");
    let mut all: Vec<_> = objects.values().flatten().cloned().collect();
    all.sort();
    assert_eq!(all, lake.table("2026-11-14").await);
    // A reader between two replacements sees each old row once.
    for (key, rows) in before {
        let users: BTreeSet<_> = rows.iter().map(|row| &row.texts[0]).collect();
        assert!(objects[&key].iter().filter(|row| users.contains(&row.texts[0])).count() >= rows.len());
    }
    let etags: String = lake.admin.query_one("SELECT etag FROM lake.exports", &[]).await.unwrap().get(0);
    assert_eq!(etags.split(' ').count(), 16);
}

/// The run stops at the first day: S3 would refuse the other days too.
#[tokio::test]
async fn missing_bucket_is_an_error_with_its_code() {
    let lake = Lake::create().await;
    lake.log_in("2026-11-13", 1).await;
    lake.log_in("2026-11-14", 1).await;
    let settings = BucketSettings { name: "no-such-bucket".into(), kms_key: None, name_in_path: true };
    let bucket = Bucket::new(&Secrets::from_env().await, settings);
    let mut client = connect(&lake.login()).await;

    let deadline = Deadline::within(Duration::from_mins(1));
    let report =
        run::run(&mut client, ready(None), &Schemas::of("public"), &bucket, noon_after(0), deadline).await;

    let error = report.error.unwrap().to_string();
    let expected = "1 of the days were not exported; of 2026-11-14: S3 did not do PutObject: NoSuchBucket";
    assert!(error.starts_with(expected), "{error}");
    assert_eq!(report.summary.days_left, 2);
    let books = "SELECT count(*) FROM lake.exports WHERE exported_at IS NOT NULL";
    assert_eq!(lake.admin.query_one(books, &[]).await.unwrap().get::<_, i64>(0), 0);
}

/// The second day has begun when the first one fails. It fails too, and the third does not begin.
#[tokio::test]
async fn missing_bucket_ends_both_days() {
    let lake = Lake::create().await;
    for day in ["2026-11-12", "2026-11-13", "2026-11-14"] {
        lake.log_in(day, 1).await;
    }
    let settings = BucketSettings { name: "no-such-bucket".into(), kms_key: None, name_in_path: true };
    let bucket = Bucket::new(&Secrets::from_env().await, settings);

    let report = lake.export_to(&bucket, noon_after(0)).await;

    let error = report.error.unwrap().to_string();
    let expected = "2 of the days were not exported; of 2026-11-14: S3 did not do PutObject: NoSuchBucket";
    assert!(error.starts_with(expected), "{error}");
    assert_eq!((report.failures, report.summary.days_left), (2, 3));
}

#[tokio::test]
async fn refused_day_leaves_no_unfinished_upload() {
    let lake = Lake::create().await;
    lake.log_in("2026-11-14", 140_000).await;
    lake.execute("DELETE FROM user_logins WHERE user_id = 'user-7'").await;

    let report = lake.export(noon_after(0)).await;

    assert_eq!((report.failures, lake.unfinished_uploads().await, lake.keys().await.len()), (1, 0, 0));
}

/// A run without time exports nothing, and says so.
#[tokio::test]
async fn run_without_time_leaves_the_days() {
    let lake = Lake::create().await;
    lake.log_in("2026-11-14", 1).await;
    let bucket = lake.bucket().await;
    let mut client = connect(&lake.login()).await;

    let deadline = Deadline::within(Duration::from_nanos(1));
    let report =
        run::run(&mut client, ready(None), &Schemas::of("public"), &bucket, noon_after(0), deadline).await;

    assert!(report.error.is_some());
    assert_eq!((report.failures, lake.keys().await.len()), (1, 0));
}
