//! Values that ingest seals, in the transaction of their rows.
//!
//! What is sealed here is opened in the tests of the broker and of the crate `login`.

use std::collections::BTreeSet;

use login::pii::{DeviceId, Field, Ip, Masker, Pii, Salts};
use login_etl::handler::{Ingest, Vault};
use login_etl::schema;
use serde_json::{Value, json};

use crate::support::{
    Database, Logs, SALT, batch, body, error_type, failures, fifo, ingest_with, invoke, login, masker,
    record, store_with,
};
use crate::vault_support::{KEY, OTHER_KEY, key};

/// Makes a key the current key of the database.
async fn accept_key(database: &mut Database, text: &str) {
    schema::vault::accept_key(&mut database.admin, "public", &key(text), "kms-key").await.unwrap();
}

/// Starts a function that seals to the key, and makes it the current key.
pub(crate) async fn ingest_with_vault(database: &mut Database, url: &str) -> Ingest {
    accept_key(database, KEY).await;
    ingest_with(&[("DATABASE_URL", url)]).await.with_vault(vault(KEY))
}

fn vault(text: &str) -> Vault {
    Vault::new(key(text)).unwrap()
}

/// Returns the tokens of all sealed values that are not folded, sorted; a token that was sealed twice is there twice.
pub(crate) async fn sealed_tokens(database: &Database) -> Vec<String> {
    let read = "SELECT encode(substr(body, place * entry_length + 4, 32), 'hex')
        FROM vault_inbox, generate_series(0, octet_length(body) / entry_length - 1) AS place
        ORDER BY 1";
    database.admin.query(read, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

/// Returns the different tokens of the table, sorted.
async fn tokens_of_table(database: &Database) -> Vec<String> {
    let read = "SELECT masked_ip FROM user_logins WHERE masked_ip IS NOT NULL
        UNION SELECT masked_device_id FROM user_logins WHERE masked_device_id IS NOT NULL ORDER BY 1";
    database.admin.query(read, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

/// Returns a record with a user of this id, at an address of its own, with a device of its own.
fn own_login(number: u32) -> Value {
    record(&format!("m{number:04}"), own_body(number).to_string())
}

fn own_body(number: u32) -> Value {
    let mut body = body(&format!("user {number}"));
    body["ip"] = format!("10.0.{}.{}", number / 256, number % 256).into();
    body["device_id"] = format!("device {number}").into();
    body
}

fn token<F: Field>(raw: &str) -> String {
    masker().mask(&Pii::<F>::new(raw.into()).unwrap()).as_str().to_owned()
}

#[tokio::test]
async fn each_masked_value_is_sealed_once() {
    let mut database = Database::create().await;
    let url = database.url();
    let ingest = ingest_with_vault(&mut database, &url).await;
    let logs = Logs::capture();
    let blank = json!({ "user_id": "c", "ip": " ", "device_id": null });

    let first =
        invoke(&ingest, &batch([login("a", "a"), login("b", "b"), record("c", blank.to_string())])).await;
    let second = invoke(&ingest, &batch([login("d", "d"), own_login(1)])).await;

    assert_eq!([first, second], [failures(&[]), failures(&[])]);
    let expected = BTreeSet::from([
        token::<Ip>("203.0.113.77"),
        token::<DeviceId>("593-47-5928"),
        token::<Ip>("10.0.0.1"),
        token::<DeviceId>("device 1"),
    ]);
    assert_eq!(sealed_tokens(&database).await, expected.into_iter().collect::<Vec<_>>());
    let counts = logs.lines("batch done").iter().map(|line| line["sealed"].as_u64()).collect::<Vec<_>>();
    assert_eq!(counts, [Some(2), Some(2)]);
}

#[tokio::test]
async fn without_vault_nothing_is_sealed() {
    let mut database = Database::create().await;
    accept_key(&mut database, KEY).await;
    let ingest = database.ingest().await;
    let logs = Logs::capture();

    assert_eq!(invoke(&ingest, &batch([own_login(1)])).await, failures(&[]));

    assert_eq!(sealed_tokens(&database).await, [""; 0]);
    assert_eq!(logs.lines("batch done")[0].get("sealed"), None);
}

/// The batch has several statements and streams.
#[tokio::test]
async fn large_batch_is_sealed_whole() {
    let mut database = Database::create().await;
    let url = database.url();
    let ingest = ingest_with_vault(&mut database, &url).await;

    let answer = invoke(&ingest, &batch((0..1_200).map(own_login))).await;

    assert_eq!(answer, failures(&[]));
    let sealed = sealed_tokens(&database).await;
    assert_eq!(sealed.len(), 2_400);
    assert_eq!(sealed, tokens_of_table(&database).await);
}

#[tokio::test]
async fn refused_rows_leave_no_value() {
    let mut database = Database::create().await;
    database.execute("ALTER TABLE user_logins ADD CHECK (locale <> 'XX')").await;
    let url = database.url();
    let ingest = ingest_with_vault(&mut database, &url).await;
    let refused = |number| {
        let mut body = own_body(number);
        body["locale"] = "XX".into();
        record(&format!("m{number:04}"), body.to_string())
    };
    // The first row with the value of 4 is refused, the second is written.
    let mut same_value = own_body(4);
    same_value["user_id"] = "another user".into();
    let records = [own_login(1), refused(2), own_login(3), refused(4), record("n", same_value.to_string())];

    let answer = invoke(&ingest, &batch(records)).await;

    assert_eq!(answer, failures(&["m0002", "m0004"]));
    let sealed = sealed_tokens(&database).await;
    assert_eq!(sealed.len(), 6);
    assert_eq!(sealed, tokens_of_table(&database).await);
}

/// A batch with failures may have lost some of its values, so all are sealed again.
#[tokio::test]
async fn values_are_sealed_when_the_row_is_written() {
    let mut database = Database::create().await;
    database.execute("ALTER TABLE user_logins ADD CONSTRAINT locale CHECK (locale <> 'RU')").await;
    let url = database.url();
    let ingest = ingest_with_vault(&mut database, &url).await;
    assert_eq!(invoke(&ingest, &batch([own_login(1)])).await, failures(&["m0001"]));
    assert_eq!(sealed_tokens(&database).await, [""; 0]);

    database.execute("ALTER TABLE user_logins DROP CONSTRAINT locale").await;
    assert_eq!(invoke(&ingest, &batch([own_login(1)])).await, failures(&[]));

    assert_eq!(sealed_tokens(&database).await, tokens_of_table(&database).await);
}

#[tokio::test]
async fn failed_batch_leaves_no_value() {
    let mut database = Database::create().await;
    let url = database.url();
    let ingest = ingest_with_vault(&mut database, &url).await;
    assert_eq!(invoke(&ingest, &batch([own_login(0)])).await, failures(&[]));
    database.execute("ALTER TABLE vault_inbox ADD CONSTRAINT empty CHECK (body = '') NOT VALID").await;

    let failed = invoke(&ingest, &batch((1..600).map(own_login))).await;

    assert_eq!(error_type(&failed), "DatabaseRefused");
    assert_eq!(sealed_tokens(&database).await, tokens_of_table(&database).await);
    database.execute("ALTER TABLE vault_inbox DROP CONSTRAINT empty").await;
    assert_eq!(invoke(&ingest, &batch((1..600).map(own_login))).await, failures(&[]));
    assert_eq!(sealed_tokens(&database).await, tokens_of_table(&database).await);
}

#[tokio::test]
async fn fifo_batches_are_sealed() {
    let mut database = Database::create().await;
    database.execute("ALTER TABLE user_logins ADD CHECK (user_id <> 'user 2')").await;
    let url = database.url();
    let ingest = ingest_with_vault(&mut database, &url).await;
    let records = |numbers: std::ops::Range<u32>| {
        batch(numbers.map(|number| fifo(&format!("m{number}"), "group", own_body(number).to_string())))
    };

    let whole = invoke(&ingest, &records(0..2)).await;
    let held_back = invoke(&ingest, &records(2..4)).await;

    assert_eq!([whole, held_back], [failures(&[]), failures(&["m2", "m3"])]);
    assert_eq!(sealed_tokens(&database).await, tokens_of_table(&database).await);
}

#[tokio::test]
async fn another_key_is_refused_until_it_is_accepted() {
    let mut database = Database::create().await;
    let url = database.url();
    let old = ingest_with_vault(&mut database, &url).await;
    let new = database.ingest().await.with_vault(vault(OTHER_KEY));
    assert_eq!(invoke(&old, &batch([own_login(1)])).await, failures(&[]));

    // A large batch, a small batch, a batch without new values, and one that the ledger already holds.
    for event in [
        batch((2..700).map(own_login)),
        batch([own_login(2)]),
        batch([record("x", json!({"user_id": "x"}).to_string())]),
        batch([own_login(1)]),
    ] {
        assert_eq!(error_type(&invoke(&new, &event).await), "VaultKeyChanged");
    }
    accept_key(&mut database, OTHER_KEY).await;

    assert_eq!(error_type(&invoke(&old, &batch([own_login(2)])).await), "VaultKeyChanged");
    assert_eq!(invoke(&new, &batch([own_login(2)])).await, failures(&[]));
    assert_eq!(sealed_tokens(&database).await, tokens_of_table(&database).await);
    let keys = "SELECT DISTINCT key_id::int FROM vault_inbox ORDER BY 1";
    let keys: Vec<i32> =
        database.admin.query(keys, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
    assert_eq!(keys, [1, 2]);
}

#[tokio::test]
async fn without_accepted_key_nothing_is_written() {
    let database = Database::create().await;
    let ingest = database.ingest().await.with_vault(vault(KEY));
    let logs = Logs::capture();

    assert_eq!(error_type(&invoke(&ingest, &batch([own_login(1)])).await), "VaultKeyChanged");

    assert_eq!(database.user_ids().await, [""; 0]);
    let error = "VAULT_PUBLIC_KEY is not the current key of the vault; set it to the current key, or accept it by migrate \
                 accept-vault-key";
    assert_eq!(logs.lines("batch failed")[0]["error"], error);
}

/// The value of the message that the ledger has is not sealed again: it could have been erased since.
#[tokio::test]
async fn redelivered_values_are_not_sealed_again() {
    let mut database = Database::create().await;
    let url = database.url();
    let ingest = ingest_with_vault(&mut database, &url).await;
    assert_eq!(invoke(&ingest, &batch([own_login(1)])).await, failures(&[]));
    let another = database.ingest().await.with_vault(vault(KEY));

    assert_eq!(invoke(&another, &batch([own_login(1), own_login(2)])).await, failures(&[]));

    assert_eq!(database.user_ids().await, ["user 1", "user 2"]);
    assert_eq!(sealed_tokens(&database).await, tokens_of_table(&database).await);
}

/// SQS may deliver a message twice in one batch. Of a refused message, both copies are refused.
#[tokio::test]
async fn refused_message_leaves_no_value_by_its_copy() {
    let mut database = Database::create().await;
    let url = database.url();
    let ingest = ingest_with_vault(&mut database, &url).await;
    database.execute("ALTER TABLE user_logins ADD CHECK (user_id NOT LIKE '%1')").await;
    let fifo = |number: u32| fifo(&format!("f{number}"), &format!("g{number}"), own_body(number).to_string());
    let standard = [own_login(1), own_login(2), own_login(1), own_login(2)];
    let queued = [fifo(11), fifo(12), fifo(11), fifo(12)];

    for (event, refused) in [(batch(standard), "m0001"), (batch(queued), "f11")] {
        assert_eq!(invoke(&ingest, &event).await, failures(&[refused]));
    }

    let mut written = tokens_of_table(&database).await;
    written.sort_unstable();
    assert_eq!(sealed_tokens(&database).await, written);
    assert_eq!(written.len(), 4);
}

/// A batch that is masked again is sealed again, beside the tokens that are written.
#[tokio::test]
async fn each_generation_seals_beside_its_own_tokens() {
    let mut database = Database::create().await;
    accept_key(&mut database, KEY).await;
    let later = "fedcba9876543210fedcba9876543210";
    let maskers = Salts::new(SALT.into(), vec![later.into()]).maskers().unwrap();
    let pin = |masker: &Masker| {
        let fingerprint = masker.salt_fingerprint();
        format!(
            "INSERT INTO salt_fingerprint (fingerprint) VALUES ('{0}')
             ON CONFLICT (only_row) DO UPDATE SET fingerprint = '{0}'",
            fingerprint.as_str()
        )
    };
    let store = store_with(&[("DATABASE_URL", &database.url())]).await;
    let ingest = Ingest::with_generations(maskers.clone(), store).with_vault(vault(KEY));
    let logs = Logs::capture();

    // The first batch is refused with the last generation, the third with the first.
    for (time, masker) in [&maskers[0], &maskers[0], &maskers[1]].into_iter().enumerate() {
        database.execute(&pin(masker)).await;
        let records = [1, 2].map(|number| record(&format!("{time} {number}"), own_body(number).to_string()));
        assert_eq!(invoke(&ingest, &batch(records)).await, failures(&[]));
    }

    let sealed: Vec<_> = logs.lines("batch done").iter().map(|line| line["sealed"].as_u64()).collect();
    assert_eq!(sealed, [Some(4), Some(0), Some(4)]);
    assert_eq!(sealed_tokens(&database).await, tokens_of_table(&database).await);
    assert_eq!(tokens_of_table(&database).await.len(), 8);
}
