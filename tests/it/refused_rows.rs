//! Rows that Postgres refuses although their messages decode: users add constraints and triggers.

use serde_json::Value;

use crate::support::{Database, Logs, batch, body, error_type, failures, fifo, invoke, login, record};

/// Returns a record of a good login with this locale.
fn login_in_locale(id: &str, locale: &str) -> Value {
    let mut body = body(id);
    body["locale"] = locale.into();
    record(id, body.to_string())
}

#[tokio::test]
async fn row_refused_by_constraint_fails_alone() {
    let database = Database::create().await;
    database.admin.batch_execute("ALTER TABLE user_logins ADD CHECK (locale <> 'XX')").await.unwrap();
    let ingest = database.ingest().await;
    let logs = Logs::capture();
    let records = (0..50)
        .map(|number| login_in_locale(&format!("m{number:02}"), if number == 31 { "XX" } else { "RU" }));
    let event = batch(records);

    let answer = invoke(&ingest, &event).await;
    let repeated = invoke(&ingest, &event).await;

    assert_eq!(answer, failures(&["m31"]));
    assert_eq!(repeated, failures(&["m31"]));
    assert_eq!(database.user_ids().await.len(), 49);
    assert_eq!(database.ledger_entries().await, 49);
    assert_eq!(logs.lines("message failed")[0]["reason"], "RowRefused");
    assert_eq!(logs.lines("message failed")[0]["error"], "Postgres refused the row, SQLSTATE 23514");
    assert!(!logs.text().contains("XX"), "the log quotes the row, as Postgres's DETAIL does");
}

#[tokio::test]
async fn all_rows_refused_is_reported() {
    let database = Database::create().await;
    database.admin.batch_execute("ALTER TABLE user_logins ADD CHECK (locale <> 'XX')").await.unwrap();
    let ingest = database.ingest().await;

    let answer = invoke(&ingest, &batch(["a", "b", "c"].map(|id| login_in_locale(id, "XX")))).await;

    assert_eq!(answer, failures(&["a", "b", "c"]));
    assert_eq!(database.ledger_entries().await, 0);
}

#[tokio::test]
async fn row_refused_by_trigger_fails_alone() {
    for raise in [
        "RAISE EXCEPTION 'no %', NEW.user_id",
        "RAISE EXCEPTION USING ERRCODE = '22023'",
        "RAISE EXCEPTION USING ERRCODE = '0A000'",
        "RAISE EXCEPTION USING ERRCODE = '42501'",
        "RAISE EXCEPTION USING ERRCODE = '45000'",
        "RAISE EXCEPTION USING ERRCODE = '55000'",
        "RAISE EXCEPTION USING ERRCODE = 'P0002'",
        "RAISE EXCEPTION USING ERRCODE = 'ZX001'",
        "ASSERT false",
    ] {
        let database = Database::create().await;
        let trigger = format!(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN
                 IF NEW.locale = 'XX' THEN {raise}; END IF;
                 RETURN NEW;
             END $$;
             CREATE TRIGGER refuse BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION refuse()"
        );
        database.admin.batch_execute(&trigger).await.unwrap();
        let ingest = database.ingest().await;

        let answer = invoke(
            &ingest,
            &batch([login_in_locale("a", "RU"), login_in_locale("b", "XX"), login_in_locale("c", "FR")]),
        )
        .await;

        assert_eq!(answer, failures(&["b"]), "{raise}");
        assert_eq!(database.user_ids().await, ["a", "c"], "{raise}");
    }
}

#[tokio::test]
async fn row_refused_by_row_security_fails_alone() {
    let database = Database::create().await;
    let policy = "ALTER TABLE user_logins ENABLE ROW LEVEL SECURITY;
                  CREATE POLICY writer ON user_logins FOR INSERT WITH CHECK (locale <> 'XX')";
    database.admin.batch_execute(policy).await.unwrap();
    let ingest = database.ingest().await;

    let some = invoke(&ingest, &batch([login_in_locale("a", "RU"), login_in_locale("b", "XX")])).await;
    let all = invoke(&ingest, &batch([login_in_locale("c", "XX")])).await;

    assert_eq!([some, all], [failures(&["b"]), failures(&["c"])]);
    assert_eq!(database.user_ids().await, ["a"]);
}

#[tokio::test]
async fn missing_privilege_fails_the_batch() {
    let missing_table = "REVOKE INSERT ON user_logins FROM login_writer";
    let missing_sequence = "ALTER TABLE user_logins ADD COLUMN id serial";
    for statement in [missing_table, missing_sequence] {
        let database = Database::create().await;
        database.admin.batch_execute(statement).await.unwrap();
        let ingest = database.ingest().await;

        let outcome = invoke(&ingest, &batch((0..100).map(|number| login(&number.to_string(), "u")))).await;

        assert_eq!(error_type(&outcome), "DatabaseRefused", "{statement}");
        assert_eq!(database.ledger_entries().await, 0, "{statement}");
    }
}

#[tokio::test]
async fn rule_on_the_table_allows_redelivery() {
    let database = Database::create().await;
    let rule = "CREATE TABLE copies (user_id text);
                GRANT INSERT ON copies TO login_writer;
                CREATE RULE copy AS ON INSERT TO user_logins DO ALSO INSERT INTO copies VALUES (NEW.user_id)";
    database.admin.batch_execute(rule).await.unwrap();
    let ingest = database.ingest().await;

    let answer = invoke(&ingest, &batch([login("a", "a")])).await;
    let redelivered = invoke(&ingest, &batch([login("a", "a"), login("b", "b")])).await;

    assert_eq!([answer, redelivered], [failures(&[]), failures(&[])]);
    assert_eq!(database.user_ids().await, ["a", "b"]);
}

/// The time limit of the invocation is the test: row by row over the network, this took longer.
#[tokio::test]
async fn thousands_of_refused_rows_are_isolated() {
    for refused_every in [1, 2, 100] {
        let database = Database::create().await;
        database.admin.batch_execute("ALTER TABLE user_logins ADD CHECK (locale <> 'XX')").await.unwrap();
        let ingest = database.ingest().await;
        let is_refused = |number: &usize| number.is_multiple_of(refused_every);
        let records = (0..10_000).map(|number| {
            login_in_locale(&format!("m{number:05}"), if is_refused(&number) { "XX" } else { "RU" })
        });

        let answer = invoke(&ingest, &batch(records)).await.unwrap();

        let refused = (0..10_000).filter(is_refused).count();
        assert_eq!(answer["batchItemFailures"].as_array().unwrap().len(), refused, "every {refused_every}");
        let written = i64::try_from(10_000 - refused).unwrap();
        assert_eq!(database.ledger_entries().await, written, "every {refused_every}");
    }
}

#[tokio::test]
async fn row_refused_by_deferred_constraint_fails_alone() {
    let database = Database::create().await;
    let constraint = "ALTER TABLE user_logins ADD UNIQUE (user_id) DEFERRABLE INITIALLY DEFERRED";
    database.admin.batch_execute(constraint).await.unwrap();
    let ingest = database.ingest().await;
    assert_eq!(invoke(&ingest, &batch([login("a", "taken")])).await, failures(&[]));

    let answer =
        invoke(&ingest, &batch([login("b", "free"), login("c", "taken"), login("d", "also free")])).await;

    assert_eq!(answer, failures(&["c"]));
    assert_eq!(database.user_ids().await, ["also free", "free", "taken"]);
}

#[tokio::test]
async fn refused_row_holds_back_its_fifo_group() {
    let database = Database::create().await;
    database.admin.batch_execute("ALTER TABLE user_logins ADD CHECK (user_id <> 'bad')").await.unwrap();
    let ingest = database.ingest().await;
    let message = |id: &str, group: &str, user: &str| fifo(id, group, body(user).to_string());
    let event = batch([
        message("z1", "a", "a1"),
        message("y2", "a", "bad"),
        message("b1", "b", "b1"),
        message("a3", "a", "a3"),
        message("b2", "b", "b2"),
        message("a4", "a", "bad"),
    ]);

    let answer = invoke(&ingest, &event).await;

    assert_eq!(answer, failures(&["y2", "a3", "a4"]));
    assert_eq!(database.user_ids().await, ["a1", "b1", "b2"]);
    assert_eq!(database.ledger_entries().await, 3);
}
