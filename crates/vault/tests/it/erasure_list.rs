//! Erasures are in the erasure list before they are in the database.

use std::time::Duration;

use login_etl::aws::bucket::Bucket;
use login_etl::config::ErasureBucket;
use login_etl::deadline::Deadline;
use login_etl::erasures::ErasureList;
use login_etl::schema::vault::replay;
use login_etl_vault::problem::Problem;
use login_etl_vault::token::Field;
use serde_json::{Value, json};

use crate::kms_stub::{Behaviour, KEY, KmsStub};
use crate::support::{Vault, event, post, reveal_body, send_within, token_of, variable};

/// An empty erasure list.
pub(crate) struct List {
    pub(crate) bucket: String,
    pub(crate) list: ErasureList,
}

impl List {
    pub(crate) async fn create(vault: &Vault) -> Self {
        let bucket = vault.name.replace('_', "-");
        let sdk = vault.secrets.sdk_config();
        // The path of an object without a key is that of the bucket: this creates it.
        Bucket::new(sdk.clone(), &bucket, None).put("", b"").await.unwrap();
        let name = bucket.clone();
        Self { bucket, list: ErasureList::new(&vault.secrets, &ErasureBucket { name, endpoint: None }) }
    }

    /// Returns the keys and the contents of the objects.
    pub(crate) async fn objects(&self) -> Vec<(String, Value)> {
        let mut objects = Vec::new();
        for key in self.list.keys("").await.unwrap().keys {
            let content = self.list.get(&key).await.unwrap();
            objects.push((key, serde_json::from_slice(&content).unwrap()));
        }
        objects
    }
}

pub(crate) fn erase_body(mut target: Value) -> Value {
    target["reason"] = "data-subject".into();
    target["ticket"] = "DPO-7".into();
    target
}

pub(crate) fn endpoint() -> String {
    variable("AWS_ENDPOINT_URL")
}

async fn replay_on(vault: &mut Vault, list: &List) -> u64 {
    let deadline = Deadline::within(Duration::from_mins(1));
    let replayed = replay::replay(&mut vault.admin, "public", &list.list, deadline).await.unwrap();
    replayed.complete().unwrap().erasures
}

#[tokio::test]
async fn each_erasure_is_listed_without_a_person() {
    let kms = KmsStub::start(Behaviour::Derive).await;
    let mut vault = Vault::create(kms.public_key, KEY).await;
    let list = List::create(&vault).await;
    let tokens = vault.write(&[(Field::Ip, "192.0.2.1"), (Field::DeviceId, "593-47-5928")]).await;
    let (ip, device) = (tokens[0].to_text(), tokens[1].to_text());
    let rows = format!(
        "INSERT INTO salt_fingerprint VALUES (true, '3b0a1a8fbcb7edc1', now());
         INSERT INTO user_logins (user_id, masked_device_id, create_date) VALUES ('ann', '{device}', now())"
    );
    vault.execute(&rows).await;
    let broker = vault.broker_with_list(&list.bucket, &endpoint(), &kms.sdk().await);

    let by_token = post(&broker, "/erase", &erase_body(json!({ "token": ip }))).await;
    let body = json!({ "user_id": "ann", "rows": true, "never_again": true });
    let by_user = post(&broker, "/erase", &erase_body(body)).await;
    let nothing = post(&broker, "/erase", &erase_body(json!({ "user_id": "bob" }))).await;
    let unknown = token_of(Field::Ip, "192.0.2.9").to_text();
    let absent = post(&broker, "/erase", &erase_body(json!({ "token": unknown }))).await;

    assert_eq!([by_token.status, by_user.status, nothing.status, absent.status], [200; 4]);
    assert_eq!(by_user.body["rows"], 1);
    let times = "SELECT encode(token, 'hex'), to_char(erased_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')
        FROM vault_erased ORDER BY erased_at";
    let times = vault.admin.query(times, &[]).await.unwrap();
    let expected = [(1, ip, false, false), (2, device, true, true), (4, unknown, false, false)];
    let expected: Vec<_> = expected
        .into_iter()
        .zip(&times)
        .map(|((entry, token, never_again, rows), time)| {
            let erased_at: &str = time.get(1);
            let object = json!({
                "format": 1, "erased_at": erased_at, "tokens": [token], "never_again": never_again, "rows": rows,
                "salt_fingerprint": "3b0a1a8fbcb7edc1",
            });
            assert_eq!(time.get::<_, String>(0), token);
            (format!("erasures/{erased_at}-{entry}-"), object)
        })
        .collect();
    let objects = list.objects().await;
    assert_eq!(objects.len(), 3);
    for ((key, object), (expected_key, expected)) in objects.iter().zip(&expected) {
        assert!(key.starts_with(expected_key), "{key}");
        assert_eq!(object, expected);
    }
    assert_eq!(replay_on(&mut vault, &list).await, 0);
}

#[tokio::test]
async fn without_the_list_nothing_is_erased() {
    let kms = KmsStub::start(Behaviour::Derive).await;
    let vault = Vault::create(kms.public_key, KEY).await;
    let tokens = vault.write(&[(Field::Ip, "192.0.2.1")]).await;
    let sdk = kms.sdk().await;
    let away = vault.broker_with_list("erasures", "http://127.0.0.1:9", &sdk);
    let without_bucket = vault.broker_with_list("no-such-bucket", &endpoint(), &sdk);

    for (number, broker) in (1..).zip([&away, &without_bucket]) {
        let refused = post(broker, "/erase", &erase_body(json!({ "token": tokens[0].to_text() }))).await;

        let problem = serde_json::to_value(Problem::list_unavailable().of_entry(number)).unwrap();
        assert_eq!((refused.status, refused.body), (503, problem));
        assert_eq!(refused.retry_after, Some("5"));
        let error = refused.record.failure.unwrap().to_string();
        assert!(error.starts_with("nothing was erased: S3 did not do PutObject: "), "{error}");
    }
    assert_eq!(post(&away, "/reveal", &reveal_body(&tokens[0])).await.status, 200);
    let outcomes: Vec<_> = vault.audit().await.iter().map(|entry| entry["outcome"].clone()).collect();
    assert_eq!(outcomes, ["failed", "failed", "done"]);
    let left = "SELECT count(*) FROM vault_erased, vault_listed";
    assert_eq!(vault.admin.query_one(left, &[]).await.unwrap().get::<_, i64>(0), 0);
}

/// The list may have an erasure too many, but never too few.
#[tokio::test]
async fn replay_completes_an_erasure_that_failed() {
    let kms = KmsStub::start(Behaviour::Derive).await;
    let mut vault = Vault::create(kms.public_key, KEY).await;
    let list = List::create(&vault).await;
    let tokens = vault.write(&[(Field::Ip, "192.0.2.1")]).await;
    let fail = "
        CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION $$no$$; END';
        CREATE CONSTRAINT TRIGGER fail AFTER INSERT ON vault_listed DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW EXECUTE FUNCTION fail()";
    vault.execute(fail).await;
    let broker = vault.broker_with_list(&list.bucket, &endpoint(), &kms.sdk().await);

    let failed = post(&broker, "/erase", &erase_body(json!({ "token": tokens[0].to_text() }))).await;
    let revealed = post(&broker, "/reveal", &reveal_body(&tokens[0])).await;
    vault.execute("DROP TRIGGER fail ON vault_listed").await;
    let replayed = replay_on(&mut vault, &list).await;
    let after = post(&broker, "/reveal", &reveal_body(&tokens[0])).await;

    let problem = serde_json::to_value(Problem::erasure_unknown().of_entry(1)).unwrap();
    assert_eq!((failed.status, failed.body), (503, problem));
    assert_eq!((revealed.status, replayed, after.status), (200, 1, 410));
}

#[tokio::test]
async fn late_erasure_is_neither_listed_nor_done() {
    let kms = KmsStub::start(Behaviour::Derive).await;
    let vault = Vault::create(kms.public_key, KEY).await;
    let list = List::create(&vault).await;
    let tokens = vault.write(&[(Field::Ip, "192.0.2.1")]).await;
    let sleep = "
        CREATE FUNCTION sleep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(20); RETURN NEW; END';
        CREATE TRIGGER sleep BEFORE INSERT ON vault_erased FOR EACH ROW EXECUTE FUNCTION sleep()";
    vault.execute(sleep).await;
    let broker = vault.broker_with_list(&list.bucket, &endpoint(), &kms.sdk().await);
    let body = erase_body(json!({ "token": tokens[0].to_text() })).to_string();

    let late = send_within(Duration::from_secs(9), &broker, event("/erase", &body)).await;

    let problem = serde_json::to_value(Problem::database_unavailable().of_entry(1)).unwrap();
    assert_eq!((late.status, late.body), (503, problem));
    assert_eq!(vault.audit().await[0]["outcome"], "failed");
    assert_eq!(list.objects().await, []);
    assert_eq!(post(&broker, "/reveal", &reveal_body(&tokens[0])).await.status, 200);
}

/// A large table takes longer than the caller waits. The list has the erasure meanwhile.
#[tokio::test]
async fn slow_rows_are_erased_without_an_answer() {
    let kms = KmsStub::start(Behaviour::Derive).await;
    let vault = Vault::create(kms.public_key, KEY).await;
    let list = List::create(&vault).await;
    let token = token_of(Field::Ip, "192.0.2.1").to_text();
    let slow = format!(
        "INSERT INTO user_logins (user_id, masked_ip, create_date) VALUES ('ann', '{token}', now());
         CREATE FUNCTION sleep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(10); RETURN NEW; END';
         CREATE TRIGGER sleep BEFORE UPDATE ON user_logins FOR EACH ROW EXECUTE FUNCTION sleep()"
    );
    vault.execute(&slow).await;
    let broker = vault.broker_with_list(&list.bucket, &endpoint(), &kms.sdk().await);
    let body = erase_body(json!({ "token": token, "rows": true })).to_string();

    let unknown = send_within(Duration::from_secs(9), &broker, event("/erase", &body)).await;
    drop(broker);

    let problem = serde_json::to_value(Problem::erasure_unknown().of_entry(1)).unwrap();
    assert_eq!((unknown.status, unknown.body), (503, problem));
    let objects = list.objects().await;
    assert_eq!((objects.len(), &objects[0].1["rows"]), (1, &json!(true)));
    for _ in 0..100 {
        if vault.audit().await[0]["outcome"] == "done" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // The value was unknown; the rows make it an erasure.
    assert_eq!(vault.audit().await[0]["outcome"], "done");
    let left = "SELECT count(masked_ip), (SELECT count(*) FROM vault_listed) FROM user_logins";
    let left = vault.admin.query_one(left, &[]).await.unwrap();
    assert_eq!((left.get::<_, i64>(0), left.get::<_, i64>(1)), (0, 1));
}
