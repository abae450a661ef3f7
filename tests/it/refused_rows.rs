//! Rows that Postgres refuses, for reasons that no decoder can know.

use serde_json::Value;

use crate::support::{Database, Logs, batch, body, failures, fifo, invoke, login, record};

fn in_locale(id: &str, locale: &str) -> Value {
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
    let records =
        (0..50).map(|number| in_locale(&format!("m{number:02}"), if number == 31 { "XX" } else { "RU" }));
    let event = batch(records);

    let answer = invoke(&ingest, &event).await;
    let again = invoke(&ingest, &event).await;

    assert_eq!(answer, failures(&["m31"]));
    assert_eq!(again, failures(&["m31"]));
    assert_eq!(database.user_ids().await.len(), 49);
    assert_eq!(database.ledger_entries().await, 49);
    assert_eq!(logs.lines("message failed")[0]["reason"], "RowRefused");
    assert_eq!(logs.lines("message failed")[0]["error"], "Postgres refused the row, SQLSTATE 23514");
    assert!(!logs.text().contains("XX"), "Postgres's DETAIL quotes the row, and nothing of it is logged");
}

#[tokio::test]
async fn all_rows_refused_is_reported() {
    let database = Database::create().await;
    database.admin.batch_execute("ALTER TABLE user_logins ADD CHECK (locale <> 'XX')").await.unwrap();
    let ingest = database.ingest().await;

    let answer = invoke(&ingest, &batch(["a", "b", "c"].map(|id| in_locale(id, "XX")))).await;

    assert_eq!(answer, failures(&["a", "b", "c"]));
    assert_eq!(database.ledger_entries().await, 0);
}

#[tokio::test]
async fn row_refused_by_trigger_fails_alone() {
    for raise in ["RAISE EXCEPTION 'no %', NEW.user_id", "RAISE EXCEPTION USING ERRCODE = '22023'"] {
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

        let answer =
            invoke(&ingest, &batch([in_locale("a", "RU"), in_locale("b", "XX"), in_locale("c", "FR")])).await;

        assert_eq!(answer, failures(&["b"]), "{raise}");
        assert_eq!(database.user_ids().await, ["a", "c"], "{raise}");
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
