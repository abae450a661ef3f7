//! A function with another salt than the accepted salt writes nothing.

use std::time::Duration;

use login::pii::{Ip, Masker, Pii, Salts};
use login_etl::handler::Ingest;
use login_etl::schema;
use tokio_postgres::error::SqlState;

use crate::support::{
    Database, Logs, SALT, batch, body, connect, error_type, failures, fifo, invoke, invoke_within, login,
    masker, store_with, superuser,
};

const OTHER_SALT: &str = "fedcba9876543210fedcba9876543210";

async fn ingest_with_salt(database: &Database, salt: &str) -> Ingest {
    Ingest::new(Masker::new(&salt.into()).unwrap(), store_with(&[("DATABASE_URL", &database.url())]).await)
}

/// Postgres quotes the refused row in its own error.
#[tokio::test]
async fn schema_error_quotes_no_row() {
    let mut database = Database::create().await;
    let check = "ALTER TABLE salt_fingerprint ADD CHECK (fingerprint = '') NOT VALID";
    database.admin.batch_execute(check).await.unwrap();
    let salt_fingerprint = Masker::new(&OTHER_SALT.into()).unwrap().salt_fingerprint();

    let error = schema::accept_salt(&mut database.admin, "public", &salt_fingerprint).await.unwrap_err();

    let texts = error_texts(&error);
    assert!(texts.contains("SQLSTATE 23514"), "{texts}");
    assert!(!texts.contains(salt_fingerprint.as_str()), "{texts}");
}

/// Returns everything that a log could print of an error: its texts and those of its sources.
fn error_texts(error: &dyn std::error::Error) -> String {
    let chain = std::iter::successors(Some(error), |error| error.source());
    chain.map(|error| format!("{error} {error:?}")).collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn another_salt_is_refused_until_accepted() {
    let mut database = Database::create().await;
    let old = ingest_with_salt(&database, SALT).await;
    let new = ingest_with_salt(&database, OTHER_SALT).await;
    assert_eq!(invoke(&old, &batch([login("a", "a")])).await, failures(&[]));

    // A large batch, a small batch, and a batch that the ledger already holds.
    let large = batch((0..1000).map(|number| login(&format!("large {number}"), "x")));
    for event in [&large, &batch([login("b", "b")]), &batch([login("a", "a")])] {
        assert_eq!(error_type(&invoke(&new, event).await), "SaltChanged");
    }
    assert_eq!(invoke(&old, &batch([login("c", "c")])).await, failures(&[]));
    assert_eq!(database.user_ids().await, ["a", "c"]);

    let salt_fingerprint = Masker::new(&OTHER_SALT.into()).unwrap().salt_fingerprint();
    assert!(schema::accept_salt(&mut database.admin, "public", &salt_fingerprint).await.unwrap());
    assert!(!schema::accept_salt(&mut database.admin, "public", &salt_fingerprint).await.unwrap());

    assert_eq!(error_type(&invoke(&old, &batch([login("d", "d")])).await), "SaltChanged");
    assert_eq!(invoke(&new, &batch([login("b", "b")])).await, failures(&[]));
    assert_eq!(database.user_ids().await, ["a", "b", "c"]);
}

/// Whoever has the password of the writer can leave a transaction open.
#[tokio::test]
async fn waiting_accept_salt_stops_no_batch() {
    let database = Database::create().await;
    let ingest = database.ingest().await;
    assert_eq!(invoke(&ingest, &batch([login("a", "a")])).await, failures(&[]));
    let writer = connect(&database.url().parse().unwrap()).await;
    writer.batch_execute("BEGIN; INSERT INTO user_logins (user_id) VALUES ('open')").await.unwrap();
    let mut owner = connect(superuser().dbname(&database.name)).await;
    let accepting = tokio::spawn(async move {
        schema::accept_salt(&mut owner, "public", &masker().salt_fingerprint()).await.unwrap()
    });
    let waiting = "SELECT FROM pg_locks WHERE NOT granted AND relation = 'user_logins'::regclass";
    while database.admin.query(waiting, &[]).await.unwrap().is_empty() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }

    let written = invoke_within(&ingest, batch([login("b", "b")]).to_string(), Duration::from_secs(20)).await;
    writer.batch_execute("ROLLBACK").await.unwrap();
    let changed = accepting.await.unwrap();

    assert_eq!(written, failures(&[]));
    assert!(!changed);
    assert_eq!(database.user_ids().await, ["a", "b"]);
}

#[tokio::test]
async fn one_of_two_first_batches_decides_the_salt() {
    let database = Database::create().await;
    let mut tasks = tokio::task::JoinSet::new();
    for worker in 0..8 {
        let ingest = ingest_with_salt(&database, if worker % 2 == 0 { SALT } else { OTHER_SALT }).await;
        tasks.spawn(async move { invoke(&ingest, &batch([login(&format!("{worker}"), "x")])).await.is_ok() });
    }

    let written = tasks.join_all().await.into_iter().filter(|written| *written).count();

    assert_eq!(written, 4);
    let tokens = "SELECT DISTINCT masked_ip FROM user_logins";
    assert_eq!(
        database.admin.query(tokens, &[]).await.unwrap().len(),
        1,
        "the table holds tokens of two salts"
    );
    assert_eq!(database.rows().await.len(), 4);
}

#[tokio::test]
async fn rolled_back_batch_decides_no_salt() {
    let database = Database::create().await;
    database.admin.batch_execute("ALTER TABLE user_logins RENAME COLUMN locale TO language").await.unwrap();
    let old = ingest_with_salt(&database, SALT).await;
    assert_eq!(error_type(&invoke(&old, &batch([login("a", "a")])).await), "DatabaseRefused");
    database.admin.batch_execute("ALTER TABLE user_logins RENAME COLUMN language TO locale").await.unwrap();

    let new = ingest_with_salt(&database, OTHER_SALT).await;

    assert_eq!(invoke(&new, &batch([login("a", "a")])).await, failures(&[]));
}

#[tokio::test]
async fn batch_without_fingerprint_is_refused() {
    let database = Database::create().await;
    let check = "SELECT check_salt(NULL)";

    let before_the_first = database.admin.query_one(check, &[]).await.map(drop);
    let decided = database.admin.query("SELECT FROM salt_fingerprint", &[]).await.unwrap().len();
    database.execute("SELECT check_salt('salt')").await;
    let after_the_first = database.admin.query_one(check, &[]).await.map(drop);

    for outcome in [before_the_first, after_the_first] {
        assert_eq!(outcome.unwrap_err().code().map(SqlState::code), Some("LE001"));
    }
    assert_eq!(decided, 0);
}

#[test]
fn fingerprint_is_stable_and_no_token() {
    let masker = Masker::new(&SALT.into()).unwrap();

    // printf 'salt:fingerprint' | openssl dgst -sha256 -hmac 0123456789abcdef0123456789abcdef
    assert_eq!(masker.salt_fingerprint().as_str(), "3b0a1a8fbcb7edc1");
}

#[tokio::test]
async fn refused_accept_salt_is_not_tried_again() {
    let database = Database::create().await;
    let mut writer = connect(&database.url().parse().unwrap()).await;

    let error = schema::accept_salt(&mut writer, "public", &masker().salt_fingerprint()).await.unwrap_err();

    assert_eq!(
        error.to_string(),
        "Postgres refused: permission denied for table user_logins, SQLSTATE 42501"
    );
}

/// Returns the maskers of the accepted salt, and of the salt after it.
fn generations() -> Vec<Masker> {
    Salts::new(SALT.into(), vec![OTHER_SALT.into()]).maskers().unwrap()
}

/// Makes a salt the accepted salt, as `resalt` does at its end.
async fn accept(database: &Database, masker: &Masker) {
    let fingerprint = masker.salt_fingerprint();
    let pin = format!("UPDATE salt_fingerprint SET fingerprint = '{}'", fingerprint.as_str());
    database.execute(&pin).await;
}

/// Returns the different tokens of the addresses in the table.
async fn tokens(database: &Database) -> Vec<String> {
    let select = "SELECT DISTINCT masked_ip FROM user_logins ORDER BY 1";
    database.admin.query(select, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

/// A small batch, a large batch, a batch of a FIFO queue and a batch with a refused row.
fn batches() -> [serde_json::Value; 4] {
    [
        batch([login("a", "a")]),
        batch((0..1000).map(|number| login(&format!("large {number}"), "x"))),
        batch([fifo("f", "group", body("f").to_string()), fifo("g", "group", body("g").to_string())]),
        batch([login("r", "refused"), login("s", "s"), login("bad", "")]),
    ]
}

#[tokio::test]
async fn process_masks_with_the_generation_that_is_accepted() {
    let refuse = "ALTER TABLE user_logins ADD CHECK (user_id <> 'refused') NOT VALID";
    for place in [0, 1] {
        let masker = &generations()[place];
        let expected = masker.clone().mask(&Pii::<Ip>::new("203.0.113.77".into()).unwrap());
        for event in batches() {
            let database = Database::create().await;
            database.execute(refuse).await;
            let first = ingest_with_salt(&database, SALT).await;
            assert_eq!(invoke(&first, &batch([login("first", "first")])).await, failures(&[]));
            database.execute("TRUNCATE user_logins").await;
            accept(&database, masker).await;
            let store = store_with(&[("DATABASE_URL", &database.url())]).await;
            let ingest = Ingest::with_generations(generations(), store);
            let expected_failures =
                if event.to_string().contains("refused") { &["r", "bad"][..] } else { &[] };

            for _ in 0..2 {
                let done = invoke(&ingest, &event).await.unwrap();
                assert_eq!(done, failures(expected_failures).unwrap());
            }

            assert_eq!(tokens(&database).await, [expected.as_str()]);
            assert_eq!(ingest.salt_fingerprint(), &masker.salt_fingerprint());
        }
    }
}

/// The same process, before and after a resalt.
#[tokio::test]
async fn process_follows_a_resalt() {
    let database = Database::create().await;
    let first = ingest_with_salt(&database, SALT).await;
    assert_eq!(invoke(&first, &batch([login("first", "first")])).await, failures(&[]));
    let store = store_with(&[("DATABASE_URL", &database.url())]).await;
    let ingest = Ingest::with_generations(generations(), store);
    let logs = Logs::capture();

    let mut fingerprints = Vec::new();
    for (number, place) in [0, 0, 1, 1].into_iter().enumerate() {
        accept(&database, &generations()[place]).await;
        let event = batch([login(&format!("{number}"), &format!("{number}"))]);
        assert_eq!(invoke(&ingest, &event).await, failures(&[]));
        fingerprints.push(ingest.salt_fingerprint().clone());
    }
    accept(&database, &Masker::new(&"0123456789abcdefghijklmnopqrstuv".into()).unwrap()).await;
    let unknown = invoke(&ingest, &batch([login("x", "x")])).await;

    let [earlier, later] = [0, 1].map(|place| generations()[place].salt_fingerprint());
    assert_eq!(fingerprints, [earlier.clone(), earlier, later.clone(), later]);
    assert_eq!(logs.lines("the database accepts another generation of the salt").len(), 2);
    assert_eq!(error_type(&unknown), "SaltChanged");
    assert_eq!(tokens(&database).await.len(), 2);
}

#[tokio::test]
async fn first_batch_decides_for_the_last_salt() {
    let database = Database::create().await;
    let store = store_with(&[("DATABASE_URL", &database.url())]).await;
    let ingest = Ingest::with_generations(generations(), store);

    assert_eq!(invoke(&ingest, &batch([login("a", "a")])).await, failures(&[]));

    let read = "SELECT fingerprint FROM salt_fingerprint";
    let accepted: String = database.admin.query_one(read, &[]).await.unwrap().get(0);
    assert_eq!(accepted, generations()[1].salt_fingerprint().as_str());
}
