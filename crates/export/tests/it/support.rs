//! Fixtures: a database with books, a bucket for each test, and the rows of its objects.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use arrow_array::cast::AsArray;
use arrow_array::types::{Date32Type, Int32Type};
use arrow_array::{Array, RecordBatch};
use aws_config::BehaviorVersion;
use aws_sdk_s3::Client as S3;
use aws_sdk_s3::config::Builder;
use bytes::Bytes;
use login_etl::aws::secrets::Secrets;
use login_etl::deadline::Deadline;
use login_etl::schema::WriterLogin;
use login_etl::{lake, schema};
use login_etl_export::bucket::Bucket;
use login_etl_export::run::{self, Report, Summary};
use login_etl_export::session::Schemas;
use login_etl_export::settings::BucketSettings;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use tokio_postgres::{Client, Config, NoTls};

/// A migrated database with books for one test, with a login role of the same name that has the rights of
/// `login_export`; and a bucket.
pub(crate) struct Lake {
    pub(crate) name: String,
    /// A session of the superuser in this database.
    pub(crate) admin: Client,
    pub(crate) s3: S3,
}

/// A row of an object. The date is in days since 1970.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Login {
    pub(crate) texts: [Option<String>; 5],
    pub(crate) app_version: Option<i32>,
    pub(crate) create_date: Option<i32>,
}

/// A row of the books.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Book {
    pub(crate) rows: Option<i64>,
    pub(crate) ledger_entries: Option<i64>,
    pub(crate) is_final: bool,
    pub(crate) is_changed: bool,
}

impl Lake {
    /// Creates the database, whose ledger is old, and the bucket.
    pub(crate) async fn create() -> Self {
        let lake = Self::without_books().await;
        lake.create_books().await;
        lake
    }

    pub(crate) async fn without_books() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("export_{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let server = connect(&superuser()).await;
        server.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
        let mut admin = connect(superuser().dbname(&name)).await;
        schema::migrate(&mut admin, "public", &WriterLogin::Unchanged).await.unwrap();
        let s3 = s3().await;
        s3.create_bucket().bucket(bucket_name(&name)).send().await.unwrap();
        Self { name, admin, s3 }
    }

    pub(crate) async fn create_books(&self) {
        let mut owner = connect(superuser().dbname(&self.name)).await;
        lake::create(&mut owner, "public").await.unwrap();
        let name = &self.name;
        let role = format!(
            "CREATE ROLE {name} LOGIN PASSWORD '{name}' IN ROLE login_export;
             UPDATE lake.state SET ledger_since = '2026-01-01'"
        );
        self.execute(&role).await;
    }

    /// Inserts logins of a day, as the writer does: with entries in the ledger.
    pub(crate) async fn log_in(&self, day: &str, logins: usize) {
        let rows = format!(
            "INSERT INTO user_logins (user_id, device_type, masked_ip, masked_device_id, locale, app_version, create_date)
             SELECT 'user-' || n, 'ios', encode(sha256(n::text::bytea), 'hex'), encode(sha256((-n)::text::bytea), 'hex'),
                 NULL, n, '{day}'
             FROM generate_series(1, {logins}) AS n;
             INSERT INTO processed_messages (slot, sent_at, message_id)
             SELECT (DATE '{day}' - DATE '1970-01-01') % 32, TIMESTAMPTZ '{day} 12:00Z', gen_random_uuid()
             FROM generate_series(1, {logins})"
        );
        self.execute(&rows).await;
    }

    pub(crate) async fn execute(&self, statements: &str) {
        self.admin.batch_execute(statements).await.unwrap();
    }

    /// Exports as the role of the export, with two connections.
    pub(crate) async fn export(&self, now: SystemTime) -> Report {
        self.export_to(&self.bucket().await, now).await
    }

    pub(crate) async fn export_to(&self, bucket: &Bucket, now: SystemTime) -> Report {
        let mut client = connect(&self.login()).await;
        let second = async { Some(connect(&self.login()).await) };
        let deadline = Deadline::within(Duration::from_mins(2));
        run::run(&mut client, second, &Schemas::of("public"), bucket, now, deadline).await
    }

    /// Exports, and returns the numbers of days and rows. Nothing must fail.
    pub(crate) async fn exported(&self, now: SystemTime) -> (u64, u64) {
        let Report { summary: Summary { days, rows, days_left }, failures, error } = self.export(now).await;
        assert!(error.is_none(), "{}", error.unwrap());
        assert_eq!((failures, days_left), (0, 0));
        (days, rows)
    }

    pub(crate) async fn bucket(&self) -> Bucket {
        let settings = BucketSettings { name: bucket_name(&self.name), kms_key: None, name_in_path: true };
        Bucket::new(&Secrets::from_env().await, settings)
    }

    /// Returns the configuration of a session of the export.
    pub(crate) fn login(&self) -> Config {
        let mut config = superuser();
        config.dbname(&self.name).user(&self.name).password(&self.name);
        config
    }

    pub(crate) fn url(&self) -> String {
        let (name, port) = (&self.name, superuser().get_ports()[0]);
        format!("postgresql://{name}:{name}@localhost:{port}/{name}?sslmode=disable")
    }

    /// Returns the rows of each object, sorted, by its key.
    pub(crate) async fn objects(&self) -> BTreeMap<String, Vec<Login>> {
        let mut objects = BTreeMap::new();
        for key in self.keys().await {
            let rows = rows(self.object(&key).await);
            objects.insert(key, rows);
        }
        objects
    }

    pub(crate) async fn keys(&self) -> Vec<String> {
        let listed = self.s3.list_objects_v2().bucket(bucket_name(&self.name)).send().await.unwrap();
        listed.contents().iter().map(|object| object.key().unwrap().to_owned()).collect()
    }

    pub(crate) async fn object(&self, key: &str) -> Bytes {
        let object = self.s3.get_object().bucket(bucket_name(&self.name)).key(key).send().await.unwrap();
        object.body.collect().await.unwrap().into_bytes()
    }

    /// Returns the number of rows of each day in the lake.
    pub(crate) async fn days(&self) -> BTreeMap<String, usize> {
        let mut days = BTreeMap::new();
        for (key, rows) in self.objects().await {
            let (_, day) = key.split_once("dt=").unwrap();
            *days.entry(day[..10].to_owned()).or_default() += rows.len();
        }
        days
    }

    /// Returns the rows of the table on a day, sorted.
    pub(crate) async fn table(&self, day: &str) -> Vec<Login> {
        let sql = format!(
            "SELECT user_id::text, device_type::text, masked_ip::text, masked_device_id::text, locale::text,
                 app_version::integer, create_date::date - DATE '1970-01-01'
             FROM user_logins WHERE create_date::date = '{day}'"
        );
        let rows = self.admin.query(&sql, &[]).await.unwrap();
        let mut logins: Vec<_> = rows
            .iter()
            .map(|row| Login {
                texts: std::array::from_fn(|column| row.get(column)),
                app_version: row.get(5),
                create_date: row.get(6),
            })
            .collect();
        logins.sort();
        logins
    }

    pub(crate) async fn book(&self, day: &str) -> Book {
        let sql =
            format!("SELECT rows, ledger_entries, final, changed FROM lake.exports WHERE day = '{day}'");
        let row = self.admin.query_one(&sql, &[]).await.unwrap();
        Book { rows: row.get(0), ledger_entries: row.get(1), is_final: row.get(2), is_changed: row.get(3) }
    }

    /// Returns how many uploads are neither completed nor aborted.
    pub(crate) async fn unfinished_uploads(&self) -> usize {
        let request = self.s3.list_multipart_uploads().bucket(bucket_name(&self.name));
        request.send().await.unwrap().uploads().len()
    }
}

/// Returns noon of 14 November 2026, the day of the newest logins, or this many days later.
pub(crate) fn noon_after(days: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_hours(498_516 + 24 * days)
}

/// Returns the rows of a Parquet file, sorted.
pub(crate) fn rows(file: Bytes) -> Vec<Login> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap();
    let mut rows: Vec<_> = reader.flat_map(|batch| logins(&batch.unwrap())).collect();
    rows.sort();
    rows
}

fn logins(batch: &RecordBatch) -> Vec<Login> {
    let texts: [_; 5] = std::array::from_fn(|column| batch.column(column).as_string::<i32>());
    let app_version = batch.column(5).as_primitive::<Int32Type>();
    let create_date = batch.column(6).as_primitive::<Date32Type>();
    let row = |row: usize| Login {
        texts: texts.map(|column| column.is_valid(row).then(|| column.value(row).to_owned())),
        app_version: app_version.is_valid(row).then(|| app_version.value(row)),
        create_date: create_date.is_valid(row).then(|| create_date.value(row)),
    };
    (0..batch.num_rows()).map(row).collect()
}

pub(crate) fn bucket_name(database: &str) -> String {
    database.replace('_', "-")
}

pub(crate) fn superuser() -> Config {
    variable("TEST_DATABASE_URL").parse().unwrap()
}

/// Returns an environment variable that `make test` sets.
pub(crate) fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set; `make test` sets it"))
}

pub(crate) async fn connect(config: &Config) -> Client {
    let (client, connection) = config.connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

async fn s3() -> S3 {
    let sdk = aws_config::load_defaults(BehaviorVersion::latest()).await;
    S3::from_conf(Builder::from(&sdk).force_path_style(true).build())
}
