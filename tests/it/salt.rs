//! The salt is the same for ever, or somebody says so.

use login::pii::Masker;
use login_etl::handler::Ingest;
use login_etl::schema;

use crate::support::{Database, SALT, batch, error_type, failures, invoke, login, store_with};

const OTHER: &str = "fedcba9876543210fedcba9876543210";

async fn ingest(database: &Database, salt: &str) -> Ingest {
    Ingest::new(Masker::new(&salt.into()).unwrap(), store_with(&[("DATABASE_URL", &database.url())]).await)
}

#[tokio::test]
async fn another_salt_is_refused_until_accepted() {
    let mut database = Database::create().await;
    let old = ingest(&database, SALT).await;
    let new = ingest(&database, OTHER).await;
    assert_eq!(invoke(&old, &batch([login("a", "a")])).await, failures(&[]));

    // A large batch, a small one, and one that the ledger knows already.
    let large = batch((0..1000).map(|number| login(&format!("large {number}"), "x")));
    for event in [&large, &batch([login("b", "b")]), &batch([login("a", "a")])] {
        assert_eq!(error_type(&invoke(&new, event).await), "SaltChanged");
    }
    assert_eq!(invoke(&old, &batch([login("c", "c")])).await, failures(&[]));
    assert_eq!(database.user_ids().await, ["a", "c"]);

    let fingerprint = Masker::new(&OTHER.into()).unwrap().salt_fingerprint();
    assert!(schema::accept_salt(&mut database.admin, &fingerprint).await.unwrap());
    assert!(!schema::accept_salt(&mut database.admin, &fingerprint).await.unwrap());

    assert_eq!(error_type(&invoke(&old, &batch([login("d", "d")])).await), "SaltChanged");
    assert_eq!(invoke(&new, &batch([login("b", "b")])).await, failures(&[]));
    assert_eq!(database.user_ids().await, ["a", "b", "c"]);
}

#[tokio::test]
async fn one_of_two_first_batches_decides_the_salt() {
    let database = Database::create().await;
    let mut tasks = tokio::task::JoinSet::new();
    for worker in 0..8 {
        let ingest = ingest(&database, if worker % 2 == 0 { SALT } else { OTHER }).await;
        tasks.spawn(async move { invoke(&ingest, &batch([login(&format!("{worker}"), "x")])).await.is_ok() });
    }

    let written = tasks.join_all().await.into_iter().filter(|written| *written).count();

    assert_eq!(written, 4);
    let tokens = "SELECT DISTINCT masked_ip FROM user_logins";
    assert_eq!(database.admin.query(tokens, &[]).await.unwrap().len(), 1, "two salts are never mixed");
    assert_eq!(database.rows().await.len(), 4);
}

#[tokio::test]
async fn rolled_back_batch_decides_no_salt() {
    let database = Database::create().await;
    database.admin.batch_execute("ALTER TABLE user_logins RENAME COLUMN locale TO language").await.unwrap();
    let old = ingest(&database, SALT).await;
    assert_eq!(error_type(&invoke(&old, &batch([login("a", "a")])).await), "DatabaseRefused");
    database.admin.batch_execute("ALTER TABLE user_logins RENAME COLUMN language TO locale").await.unwrap();

    let new = ingest(&database, OTHER).await;

    assert_eq!(invoke(&new, &batch([login("a", "a")])).await, failures(&[]));
}

#[test]
fn fingerprint_is_stable_and_no_token() {
    let masker = Masker::new(&SALT.into()).unwrap();

    // printf 'salt:fingerprint' | openssl dgst -sha256 -hmac 0123456789abcdef0123456789abcdef
    assert_eq!(masker.salt_fingerprint().as_str(), "3b0a1a8fbcb7edc1");
}
