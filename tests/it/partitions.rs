//! The partitions of `user_logins`: the writer and the roll-ups work on them as on a plain table, days are added ahead
//! of time, and old days are dropped when nothing needs them any more.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use login_etl::analytics::{self, LOGINS_PER_STEP};
use login_etl::deadline::Deadline;
use login_etl::handler::Ingest;
use login_etl::lake;
use login_etl::partitions::{self, DroppedLogins};
use login_etl::schema::{self, WriterLogin};
use serde_json::Value;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::support::{
    Database, batch, body, connect, failures, invoke, login, record, superuser, unique_name,
};

const DAY: Duration = Duration::from_hours(24);

/// The table as the first migration alone creates it, and as users have it.
const PLAIN_TABLE: &str = include_str!("../../migrations/V1__user_logins.sql");

/// Creates a database with the partitions of today.
async fn prepared() -> Database {
    let mut database = Database::create().await;
    add_days(&mut database, SystemTime::now()).await;
    database
}

async fn add_days(database: &mut Database, now: SystemTime) {
    let finding = partitions::add_days(&mut database.admin, "public", now).await.unwrap();
    assert_eq!(finding, None);
}

async fn drop_old(database: &mut Database, keep_days: u16) -> DroppedLogins {
    partitions::drop_old(&mut database.admin, "public", keep_days, SystemTime::now()).await.unwrap()
}

fn days_ago(days: u32) -> SystemTime {
    SystemTime::now() - DAY * days
}

/// Returns a record whose message was sent some days ago.
fn sent_days_ago(days: u32, user: &str) -> Value {
    let mut record = login(user, user);
    let sent_at = days_ago(days).duration_since(UNIX_EPOCH).unwrap().as_millis();
    record["attributes"]["SentTimestamp"] = sent_at.to_string().into();
    record
}

/// Returns the names of the partitions, with the end of the names of days as the days from today.
async fn names(admin: &Client) -> Vec<String> {
    let sql = "SELECT CASE WHEN relname ~ '_[0-9]{4}_[0-9]{2}_[0-9]{2}$'
                   THEN (to_date(right(relname, 10), 'YYYY_MM_DD') - (now() AT TIME ZONE 'UTC')::date)::text
                   ELSE relname::text END
               FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
               WHERE inhparent = 'user_logins'::regclass ORDER BY pg_class.relname";
    admin.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

/// Returns the user ids with the partition of each: its day from today, or `other`.
async fn places(admin: &Client) -> Vec<(String, String)> {
    let sql = "SELECT user_id, CASE tableoid::regclass::text WHEN 'user_logins_other' THEN 'other'
                   ELSE (to_date(right(tableoid::regclass::text, 10), 'YYYY_MM_DD')
                       - (now() AT TIME ZONE 'UTC')::date)::text END
               FROM user_logins ORDER BY user_id COLLATE \"C\"";
    admin.query(sql, &[]).await.unwrap().iter().map(|row| (row.get(0), row.get(1))).collect()
}

fn place(user: &str, partition: &str) -> (String, String) {
    (user.to_owned(), partition.to_owned())
}

fn problems(dropped: &DroppedLogins) -> Vec<&str> {
    dropped.warnings.iter().map(|warning| &*warning.problem).collect()
}

#[tokio::test]
async fn new_table_has_a_month_of_days() {
    let mut database = prepared().await;
    add_days(&mut database, SystemTime::now() + DAY).await;

    let names = names(&database.admin).await;
    let indexes = "SELECT tablename::text, indexdef FROM pg_indexes WHERE tablename LIKE 'user_logins%'";
    let indexes = database.admin.query(indexes, &[]).await.unwrap();

    let mut expected: Vec<String> = (-15..=15).map(|day| day.to_string()).collect();
    expected.push("user_logins_other".to_owned());
    assert_eq!(names, expected);
    assert_eq!(indexes.len(), 1);
    assert_eq!(indexes[0].get::<_, String>(0), "user_logins_other");
    assert!(indexes[0].get::<_, String>(1).contains("USING brin (create_date)"));
}

#[tokio::test]
async fn each_row_is_written_once_to_its_day() {
    let database = prepared().await;
    let ingest = database.ingest().await;
    let event = batch([
        sent_days_ago(0, "today"),
        sent_days_ago(1, "yesterday"),
        sent_days_ago(13, "late"),
        sent_days_ago(40, "before"),
    ]);

    let first = invoke(&ingest, &event).await;
    let again = invoke(&ingest, &event).await;
    database.execute("INSERT INTO user_logins (user_id) VALUES ('without day')").await;

    assert_eq!([first, again], [failures(&[]), failures(&[])]);
    let expected =
        [("before", "other"), ("late", "-13"), ("today", "0"), ("without day", "other"), ("yesterday", "-1")];
    assert_eq!(places(&database.admin).await, expected.map(|(user, partition)| place(user, partition)));
}

/// What the owner adds to the table, each with the user whose row it refuses.
const REFUSALS: [&str; 4] = [
    "ALTER TABLE user_logins ADD UNIQUE (user_id, create_date) DEFERRABLE INITIALLY DEFERRED",
    "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
     BEGIN
         IF NEW.user_id LIKE 'taken%' THEN RAISE EXCEPTION USING ERRCODE = 'ZX001'; END IF;
         RETURN NEW;
     END $$;
     CREATE TRIGGER refuse BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION refuse()",
    "ALTER TABLE user_logins ENABLE ROW LEVEL SECURITY;
     CREATE POLICY refuse ON user_logins FOR INSERT WITH CHECK (user_id NOT LIKE 'taken%')",
    "ALTER TABLE user_logins ADD CHECK (user_id NOT LIKE 'taken%')",
];

#[tokio::test]
async fn refused_rows_fail_alone_on_each_day() {
    for refusal in REFUSALS {
        let mut database = Database::create().await;
        // The owner's objects are older than some partitions, and newer than the others.
        add_days(&mut database, days_ago(20)).await;
        let day = "INSERT INTO user_logins (user_id, create_date)
                   SELECT 'taken ' || age, (now() AT TIME ZONE 'UTC')::date - age FROM unnest('{0, 12}'::int[]) AS age";
        let rows = if refusal.contains("UNIQUE") { day } else { "" };
        database.execute(refusal).await;
        add_days(&mut database, SystemTime::now()).await;
        database.execute(rows).await;
        let ingest = database.ingest().await;

        let answer = invoke(
            &ingest,
            &batch([
                sent_days_ago(12, "free 12"),
                record_of("taken-12", 12, "taken 12"),
                sent_days_ago(0, "free 0"),
                record_of("taken-0", 0, "taken 0"),
                sent_days_ago(50, "free 50"),
            ]),
        )
        .await;

        assert_eq!(answer, failures(&["taken-12", "taken-0"]), "{refusal}");
        let places = places(&database.admin).await;
        let written: Vec<_> = places.iter().filter(|(user, _)| user.starts_with("free")).collect();
        assert_eq!(
            written,
            [&place("free 0", "0"), &place("free 12", "-12"), &place("free 50", "other")],
            "{refusal}"
        );
    }
}

/// Returns a record with this id.
fn record_of(id: &str, days: u32, user: &str) -> Value {
    let mut record = sent_days_ago(days, user);
    record["messageId"] = id.into();
    record
}

#[tokio::test]
async fn existing_table_is_left_as_it_is() {
    let foreign_partitions = "
        CREATE TABLE user_logins (user_id varchar(128), device_type varchar(32), masked_ip varchar(256),
            masked_device_id varchar(256), locale varchar(32), app_version integer, create_date date)
            PARTITION BY RANGE (create_date);
        CREATE TABLE user_logins_other PARTITION OF user_logins DEFAULT";
    for table in [PLAIN_TABLE, foreign_partitions] {
        let name = unique_name();
        connect(&superuser()).await.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
        let mut admin = connect(superuser().dbname(&name)).await;
        admin.batch_execute(table).await.unwrap();
        schema::migrate(&mut admin, "public", &WriterLogin::Unchanged).await.unwrap();
        let relations = "SELECT count(*) FROM pg_class WHERE relname LIKE 'user_logins%'";
        let before: i64 = admin.query_one(relations, &[]).await.unwrap().get(0);

        let added = partitions::add_days(&mut admin, "public", SystemTime::now()).await;
        let dropped = partitions::drop_old(&mut admin, "public", 16, SystemTime::now()).await;

        assert_eq!(added.unwrap(), None);
        let problem = "the database is not ready: \"public\".user_logins has no partitions of days, so \
                       LOGIN_RETENTION_DAYS can drop none: ";
        assert!(dropped.unwrap_err().to_string().starts_with(problem));
        assert_eq!(admin.query_one(relations, &[]).await.unwrap().get::<_, i64>(0), before);
    }
}

#[tokio::test]
async fn day_with_rows_in_other_stays_there() {
    let mut database = Database::create().await;
    let ingest = database.ingest().await;
    assert_eq!(invoke(&ingest, &batch([sent_days_ago(0, "first")])).await, failures(&[]));

    add_days(&mut database, SystemTime::now()).await;
    let answer = invoke(&ingest, &batch([sent_days_ago(0, "second"), sent_days_ago(1, "third")])).await;

    assert_eq!(answer, failures(&[]));
    let expected = [("first", "other"), ("second", "other"), ("third", "-1")];
    assert_eq!(places(&database.admin).await, expected.map(|(user, partition)| place(user, partition)));
    assert_eq!(names(&database.admin).await.len(), 30);
}

#[tokio::test]
async fn table_in_use_gets_its_days_later() {
    let mut database = Database::create().await;
    let reader = connect(superuser().dbname(&database.name)).await;
    let ingest = database.ingest().await;

    reader.batch_execute("BEGIN; SELECT FROM user_logins").await.unwrap();
    // A day without a partition, so that the batch waits with add_days for the reader.
    let event = batch([sent_days_ago(40, "a")]);
    let (all_missing, answer) = tokio::join!(
        partitions::add_days(&mut database.admin, "public", SystemTime::now()),
        invoke(&ingest, &event),
    );
    reader.batch_execute("COMMIT").await.unwrap();
    add_days(&mut database, SystemTime::now()).await;
    reader.batch_execute("BEGIN; SELECT FROM user_logins").await.unwrap();
    let in_a_week =
        partitions::add_days(&mut database.admin, "public", SystemTime::now() + DAY * 7).await.unwrap();
    let later = partitions::add_days(&mut database.admin, "public", SystemTime::now() + DAY * 8).await;

    let problem = "other transactions keep user_logins locked; end their sessions, and try again";
    assert_eq!(all_missing.unwrap_err().to_string(), problem);
    assert_eq!(answer, failures(&[]));
    let warning = "a day of user_logins has no partition yet, because another session uses the table";
    assert_eq!(in_a_week.unwrap().problem, warning);
    assert_eq!(later.unwrap_err().to_string(), problem);
    assert_eq!(names(&database.admin).await.len(), 31);
}

#[tokio::test]
async fn concurrent_runs_add_each_day_once() {
    let database = Database::create().await;
    let mut runs = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let mut client = connect(superuser().dbname(&database.name)).await;
        runs.spawn(
            async move { partitions::add_days(&mut client, "public", SystemTime::now()).await.unwrap() },
        );
    }

    let findings = runs.join_all().await;

    assert_eq!(findings, [None, None, None, None]);
    assert_eq!(names(&database.admin).await.len(), 31);
}

#[tokio::test]
async fn role_without_rights_gets_the_remedy() {
    let database = Database::create().await;
    let (name, server) = (&database.name, superuser());
    let owner = format!("{name}_owner");
    let role = format!(
        "REVOKE CREATE ON SCHEMA public FROM PUBLIC; CREATE ROLE {owner} LOGIN PASSWORD '{name}';
         ALTER TABLE user_logins_other OWNER TO {owner}"
    );
    database.execute(&role).await;
    let mut client = connect(superuser().user(&owner).password(name).dbname(name)).await;
    let mut findings = Vec::new();
    for remedy in [
        format!("ALTER TABLE user_logins OWNER TO {owner}"),
        format!("GRANT CREATE ON SCHEMA public TO {owner}"),
    ] {
        findings.push(partitions::add_days(&mut client, "public", SystemTime::now()).await.unwrap().unwrap());
        database.execute(&remedy).await;
    }

    let finding = partitions::add_days(&mut client, "public", SystemTime::now()).await.unwrap();

    let superuser = server.get_user().unwrap();
    let remedies =
        [format!("GRANT {superuser} TO {owner}"), format!("GRANT CREATE ON SCHEMA public TO {owner}")];
    assert_eq!(findings.iter().map(|finding| &*finding.remedy).collect::<Vec<_>>(), remedies);
    assert_eq!(finding, None);
    assert_eq!(names(&database.admin).await.len(), 31);
}

#[tokio::test]
async fn partitions_give_no_rights_of_their_own() {
    let name = unique_name();
    connect(&superuser()).await.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
    let mut admin = connect(superuser().dbname(&name)).await;
    let defaults = format!(
        "CREATE ROLE {name};
         ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO {name};
         ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC"
    );
    admin.batch_execute(&defaults).await.unwrap();

    schema::migrate(&mut admin, "public", &WriterLogin::Unchanged).await.unwrap();
    partitions::add_days(&mut admin, "public", SystemTime::now()).await.unwrap();
    // The next run would refuse the right to create triggers.
    schema::migrate(&mut admin, "public", &WriterLogin::Unchanged).await.unwrap();

    let sql = format!(
        "SELECT count(*) FROM pg_inherits,
             unnest('{{login_writer, login_reader, {name}}}'::name[]) AS role,
             unnest('{{SELECT, INSERT, UPDATE, DELETE, TRUNCATE, TRIGGER}}'::text[]) AS privilege
         WHERE inhparent = 'user_logins'::regclass AND has_table_privilege(role, inhrelid, privilege)"
    );
    let rights: i64 = admin.query_one(&sql, &[]).await.unwrap().get(0);
    assert_eq!(rights, 0);
    let refusal =
        admin.batch_execute("SET ROLE login_reader; SELECT FROM user_logins_other").await.unwrap_err();
    assert_eq!(refusal.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE));
}

/// Creates the partitions of 75 days, each with a row of its day, and two rows in `user_logins_other`.
async fn with_old_days() -> Database {
    let mut database = Database::create().await;
    let rows = "INSERT INTO user_logins (user_id, create_date)
                VALUES ('without day', NULL), ('before', (now() AT TIME ZONE 'UTC')::date - 100)";
    database.execute(rows).await;
    for days in [60, 30, 0] {
        add_days(&mut database, days_ago(days)).await;
    }
    let rows = "INSERT INTO user_logins (user_id, create_date)
                SELECT age::text, (now() AT TIME ZONE 'UTC')::date - age FROM generate_series(0, 75) AS age";
    database.execute(rows).await;
    database
}

async fn oldest_day(database: &Database) -> i32 {
    let sql = "SELECT max((now() AT TIME ZONE 'UTC')::date - create_date) FROM user_logins";
    database.admin.query_one(sql, &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn old_days_are_dropped() {
    let mut database = with_old_days().await;

    let dropped = drop_old(&mut database, 30).await;
    let repeated = drop_old(&mut database, 30).await;

    assert_eq!((dropped.partitions.len(), dropped.rows, problems(&dropped)), (45, 1, vec![]));
    assert_eq!((repeated.partitions.len(), repeated.rows, problems(&repeated)), (0, 0, vec![]));
    assert_eq!(oldest_day(&database).await, 30);
    assert_eq!(database.rows().await.len(), 32, "31 days, and the row without a day");
    assert_eq!(names(&database.admin).await.len(), 30 + 1 + 14 + 1);
}

#[tokio::test]
async fn one_wrong_clock_drops_nothing() {
    let mut database = with_old_days().await;
    let in_a_year = SystemTime::now() + DAY * 365;

    let dropped = partitions::drop_old(&mut database.admin, "public", 80, in_a_year).await.unwrap();
    let a_year_ago = partitions::drop_old(&mut database.admin, "public", 16, days_ago(365)).await.unwrap();

    assert_eq!((dropped.partitions.len(), dropped.rows), (0, 1));
    assert_eq!((a_year_ago.partitions.len(), a_year_ago.rows), (0, 0));
    assert_eq!(oldest_day(&database).await, 75);
}

#[tokio::test]
async fn days_stay_until_their_final_export() {
    let mut database = with_old_days().await;
    lake::create(&mut database.admin, "public").await.unwrap();
    let exports = "INSERT INTO lake.exports (day, closed, changed)
                   SELECT create_date, create_date < (now() AT TIME ZONE 'UTC')::date - 40, user_id = '60'
                   FROM user_logins WHERE user_id NOT IN ('without day', '75', '50')";
    database.execute(exports).await;

    let dropped = drop_old(&mut database, 30).await;
    database.execute("UPDATE lake.exports SET closed = true, changed = false").await;
    let later = drop_old(&mut database, 30).await;

    // Not exported, changed since, or not final.
    let mut kept: Vec<u32> = [75, 60, 50].into_iter().chain((31..=40).rev()).collect();
    assert_eq!(
        (dropped.partitions.len(), dropped.rows, dropped.warnings.len()),
        (45 - kept.len(), 1, kept.len())
    );
    for warning in &dropped.warnings {
        let reason = "has 1 old day(s) without a final export or a closed roll-up, the first of them ";
        assert!(warning.problem.contains(reason), "{warning}");
    }
    kept.retain(|day| *day == 75 || *day == 50);
    assert_eq!((later.partitions.len(), later.warnings.len()), (11, kept.len()));
    assert_eq!(oldest_day(&database).await, 75);
}

#[tokio::test]
async fn days_stay_until_their_roll_up_is_closed() {
    let mut database = with_old_days().await;
    analytics::create(&mut database.admin, "public").await.unwrap();

    let before = drop_old(&mut database, 30).await;
    let deadline = Deadline::within(Duration::from_mins(1));
    let now = SystemTime::now();
    analytics::roll_up(&mut database.admin, "public", now, LOGINS_PER_STEP, deadline).await.unwrap();
    database.execute("UPDATE analytics.day SET closed = false WHERE day < now()::date - 70").await;
    let after = drop_old(&mut database, 30).await;
    let counts = "SELECT count(*) FROM analytics.daily WHERE dimension = 'all'";
    let counted: i64 = database.admin.query_one(counts, &[]).await.unwrap().get(0);
    let deadline = Deadline::within(Duration::from_mins(1));
    analytics::roll_up(&mut database.admin, "public", now, LOGINS_PER_STEP, deadline).await.unwrap();

    assert_eq!((before.partitions.len(), before.rows), (0, 0));
    assert!(before.warnings.len() > 40);
    assert!((39..=41).contains(&after.partitions.len()), "{after:?}");
    assert!(after.warnings.len() >= 4);
    let counted_again: i64 = database.admin.query_one(counts, &[]).await.unwrap().get(0);
    assert_eq!((counted, counted_again), (77, 77), "a dropped day keeps its counts");
}

#[tokio::test]
async fn schema_of_others_keeps_nothing() {
    let mut database = with_old_days().await;
    database.execute("CREATE SCHEMA lake; CREATE TABLE lake.exports (id int)").await;

    let dropped = drop_old(&mut database, 70).await;

    assert_eq!((dropped.partitions.len(), problems(&dropped)), (5, vec![]));
}

#[tokio::test]
async fn partition_that_a_view_needs_stays() {
    let mut database = with_old_days().await;
    let view =
        "DO $$ BEGIN EXECUTE (SELECT 'CREATE VIEW march AS SELECT * FROM ' || min(inhrelid::regclass::text)
                FROM pg_inherits WHERE inhparent = 'user_logins'::regclass); END $$";
    database.execute(view).await;

    let dropped = drop_old(&mut database, 70).await;

    assert_eq!(dropped.partitions.len(), 4);
    assert!(dropped.warnings[0].problem.ends_with(" is old, and other objects depend on it"));
    assert_eq!(oldest_day(&database).await, 75);
}

#[tokio::test]
async fn long_query_delays_retention_but_no_batch() {
    let mut database = with_old_days().await;
    let ingest = database.ingest().await;
    let reader = connect(superuser().dbname(&database.name)).await;
    reader.batch_execute("BEGIN; SELECT FROM user_logins").await.unwrap();
    let writing = async {
        for number in 0..20 {
            let answer = invoke(&ingest, &batch([sent_days_ago(0, &format!("new {number}"))])).await;
            assert_eq!(answer, failures(&[]));
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };

    let (dropped, ()) =
        tokio::join!(partitions::drop_old(&mut database.admin, "public", 74, SystemTime::now()), writing);
    reader.batch_execute("COMMIT").await.unwrap();

    let dropped = dropped.unwrap();
    assert_eq!(dropped.partitions, [""; 0]);
    assert!(dropped.warnings[0].problem.ends_with("because other sessions use the table"), "{dropped:?}");
    assert_eq!(drop_old(&mut database, 74).await.partitions.len(), 1);
}

/// Writes batches until `done` is true, each with a new message of each of some days, and repeats one of them.
async fn write_until(ingest: &Ingest, prefix: &str, done: &std::cell::Cell<bool>) -> usize {
    let mut written = 0;
    while !done.get() {
        let records: Vec<Value> = [0, 1, 13, 30]
            .map(|days| {
                record_of(&format!("{prefix}-{written}-{days}"), days, &format!("{prefix} {written} {days}"))
            })
            .into();
        let event = batch(records);
        assert_eq!(invoke(ingest, &event).await, failures(&[]));
        if written % 3 == 0 {
            assert_eq!(invoke(ingest, &event).await, failures(&[]));
        }
        written += 1;
    }
    written * 4
}

#[tokio::test]
async fn batches_lose_nothing_while_days_come_and_go() {
    let mut database = prepared().await;
    let (first, second) = (database.ingest().await, database.ingest().await);
    let done = std::cell::Cell::new(false);
    let maintenance = async {
        for round in 0..5 {
            add_days(&mut database, days_ago(80 + 30 * round)).await;
            add_days(&mut database, SystemTime::now() + DAY * round).await;
            let dropped = drop_old(&mut database, 60).await;
            assert_eq!((dropped.partitions.len(), problems(&dropped)), (30, vec![]));
        }
        done.set(true);
    };

    let ((), one, two) =
        tokio::join!(maintenance, write_until(&first, "a", &done), write_until(&second, "b", &done));

    let users = database.user_ids().await;
    assert_eq!(users.len(), one + two);
    let mut different = users.clone();
    different.dedup();
    assert_eq!(different.len(), users.len());
}

/// Returns the SQL blocks of a section of docs/operations.md.
fn statements(section: &str) -> Vec<String> {
    let document = include_str!("../../docs/operations.md");
    let (_, rest) = document.split_once(&format!("\n### {section}\n")).unwrap();
    let section = rest.split("\n## ").next().unwrap();
    let blocks = section.split("```sql\n").skip(1).map(|block| block.split("```").next().unwrap());
    blocks.map(ToOwned::to_owned).collect()
}

#[tokio::test]
async fn existing_table_moves_as_documented() {
    let name = unique_name();
    connect(&superuser()).await.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
    let mut admin = connect(superuser().dbname(&name)).await;
    let columns = "ALTER TABLE user_logins ADD note text DEFAULT 'kept', ADD CHECK (user_id <> 'bad')";
    let rows = "INSERT INTO user_logins (user_id, create_date)
                    SELECT 'old ' || age, (now() AT TIME ZONE 'UTC')::date - age FROM generate_series(0, 99) AS age;
                INSERT INTO user_logins (user_id, create_date)
                    VALUES ('without day', NULL), ('future', (now() AT TIME ZONE 'UTC')::date + 300)";
    admin.batch_execute(&format!("{PLAIN_TABLE}; {columns}; {rows}")).await.unwrap();
    schema::migrate(&mut admin, "public", &WriterLogin::Unchanged).await.unwrap();
    let role = format!("CREATE ROLE {name} LOGIN PASSWORD '{name}' IN ROLE login_writer");
    admin.batch_execute(&role).await.unwrap();
    let switch = "SELECT ((now() AT TIME ZONE 'UTC')::date + 2)::text";
    let switch: String = admin.query_one(switch, &[]).await.unwrap().get(0);
    let mut database = Database { name, admin };
    let ingest = database.ingest().await;
    let done = std::cell::Cell::new(false);
    let moving = async {
        for block in statements("Move an existing table to partitions") {
            assert!(block.contains("2026-12-01") || block.contains("DROP SCHEMA"), "{block}");
            database.execute(&block.replace("2026-12-01", &switch)).await;
        }
        schema::migrate(&mut database.admin, "public", &WriterLogin::Unchanged).await.unwrap();
        add_days(&mut database, SystemTime::now()).await;
        done.set(true);
    };

    let ((), written) = tokio::join!(moving, write_until(&ingest, "new", &done));
    let refused =
        invoke(&ingest, &batch([record("bad", body("bad").to_string()), login("good", "good")])).await;
    let dropped = drop_old(&mut database, 16).await;

    assert_eq!(refused, failures(&["bad"]));
    assert_eq!(problems(&dropped), [""; 0]);
    assert_eq!(database.user_ids().await.len(), 102 + written + 1);
    let other = "SELECT user_id::text FROM user_logins_other ORDER BY 1";
    let other: Vec<String> =
        database.admin.query(other, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
    assert_eq!(other, ["future", "without day"]);
    let mut expected: Vec<String> = (2..=14).map(|day| day.to_string()).collect();
    expected.extend(["user_logins_earlier", "user_logins_other"].map(ToOwned::to_owned));
    assert_eq!(names(&database.admin).await, expected);
    let left = "SELECT count(*) FROM pg_constraint WHERE conname = 'earlier_days'";
    assert_eq!(database.admin.query_one(left, &[]).await.unwrap().get::<_, i64>(0), 0);
}

#[tokio::test]
async fn moved_table_is_dropped_when_entirely_old() {
    let mut database = Database::create().await;
    let earlier = "CREATE TABLE user_logins_earlier (LIKE user_logins);
                   INSERT INTO user_logins_earlier (user_id, create_date)
                       SELECT age::text, (now() AT TIME ZONE 'UTC')::date - age FROM generate_series(40, 90) AS age;
                   DO $$ BEGIN
                       EXECUTE format('ALTER TABLE user_logins ATTACH PARTITION user_logins_earlier
                           FOR VALUES FROM (MINVALUE) TO (%L)', (now() AT TIME ZONE 'UTC')::date - 39);
                   END $$";
    database.execute(earlier).await;
    lake::create(&mut database.admin, "public").await.unwrap();
    let all_but_one =
        "INSERT INTO lake.exports (day, closed) SELECT create_date, user_id <> '66' FROM user_logins";
    database.execute(all_but_one).await;

    let too_new = drop_old(&mut database, 40).await;
    let not_exported = drop_old(&mut database, 39).await;
    database.execute("UPDATE lake.exports SET closed = true").await;
    let dropped = drop_old(&mut database, 39).await;

    assert_eq!((too_new.partitions.len(), problems(&too_new)), (0, vec![]));
    assert!(
        problems(&not_exported)[0].starts_with("user_logins_earlier has 1 old day(s) without a final export")
    );
    assert_eq!(dropped.partitions, ["user_logins_earlier"]);
    assert_eq!(database.rows().await, [""; 0]);
}

#[tokio::test]
async fn table_in_another_schema_is_partitioned_too() {
    let name = unique_name();
    connect(&superuser()).await.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
    let mut admin = connect(superuser().dbname(&name)).await;
    admin.batch_execute("CREATE SCHEMA \"My Logins\"; SET datestyle = 'SQL, DMY'").await.unwrap();
    let schema = "My Logins";
    schema::migrate(&mut admin, schema, &WriterLogin::Unchanged).await.unwrap();
    for days in [40, 0] {
        assert_eq!(partitions::add_days(&mut admin, schema, days_ago(days)).await.unwrap(), None);
    }
    let rows = "INSERT INTO \"My Logins\".user_logins (user_id, create_date)
                SELECT age::text, (now() AT TIME ZONE 'UTC')::date - age FROM generate_series(0, 60) AS age";
    admin.batch_execute(rows).await.unwrap();

    let dropped = partitions::drop_old(&mut admin, schema, 20, SystemTime::now()).await.unwrap();

    let left: i64 =
        admin.query_one("SELECT count(*) FROM \"My Logins\".user_logins", &[]).await.unwrap().get(0);
    assert_eq!((problems(&dropped), left), (vec![], 21));
}

#[tokio::test]
async fn query_of_one_day_reads_one_partition() {
    let database = prepared().await;
    let today = "(now() AT TIME ZONE 'UTC')::date";
    let from_a_table = format!("create_date::date = (SELECT {today} - 3)");
    for condition in [format!("create_date = {today}"), from_a_table] {
        let explain = format!("EXPLAIN (ANALYZE, TIMING OFF) SELECT FROM user_logins WHERE {condition}");

        let plan = database.admin.query(&explain, &[]).await.unwrap();

        let lines = plan.iter().map(|row| row.get::<_, String>(0));
        let scans = lines.filter(|line| line.contains(" on user_logins") && !line.contains("never executed"));
        assert_eq!(scans.count(), 1, "{condition}");
    }
}
