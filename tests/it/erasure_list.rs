//! The erasure list, and its replay on a database that lacks erasures.

use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use login_etl::aws::bucket::Bucket;
use login_etl::aws::secrets::Secrets;
use login_etl::config::ErasureBucket;
use login_etl::deadline::Deadline;
use login_etl::erasures::{Erasure, ErasureList};
use login_etl::schema::vault::replay::{self, Replayed};
use serde_json::json;

use crate::programs::{run, serve_event, superuser_url};
use crate::support::{connect, superuser};
use crate::vault_support::{Login, Vault, ask, broker, hex, sqlstate, token};

const LOGINS: [Login<'static>; 2] =
    [Login { user: "a", ip: 1, device: 10 }, Login { user: "b", ip: 2, device: 10 }];

/// An empty erasure list for a database.
struct List {
    name: String,
    erasures: ErasureList,
    bucket: Bucket,
}

impl List {
    async fn create(vault: &Vault) -> Self {
        let name = vault.database.name.replace('_', "-");
        let secrets = Secrets::from_env().await;
        let bucket = Bucket::new(secrets.sdk_config().clone(), &name, None);
        // The path of an object without a key is that of the bucket: this creates it.
        bucket.put("", b"").await.unwrap();
        let erasures = ErasureList::new(&secrets, &ErasureBucket { name: name.clone(), endpoint: None });
        Self { name, erasures, bucket }
    }

    /// Writes an erasure of the salt of the tests. Returns its key.
    async fn put(&self, erased_at: &str, tokens: &[u8], never_again: bool, rows: bool) -> String {
        self.put_of("salt", erased_at, tokens, never_again, rows).await
    }

    async fn put_of(
        &self,
        salt: &str,
        erased_at: &str,
        tokens: &[u8],
        never_again: bool,
        rows: bool,
    ) -> String {
        let tokens: Vec<_> = tokens.iter().map(|byte| hex(*byte)).collect();
        let key = format!("erasures/{erased_at}-7-{}.json", tokens.concat().len());
        let erasure = Erasure::new(erased_at.to_owned(), tokens, never_again, rows, Some(salt.to_owned()));
        self.erasures.put(&key, &erasure).await.unwrap();
        key
    }

    async fn replay(&self, vault: &mut Vault) -> Replayed {
        let deadline = Deadline::within(Duration::from_mins(1));
        replay::replay(&mut vault.database.admin, "public", &self.erasures, deadline).await.unwrap()
    }
}

/// Returns the time of the database, with a shift.
async fn time(vault: &Vault, shift: &str) -> String {
    let sql = format!(
        "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC' + INTERVAL '{shift}', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')"
    );
    vault.database.admin.query_one(&sql, &[]).await.unwrap().get(0)
}

fn replayed(listed: u64, erasures: u64, tokens: u64, rows: u64) -> Replayed {
    Replayed { listed, erasures, tokens, rows, left: Vec::new() }
}

async fn state(vault: &Vault, byte: u8) -> String {
    vault.reveal(byte).await.0
}

#[tokio::test]
async fn missing_erasures_are_replayed_once() {
    let mut vault = Vault::create().await;
    let list = List::create(&vault).await;
    vault.write_sealed(7, &LOGINS).await;
    vault.fold().await;
    vault.write_sealed(8, &LOGINS).await;
    let erased_at = time(&vault, "0").await;
    list.put(&erased_at, &[2, 10], false, true).await;
    list.put(&erased_at, &[99], true, false).await;

    let first = list.replay(&mut vault).await;
    let second = list.replay(&mut vault).await;

    assert_eq!(first, replayed(2, 2, 3, 4));
    assert_eq!(second, replayed(2, 0, 0, 0));
    assert_eq!(
        [state(&vault, 1).await, state(&vault, 2).await, state(&vault, 10).await],
        ["sealed", "erased", "erased"]
    );
    assert_eq!(vault.folded().await, [1]);
    let left =
        "SELECT count(masked_ip), count(masked_device_id), (SELECT sum(octet_length(body)) FROM vault_inbox)
        FROM user_logins";
    let left = vault.database.admin.query_one(left, &[]).await.unwrap();
    assert_eq!((left.get::<_, i64>(0), left.get::<_, i64>(1), left.get::<_, i64>(2)), (2, 0, 99));
    let kept = "SELECT string_agg(get_byte(token, 0) || ' ' || never_again, ', ' ORDER BY token), min(erased_at)::text
        = max(erased_at)::text AND min(erased_at) = $1::text::timestamptz FROM vault_erased";
    let kept = vault.database.admin.query_one(kept, &[&erased_at]).await.unwrap();
    assert_eq!(kept.get::<_, &str>(0), "2 false, 10 false, 99 true");
    assert!(kept.get::<_, bool>(1), "erased_at is not that of the list");
}

/// A user can log in again after the erasure.
#[tokio::test]
async fn values_after_their_erasure_stay() {
    let mut vault = Vault::create().await;
    let list = List::create(&vault).await;
    vault.write_sealed(7, &LOGINS).await;
    list.put(&time(&vault, "0").await, &[1], false, true).await;
    list.put(&time(&vault, "0").await, &[2, 10], true, false).await;
    vault.write_sealed(8, &LOGINS).await;

    let replayed = list.replay(&mut vault).await;

    assert_eq!(replayed.erasures, 2);
    assert_eq!(vault.reveal(1).await, ("sealed".to_owned(), Some(0), Some(8)));
    assert_eq!([state(&vault, 2).await, state(&vault, 10).await], ["erased", "erased"]);
    vault.fold().await;
    assert_eq!(vault.reveal(1).await, ("sealed".to_owned(), Some(0), Some(8)));
    assert_eq!([state(&vault, 2).await, state(&vault, 10).await], ["erased", "erased"]);
}

#[tokio::test]
async fn rows_after_the_day_of_their_erasure_stay() {
    let mut vault = Vault::create().await;
    let list = List::create(&vault).await;
    let rows = format!(
        "INSERT INTO salt_fingerprint VALUES (true, 'salt', now());
         INSERT INTO user_logins (user_id, masked_ip, create_date)
         SELECT day, '{}', day::date FROM unnest(ARRAY['2026-11-01', '2026-11-02', '2026-11-03', NULL]) AS day",
        hex(1)
    );
    vault.database.execute(&rows).await;
    list.put("2026-11-02T12:00:00.000000Z", &[1], false, true).await;

    let replayed = list.replay(&mut vault).await;

    let left = "SELECT user_id FROM user_logins WHERE masked_ip IS NOT NULL";
    let left = vault.database.admin.query_one(left, &[]).await.unwrap();
    assert_eq!((replayed.rows, left.get::<_, &str>(0)), (3, "2026-11-03"));
}

#[tokio::test]
async fn later_erasure_is_not_moved_back() {
    let mut vault = Vault::create().await;
    let list = List::create(&vault).await;
    list.put(&time(&vault, "-1 hour").await, &[1], false, false).await;
    vault.write_sealed(7, &LOGINS).await;
    vault.erase(1, false, false).await;
    vault.write_sealed(8, &LOGINS).await;
    vault.fold().await;

    let replayed_first = list.replay(&mut vault).await;

    assert_eq!(replayed_first, replayed(1, 1, 0, 0));
    assert_eq!(vault.reveal(1).await, ("sealed".to_owned(), Some(0), Some(8)));
    let erased_at = "SELECT erased_at > now() - INTERVAL '1 minute' FROM vault_erased";
    assert!(vault.database.admin.query_one(erased_at, &[]).await.unwrap().get::<_, bool>(0));
}

#[tokio::test]
async fn bad_objects_are_named_and_left_out() {
    let mut vault = Vault::create().await;
    let list = List::create(&vault).await;
    vault.write_sealed(7, &LOGINS).await;
    let erased_at = time(&vault, "0").await;
    let other_salt = list.put_of("other", &erased_at, &[2], false, false).await;
    list.put(&erased_at, &[1, 10], false, false).await;
    list.bucket.put("erasures/2026", b"hunter2").await.unwrap();
    list.bucket.put("other/2026", b"hunter2").await.unwrap();

    let replayed = list.replay(&mut vault).await;
    let again = list.replay(&mut vault).await;

    assert_eq!((replayed.listed, replayed.erasures, again.erasures), (3, 1, 0));
    assert_eq!([state(&vault, 1).await, state(&vault, 2).await], ["erased", "sealed"]);
    let expected = format!(
        "2 erasures were not replayed: erasures/2026: it is not the object of an erasure; \
         {other_salt}: its tokens are of another salt than the database accepts: run resalt first"
    );
    for replayed in [replayed, again] {
        assert_eq!(replayed.complete().unwrap_err().to_string(), expected);
    }
    vault.database.execute("UPDATE salt_fingerprint SET fingerprint = 'other'").await;
    assert_eq!(list.replay(&mut vault).await.erasures, 1);
    assert_eq!(state(&vault, 2).await, "erased");
}

/// S3 lists 1,000 keys at once.
#[tokio::test]
async fn all_pages_of_the_list_are_replayed() {
    let mut vault = Vault::create().await;
    let list = List::create(&vault).await;
    let put = async |number: u32| {
        let key = format!("erasures/2026-11-27T12:00:00.{number:06}Z-{number}-x.json");
        let erasure = Erasure::new("2026-11-27T12:00:00.000000Z".into(), vec![hex(1)], false, false, None);
        list.erasures.put(&key, &erasure).await.unwrap();
    };
    stream::iter(0..1001).map(put).buffer_unordered(32).collect::<Vec<()>>().await;

    assert_eq!(list.replay(&mut vault).await, replayed(1001, 1001, 1, 0));
    assert_eq!(list.replay(&mut vault).await, replayed(1001, 0, 0, 0));
}

/// The role of the broker cannot note an object that the list does not have, so that a replay would leave it out.
#[tokio::test]
async fn only_an_erasing_transaction_notes_its_object() {
    let mut vault = Vault::create().await;
    vault.write_sealed(7, &LOGINS).await;
    let other = broker(&vault.database, "other").await;
    let note = "SELECT object_key, erased_at, salt_fingerprint FROM vault_list($1, $2)";
    let tokens = vec![hex(1)];
    let entry = ask(&vault.broker, "erase", 1).await.unwrap();

    assert_eq!(sqlstate(vault.broker.query_one(note, &[&entry, &tokens]).await), "LE004");
    let transaction = vault.broker.transaction().await.unwrap();
    transaction.query_one("SELECT vault_erase($1, false, false)", &[&entry]).await.unwrap();
    let row = transaction.query_one(note, &[&entry, &tokens]).await.unwrap();
    transaction.commit().await.unwrap();
    let other_token = vec![hex(2)];
    let noted: String =
        vault.database.admin.query_one("SELECT object_key FROM vault_listed", &[]).await.unwrap().get(0);
    let clear = "SELECT vault_erase_rows($1, $2)";
    for session in [&vault.broker, &other] {
        for statement in [note, clear] {
            assert_eq!(sqlstate(session.query_one(statement, &[&entry, &tokens]).await), "LE004");
        }
    }
    // Only what this entry erases.
    let entry_of_rows = ask(&vault.broker, "erase", 1).await.unwrap();
    let transaction = vault.broker.transaction().await.unwrap();
    transaction.query_one("SELECT vault_erase($1, false, false)", &[&entry_of_rows]).await.unwrap();
    assert_eq!(sqlstate(transaction.query_one(clear, &[&entry_of_rows, &other_token]).await), "LE004");
    drop(transaction);

    let (key, erased_at): (&str, &str) = (row.get(0), row.get(1));
    assert_eq!((key, row.get::<_, &str>(2)), (&*noted, "salt"));
    assert!(key.starts_with(&format!("erasures/{erased_at}-{entry}-")), "{key}");
    let is_kept = "SELECT erased_at = $1::text::timestamptz FROM vault_erased WHERE token = $2";
    let is_kept = vault.database.admin.query_one(is_kept, &[&erased_at, &&token(1)[..]]).await.unwrap();
    assert!(is_kept.get::<_, bool>(0));
    for statement in [
        "SELECT vault_replay('[]')",
        "SELECT FROM vault_listed",
        "SELECT vault_clear_rows('{}', 'now')",
        "SELECT vault_check_erasing(1, '{}')",
    ] {
        assert_eq!(sqlstate(vault.broker.batch_execute(statement).await), "42501", "{statement}");
    }
}

#[tokio::test]
async fn migrate_replays_before_it_folds() {
    let vault = Vault::create().await;
    let list = List::create(&vault).await;
    let url = superuser_url(&vault.database.name);
    let key = crate::vault_support::KEY;
    let settings = [
        ("DATABASE_URL", &*url),
        ("VAULT_PUBLIC_KEY", key),
        ("VAULT_KMS_KEY", "kms-key"),
        ("VAULT_ERASURE_BUCKET", &list.name),
    ];
    let migrate = env!("CARGO_BIN_EXE_migrate");
    let event = r#"{"action": "replay-erasures"}"#;
    vault.write_sealed(7, &LOGINS).await;
    list.put(&time(&vault, "0").await, &[1], false, true).await;

    let by_event = serve_event(migrate, &settings, event).response;
    list.put(&time(&vault, "0").await, &[2], false, false).await;
    let by_rotation = serve_event(migrate, &settings, r#"{"action": "rotate"}"#);
    list.bucket.put("erasures/a", b"hunter2").await.unwrap();
    list.put(&time(&vault, "0").await, &[10], false, false).await;
    let failed = serve_event(migrate, &settings, "{}");
    let not_folded = vault.folded().await;
    let without_list = serve_event(migrate, &settings[..3], event);
    let daily = serve_event(migrate, &settings[..3], "{}");

    assert_eq!(by_event, json!({ "listed": 1, "erasures": 1, "tokens": 1, "rows": 1 }));
    assert_eq!(by_rotation.response, json!(null));
    let logged = r#""listed":2,"erasures":1,"tokens":1,"rows":0,"left":0"#;
    assert!(by_rotation.log.contains(logged), "{}", by_rotation.log);
    let error = "1 erasures were not replayed: erasures/a: it is not the object of an erasure";
    assert_eq!(failed.response["errorMessage"], error);
    assert_eq!(not_folded, [0_u8; 0]);
    assert_eq!(without_list.response["errorMessage"], "VAULT_ERASURE_BUCKET is not set");
    assert_eq!(daily.response, json!(null));
    assert_eq!(vault.folded().await, [0_u8; 0]);
    assert_eq!(state(&vault, 10).await, "erased");
}

#[tokio::test]
async fn missing_bucket_is_an_error_with_its_code() {
    let vault = Vault::create().await;
    let url = superuser_url(&vault.database.name);
    let settings = [("DATABASE_URL", &*url), ("VAULT_ERASURE_BUCKET", "no-such-bucket")];

    let output = run(env!("CARGO_BIN_EXE_migrate"), &settings);

    let log = String::from_utf8(output.stdout).unwrap();
    let error = "VAULT_ERASURE_BUCKET: S3 did not do ListObjectsV2: status 404, NoSuchBucket";
    assert!(log.contains(error), "{log}");
    assert_eq!(output.status.code(), Some(1));
}

/// A restored database has the logins of the roles: those of the analysts must wait.
#[tokio::test]
async fn reader_waits_for_the_replay() {
    let _guard = crate::support::WRITER_LOGIN_LOCK.lock().await;
    let vault = Vault::create().await;
    let list = List::create(&vault).await;
    list.bucket.put("erasures/a", b"").await.unwrap();
    let url = superuser_url(&vault.database.name);
    let secret =
        crate::programs::create_secret(r#"{"username":"login_analyst","password":"after-replay"}"#).await;
    let settings =
        [("DATABASE_URL", &*url), ("READER_SECRET_ID", &secret), ("VAULT_ERASURE_BUCKET", &list.name)];
    let reader =
        superuser().user("login_analyst").password("after-replay").dbname(&vault.database.name).clone();

    let refused = run(env!("CARGO_BIN_EXE_migrate"), &settings);
    let before = reader.connect(tokio_postgres::NoTls).await.is_ok();
    let replayed = run(env!("CARGO_BIN_EXE_migrate"), &settings[..2]);

    assert_eq!((refused.status.code(), before, replayed.status.code()), (Some(1), false, Some(0)));
    connect(&reader).await;
}
