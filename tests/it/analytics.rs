//! The analysts' schema: after each roll-up, every count is what a plain GROUP BY over `user_logins` counts.

use std::collections::HashSet;
use std::time::{Duration, SystemTime};

use login_etl::analytics::{self, LOGINS_PER_STEP, RollUp};
use login_etl::deadline::Deadline;
use login_etl::handler::Ingest;
use login_etl::schema::{self, SchemaError, WriterLogin};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_postgres::Client;

use crate::existing_databases::{assert_refusals, case, create, owner};
use crate::support::{Database, batch, connect, failures, invoke, record, superuser};

/// Noon of 14 November 2026, in seconds since 1970.
const NOON: u64 = 1_794_614_400;

/// The tables and views whose rows the test computes itself, each with a plain statement.
const EXPECTED: [(&str, &str); 9] = [
    (
        "token_user",
        "SELECT field, token, user_id, count(*), min(day), max(day), nullif(count(*) FILTER (WHERE day <= merged), 0),
             max(day) FILTER (WHERE day <= merged)
         FROM plain_pair, (SELECT max(day) - 28 FROM dated) AS days (merged)
         GROUP BY 1, 2, 3",
    ),
    (
        "token_user_day",
        "SELECT day, field, token, user_id, count(*) FROM plain_pair WHERE day > (SELECT max(day) FROM dated) - 28 GROUP BY 1, 2, 3, 4",
    ),
    (
        "token_period",
        "SELECT field, period, token, count(DISTINCT user_id), count(*), min(day), max(day)
         FROM plain_pair, (VALUES ('1d', 1), ('7d', 7), ('28d', 28), ('all', 1000000)) AS periods (period, days)
         WHERE day > (SELECT max(day) FROM dated) - days
         GROUP BY 1, 2, 3
         HAVING count(DISTINCT user_id) > 1",
    ),
    (
        "popular_token_user",
        "SELECT field, token, user_id, logins, first_day, last_day,
             encode(sha256(((SELECT cursor_key FROM analytics.freshness) || user_id)::bytea), 'hex')
         FROM (
             SELECT field, token, user_id, count(*) AS logins, min(day) AS first_day, max(day) AS last_day,
                 rank() OVER (PARTITION BY field, token ORDER BY count(*) DESC, user_id COLLATE \"C\") AS place,
                 count(*) OVER (PARTITION BY field, token) AS users
             FROM plain_pair GROUP BY 1, 2, 3
         ) AS placed
         WHERE users > 200 AND place <= 1000",
    ),
    (
        "popular_token_day",
        "SELECT field, token, day, count(*), count(DISTINCT user_id)
         FROM plain_pair
         WHERE day > (SELECT max(day) FROM dated) - 28 AND (field, token) IN (
             SELECT field, token FROM plain_pair GROUP BY 1, 2 HAVING count(DISTINCT user_id) > 200
         )
         GROUP BY 1, 2, 3",
    ),
    (
        "daily",
        "SELECT day, dimension, value, count(*), count(DISTINCT user_id)
         FROM dated, LATERAL (VALUES
             ('all', NULL),
             ('device_type', device_type),
             ('locale', locale),
             ('app_version', app_version / 1000000 || '.' || app_version / 1000 % 1000 || '.' || app_version % 1000)
         ) AS dimensions (dimension, value)
         GROUP BY 1, 2, 3",
    ),
    (
        "ring_members",
        "SELECT ring, user_id FROM ring GROUP BY 1, 2",
    ),
    (
        "rings",
        "SELECT ring, count(DISTINCT user_id), count(DISTINCT token), count(*), min(day), max(day) FROM ring GROUP BY 1",
    ),
    (
        "freshness",
        "SELECT run, rolled_up_at, (SELECT max(day) FROM dated), 0, (SELECT count(*) FROM user_logins) - (SELECT count(*) FROM dated),
             cursor_key
         FROM analytics.freshness",
    ),
];

/// The views that [`EXPECTED`] reads. The rings are found by following every pair of devices of a user.
const ORACLE: &str = "
    CREATE OR REPLACE TEMPORARY VIEW dated AS
        SELECT *, create_date AS day FROM user_logins WHERE create_date BETWEEN '0001-01-01' AND (SELECT today FROM today);
    CREATE OR REPLACE TEMPORARY VIEW plain_pair AS
        SELECT day, field, token COLLATE \"C\", user_id
        FROM dated, LATERAL (VALUES ('device_id', masked_device_id), ('ip', masked_ip)) AS fields (field, token)
        WHERE token ~ '^[0-9a-f]{64}$' AND user_id IS NOT NULL;
    CREATE OR REPLACE TEMPORARY VIEW shared AS
        SELECT * FROM plain_pair WHERE field = 'device_id' AND day > (SELECT max(day) FROM dated) - 28 AND token IN (
            SELECT token FROM plain_pair WHERE field = 'device_id' AND day > (SELECT max(day) FROM dated) - 28
            GROUP BY token HAVING count(DISTINCT user_id) BETWEEN 2 AND 50
        );
    CREATE OR REPLACE TEMPORARY VIEW ring AS
        WITH RECURSIVE reached (token, other) AS (
            SELECT token, token FROM shared
            UNION
            SELECT reached.token, next.token
            FROM reached
            JOIN (SELECT DISTINCT token, user_id FROM shared) AS here ON here.token = reached.other
            JOIN (SELECT DISTINCT token, user_id FROM shared) AS next ON next.user_id = here.user_id
        )
        SELECT named.ring, shared.*
        FROM shared JOIN (SELECT token, min(other) AS ring FROM reached GROUP BY 1) AS named USING (token)";

/// What happens to the database of a test.
#[derive(Clone, Debug)]
enum Happening {
    /// A batch of logins: how many days ago each was sent, its user, device and address.
    Batch(Vec<(u64, u8, u8, u8)>),
    /// The last batch is delivered again.
    Redelivery,
    /// The owner deletes a login, and has its day counted again.
    Deletion(prop::sample::Index),
    Days(u64),
    /// `migrate` empties the days of the ledger that SQS cannot redeliver from.
    Prune,
    RollUp,
}

fn happening() -> impl Strategy<Value = Happening> {
    let login = (0..14_u64, 0..8_u8, 0..10_u8, 0..6_u8);
    prop_oneof![
        4 => prop::collection::vec(login, 1..6).prop_map(Happening::Batch),
        1 => Just(Happening::Redelivery),
        1 => any::<prop::sample::Index>().prop_map(Happening::Deletion),
        2 => (1..5_u64).prop_map(Happening::Days),
        1 => (5..40_u64).prop_map(Happening::Days),
        2 => Just(Happening::Prune),
        4 => Just(Happening::RollUp),
    ]
}

fn noon_after(days: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(NOON + days * 86_400)
}

/// A login that was sent at noon, `days` after [`NOON`].
fn sent(id: &str, days: u64, (user, device, ip): (u8, u8, u8)) -> Value {
    let body = json!({
        "user_id": format!("user-{user}"), "device_id": format!("device-{device}"), "ip": format!("10.0.0.{ip}"),
        "device_type": if device % 2 == 0 { "ios" } else { "android" }, "locale": (user > 2).then_some("RU"),
        "app_version": format!("2.{user}.0"),
    });
    let mut record = record(id, body.to_string());
    record["attributes"]["SentTimestamp"] = ((NOON + days * 86_400) * 1000).to_string().into();
    record
}

async fn prepared() -> Database {
    let mut database = Database::create().await;
    analytics::create(&mut database.admin, "public").await.unwrap();
    database
}

async fn roll_up_at(client: &mut Client, now: SystemTime, logins_per_step: i64) -> RollUp {
    let deadline = Deadline::within(Duration::from_mins(5));
    analytics::roll_up(client, "public", now, logins_per_step, deadline).await.unwrap()
}

async fn roll_up(client: &mut Client, now: SystemTime) -> RollUp {
    roll_up_at(client, now, LOGINS_PER_STEP).await
}

/// Returns the rows that a view lacks or has too many.
async fn differences(admin: &Client, now: SystemTime) -> Vec<String> {
    let today = "SELECT format('CREATE OR REPLACE TEMPORARY VIEW today AS SELECT %L::date AS today',
                     $1::timestamptz AT TIME ZONE 'UTC')";
    let today: String = admin.query_one(today, &[&now]).await.unwrap().get(0);
    admin.batch_execute(&format!("{today}; {ORACLE}")).await.unwrap();
    let mut differences = Vec::new();
    for (view, expected) in EXPECTED {
        let sql = format!(
            "WITH present AS (SELECT * FROM analytics.{view}), expected AS ({expected})
             SELECT '{view} lacks ' || row::text FROM (SELECT * FROM expected EXCEPT ALL SELECT * FROM present) AS row
             UNION ALL
             SELECT '{view} has ' || row::text FROM (SELECT * FROM present EXCEPT ALL SELECT * FROM expected) AS row"
        );
        differences.extend(admin.query(&sql, &[]).await.unwrap().iter().map(|row| row.get::<_, String>(0)));
    }
    differences
}

async fn assert_correct(database: &Database, now: SystemTime) {
    assert_eq!(differences(&database.admin, now).await, [] as [&str; 0]);
}

/// Inserts rows as a table has them that is older than the ledger: also days that no roll-up can hold.
async fn insert_old_rows(database: &Database) {
    let rows = "
        INSERT INTO user_logins (user_id, masked_device_id, masked_ip, locale, create_date)
        SELECT 'user-' || n % 9, encode(sha256((n % 31)::text::bytea), 'hex'), encode(sha256((n % 23)::text::bytea), 'hex'),
            'RU', DATE '2026-11-14' - n % 40
        FROM generate_series(1, 300) AS n;
        INSERT INTO user_logins (user_id, masked_device_id, create_date)
        SELECT user_id, device, create_date::date
        FROM unnest(ARRAY['user-1', NULL]) AS user_id,
            unnest(ARRAY[repeat('a', 64), 'not masked', '', NULL]) AS device,
            unnest(ARRAY['2026-11-14', '0001-01-01', '1970-01-01', '9999-12-31', '10000-01-01', '0044-03-15 BC',
                'infinity', '-infinity', NULL]) AS create_date";
    database.execute(rows).await;
}

/// Lets one thing happen `today`, in days after [`NOON`], and returns the new day.
async fn happen(
    database: &mut Database,
    ingest: &Ingest,
    batches: &mut Vec<(u64, Value)>,
    today: u64,
    happening: &Happening,
) -> u64 {
    match happening {
        Happening::Batch(logins) => {
            let records = logins.iter().enumerate().map(|(number, (age, user, device, ip))| {
                sent(&format!("{}-{number}", batches.len()), today - age, (*user, *device, *ip))
            });
            let event = batch(records.collect::<Vec<_>>());
            assert_eq!(invoke(ingest, &event).await, failures(&[]));
            batches.push((today, event));
        }
        // SQS delivers a message for 14 days, and those of the batch were up to 13 days old.
        Happening::Redelivery => {
            if let Some((day, event)) = batches.last()
                && today <= day + 1
            {
                assert_eq!(invoke(ingest, event).await, failures(&[]));
            }
        }
        Happening::Deletion(index) => {
            let days = "SELECT day::text FROM analytics.day
                        WHERE NOT merged AND ledger_entries IS NOT NULL AND logins > 1 ORDER BY 1";
            let days = database.admin.query(days, &[]).await.unwrap();
            if !days.is_empty() {
                let day: &str = days[index.index(days.len())].get(0);
                let delete = format!(
                    "DELETE FROM user_logins
                         WHERE (tableoid, ctid) = (
                             SELECT tableoid, ctid FROM user_logins WHERE create_date = '{day}' LIMIT 1
                         );
                     UPDATE analytics.day SET ledger_entries = NULL WHERE day = '{day}'"
                );
                database.execute(&delete).await;
            }
        }
        Happening::Days(days) => return today + days,
        Happening::Prune => {
            let sql = "DELETE FROM processed_messages WHERE sent_at < $1::timestamptz - INTERVAL '15 days 12 hours'";
            database.admin.execute(sql, &[&noon_after(today)]).await.unwrap();
        }
        Happening::RollUp => {
            roll_up_at(&mut database.admin, noon_after(today), 150).await;
            assert_correct(database, noon_after(today)).await;
        }
    }
    today
}

#[tokio::test]
async fn any_sequence_of_changes_is_counted() {
    let mut runner = TestRunner::deterministic();
    let happenings = prop::collection::vec(happening(), 20);
    for _ in 0..2 {
        let mut database = prepared().await;
        insert_old_rows(&database).await;
        let ingest = database.ingest().await;
        let (mut batches, mut today) = (Vec::new(), 20);
        let happenings = happenings.new_tree(&mut runner).unwrap().current();
        for happening in happenings.iter().chain([&Happening::RollUp]) {
            today = happen(&mut database, &ingest, &mut batches, today, happening).await;
        }
    }
}

/// Each user of the chain shares a device with the next user. A device with 51 users is a hub.
#[tokio::test]
async fn chains_and_stars_are_rings() {
    let mut database = prepared().await;
    let rows = "
        INSERT INTO user_logins (user_id, masked_device_id, create_date)
        SELECT user_id, encode(sha256(device::bytea), 'hex'), '2026-11-14'
        FROM (
            SELECT 'chain-' || n, 'chain-' || n + next FROM generate_series(1, 1000) AS n, generate_series(0, 1) AS next
            UNION ALL
            SELECT 'centre', 'star-' || n FROM generate_series(1, 200) AS n
            UNION ALL
            SELECT 'ray-' || n, 'star-' || n FROM generate_series(1, 200) AS n
            UNION ALL
            SELECT 'guest-' || n, 'hub' FROM generate_series(1, 51) AS n
        ) AS login (user_id, device)";
    database.execute(rows).await;

    roll_up(&mut database.admin, noon_after(0)).await;

    let rings = "SELECT users, devices, logins, (SELECT count(*) FROM analytics.ring_members AS m WHERE m.ring = r.ring),
                     ring = (SELECT min(token) FROM analytics.token_user WHERE token IN (
                         SELECT token FROM analytics.duplicates_28d WHERE users < 50
                     ) AND user_id IN (SELECT user_id FROM analytics.ring_members AS m WHERE m.ring = r.ring))
                 FROM analytics.rings AS r ORDER BY users DESC";
    let rings: Vec<(i64, i64, i64, i64, bool)> = database
        .admin
        .query(rings, &[])
        .await
        .unwrap()
        .iter()
        .map(|row| (row.get(0), row.get(1), row.get(2), row.get(3), row.get(4)))
        .collect();
    assert_eq!(rings, [(1000, 999, 1998, 1000, true), (201, 200, 400, 201, true)]);
}

#[tokio::test]
async fn popular_tokens_are_counted_before_somebody_asks() {
    let mut database = prepared().await;
    // User n has n % 7 + 1 logins. One token has 200 users, so it is not popular.
    let rows = "
        INSERT INTO user_logins (user_id, masked_ip, create_date)
        SELECT 'user-' || n, encode(sha256(ip::bytea), 'hex'), DATE '2026-11-14' - (n * 5 + login) % 40
        FROM (VALUES ('popular', 1003), ('nearly', 200)) AS ips (ip, users), generate_series(1, users) AS n,
            generate_series(0, n % 7) AS login";
    database.execute(rows).await;
    roll_up(&mut database.admin, noon_after(0)).await;
    assert_correct(&database, noon_after(0)).await;
    assert_pages_list_users(&database, "popular", 1000).await;
    assert_pages_list_users(&database, "nearly", 200).await;

    let one_more = "
        INSERT INTO user_logins (user_id, masked_ip, create_date)
        SELECT 'another', masked_ip, DATE '2026-11-10' FROM user_logins GROUP BY masked_ip;
        UPDATE analytics.day SET ledger_entries = NULL WHERE day = '2026-11-10'";
    database.execute(one_more).await;
    roll_up(&mut database.admin, noon_after(0)).await;
    assert_correct(&database, noon_after(0)).await;

    let fewer = "
        DELETE FROM user_logins
        WHERE user_id IN ('another', 'user-6', 'user-12', 'user-13') AND create_date > DATE '2026-11-14' - 28;
        UPDATE analytics.day SET ledger_entries = NULL WHERE NOT merged";
    database.execute(fewer).await;
    roll_up(&mut database.admin, noon_after(0)).await;
    assert_correct(&database, noon_after(0)).await;
}

/// Reads the users of an address in pages of 70, which continue after the last row of the page before.
async fn assert_pages_list_users(database: &Database, ip: &str, users: usize) {
    let page = "SELECT user_id, logins, key
        FROM analytics.token_users(encode(sha256($1::text::bytea), 'hex'), $2, $3, 70)";
    let (mut listed, mut logins, mut key) = (Vec::new(), i64::MAX, String::new());
    loop {
        let rows = database.admin.query(page, &[&ip, &logins, &key]).await.unwrap();
        let Some(last) = rows.last() else { break };
        (logins, key) = (last.get("logins"), last.get("key"));
        listed.extend(rows.iter().map(|row| row.get::<_, String>("user_id")));
    }
    assert_eq!(listed.len(), users);
    assert_eq!(listed.iter().collect::<HashSet<_>>().len(), users);
}

/// Starts a roll-up, and returns when it waits at its end for a lock that `other` holds.
async fn start_blocked_roll_up(
    database: &Database,
    other: &Client,
) -> JoinHandle<Result<RollUp, SchemaError>> {
    other.batch_execute("BEGIN; LOCK TABLE analytics.rings IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let mut client = connect(superuser().dbname(&database.name)).await;
    let roll_up = tokio::spawn(async move {
        let deadline = Deadline::within(Duration::from_mins(5));
        analytics::roll_up(&mut client, "public", noon_after(0), LOGINS_PER_STEP, deadline).await
    });
    let waits = "SELECT FROM pg_locks WHERE relation = 'analytics.rings'::regclass AND NOT granted";
    while database.admin.query(waits, &[]).await.unwrap().is_empty() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    roll_up
}

#[tokio::test]
async fn batch_during_roll_up_is_not_lost() {
    let mut database = prepared().await;
    let ingest = database.ingest().await;
    invoke(&ingest, &batch([sent("a", 0, (1, 1, 1))])).await.unwrap();
    let open = connect(superuser().dbname(&database.name)).await;
    let uncommitted =
        "BEGIN; SELECT write_logins(ARRAY[timestamptz '2026-11-14'], ARRAY[gen_random_uuid()], ARRAY['open'],
        ARRAY['ios'], ARRAY[repeat('a', 64)], ARRAY[repeat('b', 64)], ARRAY['RU'], ARRAY[1], fingerprint)
        FROM salt_fingerprint";
    open.batch_execute(uncommitted).await.unwrap();
    let other = connect(superuser().dbname(&database.name)).await;
    let roll_up_task = start_blocked_roll_up(&database, &other).await;

    let written = invoke(&ingest, &batch([sent("b", 0, (2, 1, 1)), sent("c", 0, (3, 3, 3))])).await;
    let run = "SELECT run, (SELECT count(*) FROM analytics.token_user) FROM analytics.freshness";
    let row = database.admin.query_one(run, &[]).await.unwrap();
    open.batch_execute("COMMIT").await.unwrap();
    other.batch_execute("COMMIT").await.unwrap();
    let first = roll_up_task.await.unwrap().unwrap();
    let second = roll_up(&mut database.admin, noon_after(0)).await;

    assert_eq!(written, failures(&[]));
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (0, 0), "a reader sees a part of the roll-up");
    assert_eq!([first, second], [RollUp { days: 1, days_left: 0 }; 2]);
    assert_correct(&database, noon_after(0)).await;
}

#[tokio::test]
async fn killed_roll_up_changes_nothing() {
    let mut database = prepared().await;
    insert_old_rows(&database).await;
    let other = connect(superuser().dbname(&database.name)).await;
    let roll_up_task = start_blocked_roll_up(&database, &other).await;

    let kill = "SELECT pg_terminate_backend(pid, 5000) FROM pg_locks
                WHERE relation = 'analytics.rings'::regclass AND NOT granted";
    database.admin.execute(kill, &[]).await.unwrap();
    other.batch_execute("COMMIT").await.unwrap();
    let killed = roll_up_task.await.unwrap();
    let rows =
        "SELECT (SELECT count(*) FROM analytics.token_user) + (SELECT count(*) FROM analytics.daily) + run
                FROM analytics.freshness";
    let left: i64 = database.admin.query_one(rows, &[]).await.unwrap().get(0);
    roll_up(&mut database.admin, noon_after(0)).await;

    assert!(killed.is_err(), "{killed:?}");
    assert_eq!(left, 0);
    assert_correct(&database, noon_after(0)).await;
}

#[tokio::test]
async fn concurrent_roll_ups_count_nothing_twice() {
    let database = prepared().await;
    insert_old_rows(&database).await;
    let mut clients = [
        connect(superuser().dbname(&database.name)).await,
        connect(superuser().dbname(&database.name)).await,
    ];
    let [one, two] = &mut clients;

    tokio::join!(roll_up_at(one, noon_after(0), 100), roll_up_at(two, noon_after(0), 100));

    assert_correct(&database, noon_after(0)).await;
}

/// Only a clock that was wrong closes a day too early.
#[tokio::test]
async fn clock_that_was_ahead_loses_nothing() {
    let mut database = prepared().await;
    let ingest = database.ingest().await;
    invoke(&ingest, &batch([sent("a", 20, (1, 1, 1))])).await.unwrap();

    roll_up(&mut database.admin, noon_after(60)).await;
    invoke(&ingest, &batch([sent("b", 20, (2, 1, 1))])).await.unwrap();
    roll_up(&mut database.admin, noon_after(21)).await;

    assert_correct(&database, noon_after(21)).await;
}

#[tokio::test]
async fn unchanged_logins_keep_the_run() {
    let mut database = prepared().await;
    insert_old_rows(&database).await;
    let run = "SELECT run FROM analytics.freshness";

    let first = roll_up(&mut database.admin, noon_after(0)).await;
    let after_first: i64 = database.admin.query_one(run, &[]).await.unwrap().get(0);
    let second = roll_up(&mut database.admin, noon_after(0)).await;
    let after_second: i64 = database.admin.query_one(run, &[]).await.unwrap().get(0);

    assert!(first.days > 0);
    assert_eq!(second, RollUp { days: 0, days_left: 0 });
    assert_eq!((after_first, after_second), (1, 1));
}

#[tokio::test]
async fn merged_day_cannot_be_counted_again() {
    let mut database = prepared().await;
    insert_old_rows(&database).await;
    roll_up(&mut database.admin, noon_after(0)).await;

    let refused =
        database.admin.batch_execute("UPDATE analytics.day SET ledger_entries = NULL WHERE merged").await;

    let error = refused.unwrap_err();
    let constraint = error.as_db_error().unwrap().constraint();
    assert_eq!(constraint, Some("drop_the_schema_to_redo_a_day_before_the_last_28"));
}

#[tokio::test]
async fn reader_only_reads_the_analysts_schema() {
    let mut database = Database::create().await;
    // Default privileges would let the role plant triggers.
    let name = database.name.clone();
    database.execute(&format!("ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO PUBLIC, {name}")).await;
    analytics::create(&mut database.admin, "public").await.unwrap();

    let rights = format!(
        "SELECT role, privilege, count(*) FILTER (WHERE has_table_privilege(role, pg_class.oid, privilege)) = count(*),
             bool_or(has_table_privilege(role, pg_class.oid, privilege))
         FROM pg_class, unnest('{{login_reader, login_writer, {name}}}'::name[]) AS role,
             unnest('{{SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER}}'::text[]) AS privilege
         WHERE relnamespace = 'analytics'::regnamespace AND relkind IN ('r', 'v')
         GROUP BY 1, 2 HAVING bool_or(has_table_privilege(role, pg_class.oid, privilege))
         UNION ALL
         SELECT role, 'EXECUTE', bool_and(has_function_privilege(role, pg_proc.oid, 'EXECUTE')), true
         FROM pg_proc, unnest('{{login_reader, login_writer, {name}}}'::name[]) AS role
         WHERE pronamespace = 'analytics'::regnamespace
         GROUP BY 1 HAVING bool_or(has_function_privilege(role, pg_proc.oid, 'EXECUTE'))
         ORDER BY 2"
    );
    let rights = database.admin.query(&rights, &[]).await.unwrap();
    let rights: Vec<(String, bool)> = rights
        .iter()
        .map(|row| (format!("{} {}", row.get::<_, String>(0), row.get::<_, String>(1)), row.get(2)))
        .collect();
    let schema = format!(
        "SELECT has_schema_privilege('login_reader', 'analytics', 'USAGE'),
             has_schema_privilege('login_reader', 'analytics', 'CREATE'),
             has_schema_privilege('login_writer', 'analytics', 'USAGE'), has_schema_privilege('{name}', 'analytics', 'USAGE')"
    );
    let schema = database.admin.query_one(&schema, &[]).await.unwrap();

    assert_eq!(rights, ["EXECUTE", "SELECT"].map(|right| (format!("login_reader {right}"), true)));
    let schema: [bool; 4] = std::array::from_fn(|index| schema.get(index));
    assert_eq!(schema, [true, false, false, false]);
}

#[tokio::test]
async fn every_view_table_and_function_has_a_comment() {
    let database = prepared().await;
    let sql = "SELECT relname::text FROM pg_class
               WHERE relnamespace = 'analytics'::regnamespace AND relkind IN ('r', 'v')
                   AND obj_description(oid, 'pg_class') IS NULL
               UNION ALL
               SELECT proname::text FROM pg_proc
               WHERE pronamespace = 'analytics'::regnamespace AND obj_description(oid, 'pg_proc') IS NULL";

    let without = database.admin.query(sql, &[]).await.unwrap();

    assert!(without.is_empty());
}

#[tokio::test]
async fn schema_that_cannot_be_trusted_is_refused() {
    let marked = "CREATE SCHEMA analytics; COMMENT ON SCHEMA analytics IS 'login-etl rollups, version 2'";
    let cases = [
        ("CREATE SCHEMA analytics AUTHORIZATION {owner}".to_owned(), "the schema analytics exists, and owner has not made"),
        (format!("{marked}; ALTER SCHEMA analytics OWNER TO {{other}}"), "the schema analytics exists, and owner has not made"),
        (
            format!("{marked}; ALTER SCHEMA analytics OWNER TO {{owner}}; GRANT CREATE ON SCHEMA analytics TO {{other}}"),
            "other may create objects in the schema analytics, and could use this to act as owner",
        ),
        (
            format!(
                "{marked}; CREATE TABLE analytics.state (run bigint); ALTER TABLE analytics.state OWNER TO {{owner}};
                 GRANT TRIGGER ON analytics.state TO {{other}}; ALTER SCHEMA analytics OWNER TO {{owner}}"
            ),
            "other may create triggers on ",
        ),
        (
            format!(
                "{marked}; CREATE FUNCTION analytics.length(text) RETURNS integer LANGUAGE sql AS 'SELECT 64';
                 ALTER FUNCTION analytics.length(text) OWNER TO {{other}}; ALTER SCHEMA analytics OWNER TO {{owner}}"
            ),
            "other owns analytics.length(text)",
        ),
        ("ALTER DATABASE {database} OWNER TO {other}".to_owned(), "owner may not create the schema analytics"),
        (
            "ALTER DATABASE {database} OWNER TO {other}; GRANT CREATE ON DATABASE {database} TO {owner};
             REVOKE TEMPORARY ON DATABASE {database} FROM PUBLIC"
                .to_owned(),
            "owner may not create temporary tables: GRANT TEMPORARY ON DATABASE",
        ),
        ("ALTER TABLE user_logins ENABLE ROW LEVEL SECURITY".to_owned(), "row security is on for public.user_logins"),
        ("REVOKE SELECT ON user_logins FROM login_reader".to_owned(), "login_reader may not read public.user_logins"),
    ];
    assert_refusals(&cases, analytics::create).await;
}

/// A policy that hides rows from the owner would make the counts wrong.
#[tokio::test]
async fn forced_row_security_fails_the_roll_up() {
    let name = create(&case("", "")).await;
    let mut owner = owner(&name).await;
    schema::migrate(&mut owner, "public", &WriterLogin::Unchanged).await.unwrap();
    analytics::create(&mut owner, "public").await.unwrap();
    let force =
        "ALTER TABLE user_logins ENABLE ROW LEVEL SECURITY; ALTER TABLE user_logins FORCE ROW LEVEL SECURITY";
    owner.batch_execute(force).await.unwrap();

    let deadline = Deadline::within(Duration::from_mins(1));
    let refusal = analytics::roll_up(&mut owner, "public", noon_after(0), LOGINS_PER_STEP, deadline).await;

    let text = "Postgres refused a statement of the roll-up, SQLSTATE 42501";
    assert_eq!(refusal.unwrap_err().to_string(), text);
}

/// Returns the SQL of a section of docs/analysts.md, statement by statement.
fn statements(section: &str) -> Vec<&'static str> {
    let document = include_str!("../../docs/analysts.md");
    let (_, rest) = document.split_once(&format!("\n## {section}\n")).unwrap();
    let section = rest.split("\n## ").next().unwrap();
    let blocks = section.split("\n```sql\n").skip(1).map(|block| block.split("\n```").next().unwrap());
    blocks.flat_map(|block| block.split(';')).filter(|statement| !statement.trim().is_empty()).collect()
}

#[tokio::test]
async fn statements_of_the_document_run() {
    let mut database = prepared().await;
    insert_old_rows(&database).await;
    roll_up(&mut database.admin, noon_after(0)).await;

    for statement in statements("SQL views") {
        database.execute("SET ROLE login_reader").await;
        let rows = database.admin.query(statement, &[]).await.unwrap();
        database.execute("RESET ROLE").await;
        assert!(!rows.is_empty(), "{statement}");
    }
    for statement in statements("Indexes").into_iter().chain(statements("How fresh the answers are")) {
        database.execute(statement).await;
    }
    analytics::create(&mut database.admin, "public").await.unwrap();
    roll_up(&mut database.admin, noon_after(0)).await;

    assert_correct(&database, noon_after(0)).await;
}

/// The owner deletes the rows of a person, and has the counts made anew.
#[tokio::test]
async fn deleted_person_is_not_counted_anew() {
    let mut database = prepared().await;
    insert_old_rows(&database).await;
    roll_up(&mut database.admin, noon_after(0)).await;

    database.execute("DELETE FROM user_logins WHERE user_id = 'user-1'; DROP SCHEMA analytics CASCADE").await;
    analytics::create(&mut database.admin, "public").await.unwrap();
    roll_up(&mut database.admin, noon_after(0)).await;

    assert_correct(&database, noon_after(0)).await;
}
