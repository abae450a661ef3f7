//! Each message is written once, however often SQS delivers it.

use std::time::Duration;

use login_etl::schema;
use serde_json::{Value, json};

use crate::support::{
    Database, Logs, batch, body, connect, failures, fifo, invoke, login, record, superuser,
};

/// Returns the record as the mapping of the dead-letter queue delivers it. Only a FIFO queue
/// [resets the time of sending][reset].
///
/// [reset]: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-dead-letter-queues.html
fn dead_letter(mut record: Value) -> Value {
    if record["attributes"].get("MessageGroupId").is_some() {
        record["eventSourceARN"] = "arn:aws:sqs:eu-central-1:123456789012:dead.fifo".into();
        record["attributes"]["SentTimestamp"] = "1795824000000".into();
    } else {
        record["eventSourceARN"] = "arn:aws:sqs:eu-central-1:123456789012:dead".into();
    }
    record["attributes"]["ApproximateReceiveCount"] = "21".into();
    record
}

fn fifo_login(id: &str, user: &str) -> Value {
    fifo(id, "group", body(user).to_string())
}

#[tokio::test]
async fn redelivered_batch_adds_nothing() {
    let database = Database::create().await;
    let ingest = database.ingest().await;
    let event = batch([login("a", "a"), login("b", "b")]);

    let first = invoke(&ingest, &event).await;
    let again = invoke(&ingest, &event).await;
    let regrouped = invoke(&ingest, &batch([login("c", "c"), login("b", "b")])).await;

    assert_eq!([first, again, regrouped], [failures(&[]), failures(&[]), failures(&[])]);
    assert_eq!(database.user_ids().await, ["a", "b", "c"]);
}

#[tokio::test]
async fn written_dead_letter_adds_nothing() {
    for login in [login, fifo_login] {
        let database = Database::create().await;
        let ingest = database.ingest().await;
        let written = invoke(&ingest, &batch([login("a", "a"), login("b", "b")])).await;
        let again = invoke(&ingest, &batch([login("b", "b"), login("c", "c")])).await;

        // Alone, and with a message that was never written.
        let redriven = invoke(&ingest, &batch([dead_letter(login("a", "a"))])).await;
        let event =
            batch([dead_letter(login("b", "b")), dead_letter(login("c", "c")), dead_letter(login("d", "d"))]);
        let with_new = invoke(&ingest, &event).await;
        let repeated = invoke(&ingest, &event).await;

        assert_eq!([written, again, redriven, with_new, repeated], std::array::from_fn(|_| failures(&[])));
        assert_eq!(database.user_ids().await, ["a", "b", "c", "d"]);
        assert_eq!(database.ledger_entries().await, 4);
    }
}

/// The ledger of an older function has only the key with the time.
#[tokio::test]
async fn fifo_redelivery_after_upgrade_adds_nothing() {
    let database = Database::create().await;
    let ingest = database.ingest().await;
    invoke(&ingest, &batch([fifo_login("a", "a")])).await.unwrap();
    database.execute("TRUNCATE processed_fifo_messages").await;

    let answer = invoke(&ingest, &batch([fifo_login("a", "a"), fifo_login("b", "b")])).await;

    assert_eq!(answer, failures(&[]));
    assert_eq!(database.user_ids().await, ["a", "b"]);
}

/// `StartMessageMoveTask` and a sender that sends a body again give the message another id.
#[tokio::test]
async fn new_message_id_is_a_new_row() {
    for login in [login, fifo_login] {
        let database = Database::create().await;
        let ingest = database.ingest().await;

        invoke(&ingest, &batch([login("a", "u")])).await.unwrap();
        invoke(&ingest, &batch([login("moved", "u")])).await.unwrap();

        assert_eq!(database.user_ids().await, ["u", "u"]);
    }
}

#[tokio::test]
async fn standard_queue_needs_no_fifo_ledger() {
    let database = Database::create().await;
    let ingest = database.ingest().await;
    let mut of_fair_queue = login("b", "b");
    of_fair_queue["attributes"]["MessageGroupId"] = "tenant".into();

    invoke(&ingest, &batch([login("a", "a"), of_fair_queue])).await.unwrap();
    invoke(&ingest, &batch([login("a", "a"), login("c", "c")])).await.unwrap();

    assert_eq!(database.ledger_entries().await, 3);
    assert_eq!(database.fifo_ledger_entries().await, 0);
}

#[tokio::test]
async fn message_twice_in_one_batch_is_one_row() {
    let database = Database::create().await;
    let ingest = database.ingest().await;

    let answer = invoke(&ingest, &batch([login("a", "a"), login("b", "b"), login("a", "a")])).await;

    assert_eq!(answer, failures(&[]));
    assert_eq!(database.user_ids().await, ["a", "b"]);
}

/// The second batch repeats a message, so it is written by the other statement.
#[tokio::test]
async fn both_statements_write_the_same_row() {
    let database = Database::create().await;
    let ingest = database.ingest().await;

    invoke(&ingest, &batch([login("a", "u")])).await.unwrap();
    invoke(&ingest, &batch([login("a", "u"), login("b", "u")])).await.unwrap();

    let rows = database.rows().await;
    assert_eq!(rows.len(), 2);
    assert_eq!(rows[0], rows[1]);
}

#[tokio::test]
async fn equal_logins_in_two_messages_are_two_rows() {
    let database = Database::create().await;
    let ingest = database.ingest().await;

    invoke(&ingest, &batch([login("a", "same"), login("b", "same")])).await.unwrap();

    assert_eq!(database.user_ids().await, ["same", "same"]);
}

#[tokio::test]
async fn ids_of_any_shape_are_distinct() {
    let database = Database::create().await;
    let ingest = database.ingest().await;
    let ids = [
        "059f36b4-87a3-44ab-83d2-661975830a7d",
        "059F36B4-87A3-44AB-83D2-661975830A7D",
        "059f36b487a344ab83d2661975830a7d",
        "{059f36b4-87a3-44ab-83d2-661975830a7d}",
        "nul \0 inside",
        "é",
    ];

    let answer = invoke(&ingest, &batch(ids.map(|id| login(id, "u")))).await;

    assert_eq!(answer, failures(&[]));
    assert_eq!(database.ledger_entries().await, 6);
    let sql = "SELECT FROM processed_messages WHERE message_id = '059f36b4-87a3-44ab-83d2-661975830a7d'";
    assert_eq!(database.admin.query(sql, &[]).await.unwrap().len(), 1, "the ledger changed an id of SQS");
}

#[tokio::test]
async fn overlapping_batches_write_each_message_once() {
    let database = Database::create().await;
    let mut tasks = tokio::task::JoinSet::new();
    for worker in 0..8_usize {
        let ingest = database.ingest().await;
        tasks.spawn(async move {
            for round in 0..20_usize {
                // Successive batches share ten messages, and every worker has another order.
                let mut numbers: Vec<usize> = (0..30).map(|number| round * 20 + number).collect();
                numbers.rotate_left(worker * 3);
                let records =
                    numbers.iter().map(|number| login(&format!("m{number}"), &format!("{number:03}")));
                assert_eq!(invoke(&ingest, &batch(records)).await, failures(&[]));
            }
        });
    }
    while let Some(outcome) = tasks.join_next().await {
        outcome.unwrap();
    }

    let expected: Vec<_> = (0..410).map(|number| format!("{number:03}")).collect();
    assert_eq!(database.user_ids().await, expected);
}

#[tokio::test]
async fn create_date_is_the_utc_day_of_sending() {
    let database = Database::create().await;
    let zone = format!("ALTER ROLE {} SET timezone = 'Pacific/Kiritimati'", database.name);
    database.admin.batch_execute(&zone).await.unwrap();
    let ingest = database.ingest().await;
    let sent = |id: &str, millis: &str| {
        let mut record = login(id, id);
        record["attributes"]["SentTimestamp"] = json!(millis);
        record
    };
    let mut undated = login("d today", "d today");
    undated.as_object_mut().unwrap().remove("attributes");
    let event = batch([
        sent("a epoch", "0"),
        sent("b last of 2026", "1798761599999"),
        sent("c first of 2027", "1798761600000"),
        undated,
    ]);

    invoke(&ingest, &event).await.unwrap();
    invoke(&ingest, &event).await.unwrap();

    let sql = "SELECT create_date::text, create_date = (now() AT TIME ZONE 'UTC')::date
               FROM user_logins ORDER BY user_id";
    let rows = database.admin.query(sql, &[]).await.unwrap();
    let dates: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(dates[..3], ["1970-01-01", "2026-12-31", "2027-01-01"]);
    assert!(rows[3].get::<_, bool>(1));
    assert_eq!(rows.len(), 4);
}

#[tokio::test]
async fn ten_thousand_messages_are_written() {
    let database = Database::create().await;
    let ingest = database.ingest().await;
    let event = batch((0..10_000).map(|number| login(&format!("m{number}"), &format!("{number}"))));

    let answer = invoke(&ingest, &event).await;

    assert_eq!(answer, failures(&[]));
    assert_eq!(database.ledger_entries().await, 10_000);
    assert_eq!(database.user_ids().await.len(), 10_000);
}

#[tokio::test]
async fn prune_drops_only_old_ledger_entries() {
    let mut database = Database::create().await;
    let one_entry_a_day = "INSERT INTO processed_messages
                SELECT (day - DATE '1970-01-01') % 32, day::timestamp AT TIME ZONE 'UTC', gen_random_uuid()
                FROM (SELECT (now() AT TIME ZONE 'UTC')::date - age AS day FROM generate_series(-1, 30) AS age) AS days";
    database.admin.batch_execute(one_entry_a_day).await.unwrap();

    schema::prune(&mut database.admin, "public").await.unwrap();
    schema::prune(&mut database.admin, "public").await.unwrap();

    let sql = "SELECT (now() AT TIME ZONE 'UTC')::date - (sent_at AT TIME ZONE 'UTC')::date
               FROM processed_messages ORDER BY 1";
    let ages: Vec<i32> = database.admin.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
    assert_eq!(ages, (-1..=15).collect::<Vec<_>>());
}

#[tokio::test]
async fn prune_leaves_a_partition_in_use() {
    let mut database = Database::create().await;
    let old_entry = "INSERT INTO processed_messages
                SELECT ((sent_at AT TIME ZONE 'UTC')::date - DATE '1970-01-01') % 32, sent_at, gen_random_uuid()
                FROM (SELECT now() - INTERVAL '20 days' AS sent_at) AS old";
    database.execute(old_entry).await;
    let dump = connect(superuser().dbname(&database.name)).await;
    dump.batch_execute("BEGIN; LOCK TABLE processed_messages IN ACCESS SHARE MODE").await.unwrap();

    schema::prune(&mut database.admin, "public").await.unwrap();
    let beside_the_dump = database.ledger_entries().await;
    dump.batch_execute("COMMIT").await.unwrap();
    schema::prune(&mut database.admin, "public").await.unwrap();

    assert_eq!([beside_the_dump, database.ledger_entries().await], [1, 0]);
}

#[tokio::test]
async fn prune_leaves_ledgers_that_are_locked() {
    let mut database = Database::create().await;
    let old_entries = "INSERT INTO processed_messages
                SELECT ((sent_at AT TIME ZONE 'UTC')::date - DATE '1970-01-01') % 32, sent_at, gen_random_uuid()
                FROM (SELECT now() - age * INTERVAL '1 day' AS sent_at FROM unnest('{18, 20}'::integer[]) AS age) AS old;
                INSERT INTO processed_fifo_messages VALUES (gen_random_uuid(), '2026-01-01')";
    database.execute(old_entries).await;
    let partition = "SELECT tableoid::regclass::text FROM processed_messages ORDER BY sent_at LIMIT 1";
    let partition: String = database.admin.query_one(partition, &[]).await.unwrap().get(0);
    let other = connect(superuser().dbname(&database.name)).await;
    let lock = format!("BEGIN; LOCK TABLE {partition}, processed_fifo_messages IN ACCESS EXCLUSIVE MODE");
    other.batch_execute(&lock).await.unwrap();

    schema::prune(&mut database.admin, "public").await.unwrap();
    other.batch_execute("COMMIT").await.unwrap();
    let left = [database.ledger_entries().await, database.fifo_ledger_entries().await];
    schema::prune(&mut database.admin, "public").await.unwrap();

    assert_eq!(left, [1, 1]);
    assert_eq!([database.ledger_entries().await, database.fifo_ledger_entries().await], [0, 0]);
}

#[tokio::test]
async fn message_written_meanwhile_is_not_refused() {
    let database = Database::create().await;
    database
        .execute("ALTER TABLE user_logins ADD UNIQUE (user_id, create_date); SELECT check_salt('salt')")
        .await;
    let other = connect(superuser().dbname(&database.name)).await;
    let message = "ARRAY[timestamptz '2026-01-01'], ARRAY['00000000-0000-0000-0000-000000000001'::uuid],
        ARRAY['u'], ARRAY['ios'], ARRAY[NULL::text], ARRAY[NULL::text], ARRAY['RU'], ARRAY[1], 'salt'";
    other.batch_execute(&format!("BEGIN; SELECT write_logins({message})")).await.unwrap();

    let row_by_row =
        format!("SELECT inserted, failed_rows FROM write_logins_row_by_row({message}, '{{}}', 29)");
    let commit = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        other.batch_execute("COMMIT").await.unwrap();
    };
    let (outcome, ()) = tokio::join!(database.admin.query_one(&row_by_row, &[]), commit);

    let outcome = outcome.unwrap();
    assert_eq!((outcome.get::<_, i64>(0), outcome.get::<_, Vec<i32>>(1)), (0, vec![]));
    assert_eq!(database.user_ids().await, ["u"]);
}

#[tokio::test]
async fn prune_drops_only_old_fifo_entries() {
    let mut database = Database::create().await;
    let one_entry_a_day = "INSERT INTO processed_fifo_messages
                SELECT gen_random_uuid(), (now() AT TIME ZONE 'UTC')::date - age FROM generate_series(-1, 40) AS age";
    database.execute(one_entry_a_day).await;

    schema::prune(&mut database.admin, "public").await.unwrap();
    schema::prune(&mut database.admin, "public").await.unwrap();

    let sql = "SELECT (now() AT TIME ZONE 'UTC')::date - written_on FROM processed_fifo_messages ORDER BY 1";
    let ages: Vec<i32> = database.admin.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
    assert_eq!(ages, (-1..=30).collect::<Vec<_>>());
}

#[tokio::test]
async fn every_decoded_login_is_stored() {
    use proptest::strategy::{Strategy, ValueTree};
    use proptest::test_runner::{Config, TestRunner};

    let database = Database::create().await;
    let ingest = database.ingest().await;
    let mut runner = TestRunner::new(Config::default());
    let text = || proptest::option::of(proptest::string::string_regex(r"(?s).{0,40}").unwrap());
    let version = proptest::option::of("[0-9]{1,5}(\\.[0-9]{1,4}){0,3}");
    let fields = (text(), version, text(), text(), text(), text());
    let mut undecodable = 0;
    for round in 0..40 {
        let records = (0..50).map(|number| {
            let (user_id, app_version, device_type, ip, locale, device_id) =
                fields.new_tree(&mut runner).unwrap().current();
            let body = json!({
                "user_id": user_id, "app_version": app_version, "device_type": device_type,
                "ip": ip, "locale": locale, "device_id": device_id,
            });
            record(&format!("{round}-{number}"), body.to_string())
        });
        let logs = Logs::capture();

        invoke(&ingest, &batch(records)).await.unwrap();

        assert!(!logs.text().contains("RowRefused"), "Postgres refused a login that decodes");
        undecodable += logs.lines("message failed").len();
    }

    let written = database.ledger_entries().await;
    assert_eq!(written, 2000 - i64::try_from(undecodable).unwrap());
    assert!(written > 100, "only {written} of the generated messages are good");
}
