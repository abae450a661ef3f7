//! A later salt replaces every token, and loses none.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use login::pii::{DeviceId, Field, Ip, Masker, Pii, Salts};
use login_etl::analytics::{self, LOGINS_PER_STEP};
use login_etl::deadline::Deadline;
use login_etl::handler::Ingest;
use login_etl::lake;
use login_etl::partitions;
use login_etl::resalt::{self, Resalted};
use login_etl::schema::SchemaError;
use serde_json::Value;
use tokio_postgres::Client;

use crate::existing_databases::{assert_refusals, case, create, owner};
use crate::support::{
    Database, SALT, batch, body, connect, error_type, failures, invoke, login, record, store_with, superuser,
};
use crate::vault_support::{Login, Vault, hex};

const LATER_SALT: &str = "a later salt: 0123456789abcdefghij";
const LIMIT: Duration = Duration::from_mins(2);

/// The first two users share a device.
const LOGINS: [Login<'static>; 3] = [
    Login { user: "a", ip: 1, device: 10 },
    Login { user: "b", ip: 2, device: 10 },
    Login { user: "b", ip: 3, device: 11 },
];

fn salts() -> Salts {
    Salts::new(SALT.into(), vec![LATER_SALT.into()])
}

/// Returns the maskers of both generations.
fn maskers() -> [Masker; 2] {
    salts().maskers().unwrap().try_into().unwrap()
}

/// Returns the new tokens by the old tokens, of all values that the tests send.
fn new_tokens() -> BTreeMap<String, String> {
    let ips = (0..200).map(ip).map(|ip| tokens::<Ip>(&ip));
    let devices = (0..200).map(device).map(|device| tokens::<DeviceId>(&device));
    ips.chain(devices).collect()
}

fn tokens<F: Field>(raw: &str) -> (String, String) {
    let token = |mut masker: Masker| masker.mask(&Pii::<F>::new(raw.into()).unwrap()).as_str().to_owned();
    let [first, later] = maskers();
    (token(first), token(later))
}

fn ip(number: u32) -> String {
    format!("192.0.2.{}", number % 200)
}

fn device(number: u32) -> String {
    format!("device {}", number % 200)
}

/// Returns a message with an address and a device of its own, which was sent some days ago.
fn sent_days_ago(days: u32, number: u32) -> Value {
    let mut body = body(&format!("user {number}"));
    body["ip"] = ip(number).into();
    body["device_id"] = device(number).into();
    let mut record = record(&format!("{days} {number}"), body.to_string());
    let sent_at = SystemTime::now() - Duration::from_hours(24) * days;
    let sent_at = sent_at.duration_since(UNIX_EPOCH).unwrap().as_millis();
    record["attributes"]["SentTimestamp"] = sent_at.to_string().into();
    record
}

async fn ingest_with(database: &Database, masker: Masker) -> Ingest {
    Ingest::new(masker, store_with(&[("DATABASE_URL", &database.url())]).await)
}

/// Writes logins of several days with the first salt. Today, two days before and the last day of a retention have
/// partitions.
async fn fill(database: &Database) -> Ingest {
    let add = "
        DO $$
        DECLARE
            today constant date := (now() AT TIME ZONE 'UTC')::date;
        BEGIN
            FOR days IN 0..3 LOOP
                EXECUTE format(
                    'CREATE TABLE %I PARTITION OF user_logins FOR VALUES FROM (%L) TO (%L)',
                    to_char(today - days * 10, '\"user_logins_\"YYYY_MM_DD'), today - days * 10, today - days * 10 + 1
                );
            END LOOP;
        END
        $$";
    database.execute(add).await;
    let [first, _] = maskers();
    let ingest = ingest_with(database, first).await;
    for days in [0, 3, 10, 30] {
        let event = batch((0..40).map(|number| sent_days_ago(days, number)));
        assert_eq!(invoke(&ingest, &event).await, failures(&[]));
    }
    ingest
}

async fn run(database: &Database) -> Result<Resalted, SchemaError> {
    run_within(database, LIMIT).await
}

async fn run_within(database: &Database, limit: Duration) -> Result<Resalted, SchemaError> {
    let [mut reader, mut writer] = [session(database).await, session(database).await];
    resalt::resalt(&mut reader, &mut writer, "public", &salts(), Deadline::within(limit)).await
}

async fn session(database: &Database) -> Client {
    connect(superuser().dbname(&database.name)).await
}

/// Returns the rows, each as a JSON text, with their tokens replaced.
fn resalted(rows: &[String]) -> Vec<String> {
    let new_tokens = new_tokens();
    let mut rows: Vec<_> = rows
        .iter()
        .map(|row| {
            let mut row: Value = serde_json::from_str(row).unwrap();
            for column in ["masked_ip", "masked_device_id"] {
                if let Some(new) = row[column].as_str().and_then(|old| new_tokens.get(old)) {
                    row[column] = new.clone().into();
                }
            }
            row.to_string()
        })
        .collect();
    rows.sort_unstable();
    rows
}

/// Returns the rows as [`resalted`] writes them.
fn as_they_are(rows: &[String]) -> Vec<String> {
    let mut rows: Vec<_> =
        rows.iter().map(|row| serde_json::from_str::<Value>(row).unwrap().to_string()).collect();
    rows.sort_unstable();
    rows
}

async fn texts(client: &Client, sql: &str) -> Vec<String> {
    client.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

async fn count(client: &Client, sql: &str) -> i64 {
    client.query_one(sql, &[]).await.unwrap().get(0)
}

/// All of the table's own objects, without object ids.
const OBJECTS: &str = "
    SELECT concat_ws(' ', relname, relkind, pg_get_expr(relpartbound, pg_class.oid), relacl, reloptions,
        obj_description(pg_class.oid, 'pg_class'), pg_get_indexdef(pg_class.oid),
        (SELECT string_agg(pg_get_constraintdef(oid), ' ') FROM pg_constraint WHERE conrelid = pg_class.oid),
        (SELECT string_agg(concat(tgname, tgenabled), ' ' ORDER BY tgname) FROM pg_trigger WHERE tgrelid = pg_class.oid))
    FROM pg_class
    WHERE relnamespace = 'public'::regnamespace AND (relname LIKE 'user_logins%' OR relname LIKE 'vault_sealed%')
    ORDER BY 1";

#[tokio::test]
async fn every_token_is_replaced() {
    let mut database = Database::create().await;
    let old = fill(&database).await;
    database.execute("INSERT INTO user_logins (user_id, masked_ip) VALUES ('by hand', 'no token')").await;
    let (before, objects) = (database.rows().await, texts(&database.admin, OBJECTS).await);

    let done = run(&database).await.unwrap();
    let again = run(&database).await.unwrap();

    assert_eq!(done, Resalted { done: true, rows: 161, parts_left: 0, others: 1 });
    assert_eq!(again, Resalted { done: true, ..Resalted::default() });
    assert_eq!(as_they_are(&database.rows().await), resalted(&before));
    assert_eq!(texts(&database.admin, OBJECTS).await, objects);
    assert_eq!(count(&database.admin, "SELECT count(*) FROM pg_namespace WHERE nspname = 'resalt'").await, 0);
    // A function that knows the first salt alone writes nothing; the other joins with the rows before.
    assert_eq!(error_type(&invoke(&old, &batch([login("x", "x")])).await), "SaltChanged");
    let [_, later] = maskers();
    let new = ingest_with(&database, later).await;
    assert_eq!(invoke(&new, &batch([sent_days_ago(0, 1000)])).await, failures(&[]));
    let shared = "SELECT count(*) FROM user_logins GROUP BY masked_ip HAVING count(*) = 5";
    assert_eq!(count(&database.admin, shared).await, 5);
    // Partitions are added and dropped as before.
    partitions::add_days(&mut database.admin, "public", SystemTime::now()).await.unwrap();
    let dropped = partitions::drop_old(&mut database.admin, "public", 16, SystemTime::now()).await.unwrap();
    assert_eq!(dropped.partitions.len(), 2, "{dropped:?}");
}

/// A table of the users' own: its triggers do not fire, and its other columns stay.
#[tokio::test]
async fn table_without_our_partitions_is_kept() {
    let database = Database::create().await;
    database
        .execute(
            "DROP TABLE user_logins CASCADE;
             CREATE TABLE user_logins (id bigint GENERATED ALWAYS AS IDENTITY, user_id varchar(128),
                 device_type varchar(32), masked_ip varchar(256), locale varchar(32), app_version integer,
                 create_date date, masked_device_id text, seen timestamptz DEFAULT now(),
                 user_length integer GENERATED ALWAYS AS (length(user_id)) STORED);
             GRANT INSERT, SELECT ON user_logins TO login_writer;
             CREATE INDEX ON user_logins (masked_ip);
             CREATE TABLE fired (what text);
             CREATE FUNCTION fire() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS
                 $$ BEGIN INSERT INTO fired VALUES (TG_OP); RETURN NEW; END $$;
             CREATE TRIGGER always BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION fire();
             ALTER TABLE user_logins ENABLE ALWAYS TRIGGER always;
             CREATE TRIGGER emptied BEFORE TRUNCATE ON user_logins EXECUTE FUNCTION fire();
             CREATE TRIGGER off BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION fire();
             ALTER TABLE user_logins DISABLE TRIGGER off;
             CREATE VIEW theirs AS SELECT masked_ip FROM user_logins",
        )
        .await;
    let [first, later] = maskers();
    let old = ingest_with(&database, first).await;
    assert_eq!(invoke(&old, &batch((0..40).map(|number| sent_days_ago(0, number)))).await, failures(&[]));
    let (before, objects) = (database.rows().await, texts(&database.admin, OBJECTS).await);
    let fired = count(&database.admin, "SELECT count(*) FROM fired").await;

    let done = run(&database).await.unwrap();

    assert_eq!((done.done, done.rows), (true, 40));
    assert_eq!(as_they_are(&database.rows().await), resalted(&before));
    assert_eq!(texts(&database.admin, OBJECTS).await, objects);
    assert_eq!((fired, count(&database.admin, "SELECT count(*) FROM fired").await), (40, 40));
    let new = ingest_with(&database, later).await;
    assert_eq!(invoke(&new, &batch([sent_days_ago(0, 50)])).await, failures(&[]));
    assert_eq!(count(&database.admin, "SELECT count(*) FROM theirs").await, 41);
}

#[tokio::test]
async fn sealed_values_keep_the_token_they_open_with() {
    let vault = Vault::create().await;
    vault.write_sealed(7, &LOGINS).await;
    vault.fold().await;
    vault.erase(3, true, false).await;
    vault.write_sealed(8, &LOGINS[..1]).await;
    vault.database.execute(&pin()).await;
    let objects = texts(&vault.database.admin, OBJECTS).await;

    run(&vault.database).await.unwrap();

    assert_eq!(texts(&vault.database.admin, OBJECTS).await, objects);
    let sealed = texts(
        &vault.database.admin,
        "SELECT encode(sealed_token, 'hex') FROM vault_sealed ORDER BY sealed_token",
    );
    assert_eq!(sealed.await, [1, 2, 10, 11].map(hex));
    let of_rows = "
        SELECT masked_ip FROM user_logins UNION SELECT masked_device_id FROM user_logins ORDER BY 1";
    let of_vault = "
        SELECT encode(token, 'hex') FROM vault_sealed UNION SELECT encode(token, 'hex') FROM vault_erased ORDER BY 1";
    let new = new_of(&[1, 2, 3, 10, 11]);
    assert_eq!(texts(&vault.database.admin, of_rows).await, new);
    assert_eq!(texts(&vault.database.admin, of_vault).await, new);
    // What is sealed now, is sealed beside the new tokens.
    let again = texts(&vault.database.admin, "SELECT vault_salt()").await;
    assert_eq!(again, [maskers()[1].salt_fingerprint().as_str()]);
}

/// Makes the first salt the accepted salt: the fixtures of the vault have none.
fn pin() -> String {
    format!("UPDATE salt_fingerprint SET fingerprint = '{}'", maskers()[0].salt_fingerprint().as_str())
}

/// Returns the new tokens of some tokens of the fixtures, sorted.
fn new_of(bytes: &[u8]) -> Vec<String> {
    let mut resalter = salts().resalter(&maskers()[0].salt_fingerprint()).unwrap().unwrap();
    let mut new: Vec<_> = bytes
        .iter()
        .map(|byte| {
            let digits = hex(*byte).into_bytes().try_into().unwrap();
            String::from_utf8(resalter.resalt(&digits).to_vec()).unwrap()
        })
        .collect();
    new.sort_unstable();
    new
}

#[tokio::test]
async fn rollups_and_lake_follow() {
    let mut vault = Vault::create().await;
    vault.write_sealed(7, &LOGINS).await;
    vault.database.execute(&pin()).await;
    let admin = &mut vault.database.admin;
    lake::create(admin, "public").await.unwrap();
    admin
        .batch_execute(
            "INSERT INTO lake.exports (day, exported_at) VALUES (now()::date, now()), ('2020-02-02', now())",
        )
        .await
        .unwrap();
    analytics::create(admin, "public").await.unwrap();
    let now = SystemTime::now();
    analytics::roll_up(admin, "public", now, LOGINS_PER_STEP, Deadline::within(LIMIT)).await.unwrap();
    let users = "SELECT concat_ws(' ', field, user_id, logins) FROM analytics.token_user ORDER BY 1";
    let (before, run_before) =
        (texts(admin, users).await, count(admin, "SELECT run FROM analytics.state").await);

    run(&vault.database).await.unwrap();

    let admin = &mut vault.database.admin;
    assert_eq!(texts(admin, users).await, before);
    assert_eq!(count(admin, "SELECT run FROM analytics.state").await, run_before + 1);
    let tokens = "SELECT DISTINCT token FROM analytics.token_user ORDER BY 1";
    assert_eq!(texts(admin, tokens).await, new_of(&[1, 2, 3, 10, 11]));
    assert_eq!(texts(admin, "SELECT ring FROM analytics.rings").await, new_of(&[10]));
    // The rows of the old day are gone, so it cannot be exported anew.
    assert_eq!(
        texts(admin, "SELECT day::text FROM lake.exports WHERE changed").await,
        texts(admin, "SELECT now()::date::text").await
    );
    let rolled_up = analytics::roll_up(admin, "public", now, LOGINS_PER_STEP, Deadline::within(LIMIT)).await;
    assert_eq!(rolled_up.unwrap().days, 0);
}

/// A run that is out of time copies at least one part. Rows that change later are noticed.
#[tokio::test]
async fn interrupted_run_is_continued() {
    let database = Database::create().await;
    let old = fill(&database).await;
    let mut left = Vec::new();
    for _ in 0..4 {
        let part = run_within(&database, Duration::ZERO).await.unwrap();
        assert!(!part.done);
        left.push(part.parts_left);
    }
    let change = "
        UPDATE user_logins SET locale = 'xx' WHERE user_id = 'user 1';
        DELETE FROM user_logins WHERE user_id = 'user 2';
        UPDATE user_logins SET masked_ip = NULL WHERE user_id = 'user 3'";
    database.execute(change).await;
    assert_eq!(invoke(&old, &batch([sent_days_ago(0, 77), sent_days_ago(3, 78)])).await, failures(&[]));
    let before = database.rows().await;

    let done = run(&database).await.unwrap();

    assert_eq!(left, [4, 3, 2, 1]);
    assert!(done.done);
    assert_eq!(as_they_are(&database.rows().await), resalted(&before));
    assert_eq!(before.len(), 158);
}

/// Batches are written all the time, also row by row, where each row has a savepoint; and the runs are killed.
#[tokio::test]
async fn no_row_is_lost_while_batches_are_written() {
    let database = Database::create().await;
    let old = fill(&database).await;
    database.execute("ALTER TABLE user_logins ADD CHECK (user_id <> 'refused')").await;
    let writing = tokio::spawn(async move {
        let mut written = 0;
        for number in 100.. {
            let refused = login(&format!("refused {number}"), "refused");
            let event =
                batch([sent_days_ago(number % 4, number), refused, sent_days_ago(0, number + 100_000)]);
            match invoke(&old, &event).await {
                Ok(_) => written += 2,
                Err(error) => {
                    assert_eq!(error.error_type, "SaltChanged");
                    return written;
                }
            }
        }
        unreachable!("the salt changes")
    });
    let kill = "
        SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
        WHERE datname = current_database() AND application_name = 'resalt'";
    let mut killed = 0;
    loop {
        let (name, wait) = (database.name.clone(), Duration::from_millis(40 + killed * 60));
        let resalting = tokio::spawn(async move {
            let config = || superuser().dbname(&name).application_name("resalt").clone();
            let [mut reader, mut writer] = [connect(&config()).await, connect(&config()).await];
            resalt::resalt(&mut reader, &mut writer, "public", &salts(), Deadline::within(LIMIT)).await
        });
        if killed < 8 {
            tokio::time::sleep(wait).await;
            database.admin.query(kill, &[]).await.unwrap();
            killed += 1;
        }
        if let Ok(Resalted { done: true, .. }) = resalting.await.unwrap() {
            break;
        }
    }
    let written = writing.await.unwrap();

    let rows = database.rows().await;
    assert_eq!(rows.len(), 160 + written);
    let new: Vec<_> = new_tokens().into_values().collect();
    let tokens = "
        SELECT masked_ip FROM user_logins UNION SELECT masked_device_id FROM user_logins";
    let old_ones: Vec<_> =
        texts(&database.admin, tokens).await.into_iter().filter(|token| !new.contains(token)).collect();
    assert_eq!(old_ones, [""; 0]);
    let doubled =
        "SELECT count(*) FROM (SELECT FROM user_logins GROUP BY user_id HAVING count(*) > 4) AS users";
    assert_eq!(count(&database.admin, doubled).await, 0);
}

#[tokio::test]
async fn two_runs_do_not_work_together() {
    let database = Database::create().await;
    fill(&database).await;
    run_within(&database, Duration::ZERO).await.unwrap();
    let other = session(&database).await;
    other.batch_execute("BEGIN; LOCK TABLE resalt.state IN SHARE ROW EXCLUSIVE MODE").await.unwrap();

    let busy = run(&database).await;
    other.batch_execute("ROLLBACK").await.unwrap();

    assert!(matches!(busy, Err(SchemaError::Busy)), "{busy:?}");
    assert!(run(&database).await.unwrap().done);
}

/// Whoever drops the schema of the copies gives the resalt up.
#[tokio::test]
async fn other_salts_are_refused() {
    let database = Database::create().await;
    let nothing = run(&database).await.unwrap_err().to_string();
    fill(&database).await;
    let before = database.rows().await;
    let resalt_with = async |salts: Salts, limit| {
        let [mut reader, mut writer] = [session(&database).await, session(&database).await];
        resalt::resalt(&mut reader, &mut writer, "public", &salts, Deadline::within(limit)).await
    };
    let unknown = resalt_with(Salts::new(LATER_SALT.into(), vec![SALT.into()]), LIMIT).await.unwrap_err();
    let other = "another later salt: 0123456789abcdefghij";
    resalt_with(Salts::new(SALT.into(), vec![other.into()]), Duration::ZERO).await.unwrap();
    let begun = run(&database).await.unwrap_err();
    database.execute("DROP SCHEMA resalt CASCADE").await;

    assert!(nothing.contains("no salt is accepted yet"), "{nothing}");
    assert!(unknown.to_string().contains("none of the salts in the secret"), "{unknown}");
    assert!(begun.to_string().contains("DROP SCHEMA \"resalt\" CASCADE"), "{begun}");
    assert_eq!(database.rows().await, before);
    assert!(run(&database).await.unwrap().done);
}

/// The owner is no superuser, and the schema needs quotes around its name.
#[tokio::test]
async fn owner_resalts_another_schema() {
    let name = create(&case("", "")).await;
    let [mut reader, mut writer] = [owner(&name).await, owner(&name).await];
    writer.batch_execute("CREATE SCHEMA \"Our Logins\"").await.unwrap();
    let unchanged = login_etl::schema::WriterLogin::Unchanged;
    login_etl::schema::migrate(&mut writer, "Our Logins", &unchanged).await.unwrap();
    let (old, new) = tokens::<Ip>(&ip(1));
    let rows = format!(
        "INSERT INTO \"Our Logins\".user_logins (masked_ip) VALUES ('{old}');
         INSERT INTO \"Our Logins\".salt_fingerprint (fingerprint) VALUES ('{}')",
        maskers()[0].salt_fingerprint().as_str()
    );
    writer.batch_execute(&rows).await.unwrap();

    let limit = Deadline::within(LIMIT);
    let done = resalt::resalt(&mut reader, &mut writer, "Our Logins", &salts(), limit).await.unwrap();

    assert!(done.done);
    assert_eq!(texts(&writer, "SELECT masked_ip FROM \"Our Logins\".user_logins").await, [new]);
}

#[tokio::test]
async fn tables_that_cannot_be_replaced_are_refused() {
    let pinned = pin().replace(
        "UPDATE salt_fingerprint SET fingerprint =",
        "INSERT INTO salt_fingerprint (fingerprint) SELECT",
    );
    let cases = [
        (
            format!("{pinned}; CREATE RULE rule AS ON DELETE TO user_logins_other DO INSTEAD NOTHING"),
            "the rule rule of public.user_logins_other could change the rows",
        ),
        (
            format!(
                "{pinned}; ALTER TABLE user_logins_other ADD UNIQUE (user_id);
                 CREATE TABLE refers (user_id varchar(128) REFERENCES user_logins_other (user_id))"
            ),
            "the table public.refers refers to public.user_logins_other: ALTER TABLE public.refers DROP CONSTRAINT",
        ),
        (format!("{pinned}; CREATE SCHEMA resalt"), "the schema resalt exists"),
    ];
    let begin = async |client: &mut Client, schema: &str| {
        let name: String = client.query_one("SELECT current_database()", &[]).await.unwrap().get(0);
        let mut reader = owner(&name).await;
        resalt::resalt(&mut reader, client, schema, &salts(), Deadline::within(LIMIT)).await.map(drop)
    };
    assert_refusals(&cases, begin).await;
}
