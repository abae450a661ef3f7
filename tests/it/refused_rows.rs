//! Rows that Postgres refuses although their messages decode: users add constraints and triggers.

use std::time::Duration;

use serde_json::Value;

use crate::support::{
    Database, Logs, batch, body, connect, error_type, failures, fifo, invoke, invoke_within, login, record,
    superuser,
};

/// A trigger that takes 20 ms for each row.
const SLOW_TRIGGER: &str = "
    CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM pg_sleep(0.02);
        RETURN NEW;
    END $$;
    CREATE TRIGGER wait BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION wait()";

/// Returns the ids that an answer reports.
fn reported(answer: &Value) -> Vec<String> {
    let failures = answer["batchItemFailures"].as_array().unwrap().iter();
    failures.map(|failure| failure["itemIdentifier"].as_str().unwrap().to_owned()).collect()
}

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
async fn first_value_too_long_for_column_fails_alone() {
    let database = Database::create().await;
    database.execute("ALTER TABLE user_logins ALTER COLUMN locale TYPE varchar(2)").await;
    let ingest = database.ingest().await;

    let answer = invoke(&ingest, &batch([login_in_locale("a", "rus"), login_in_locale("b", "RU")])).await;

    assert_eq!(answer, failures(&["a"]));
    assert_eq!(database.user_ids().await, ["b"]);
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

/// A rule, and the number of rows that it suppresses in a batch of two messages.
#[tokio::test]
async fn rule_on_the_table_allows_redelivery() {
    let copy = "INSERT INTO copies VALUES (NEW.user_id)";
    for (rule, written, copied, suppressed) in [
        (format!("DO ALSO {copy}"), vec!["a", "b"], vec!["a", "b"], 0),
        (format!("DO INSTEAD {copy}"), vec![], vec!["a", "b"], 0),
        (format!("WHERE NEW.user_id = 'a' DO INSTEAD {copy}"), vec!["b"], vec!["a"], 1),
        ("DO INSTEAD NOTHING".to_owned(), vec![], vec![], 2),
    ] {
        let database = Database::create().await;
        let create = format!(
            "CREATE TABLE copies (user_id text);
             GRANT INSERT ON copies TO login_writer;
             CREATE RULE rule AS ON INSERT TO user_logins {rule}"
        );
        database.execute(&create).await;
        let ingest = database.ingest().await;
        let logs = Logs::capture();

        let answer = invoke(&ingest, &batch([login("a", "a")])).await;
        let redelivered = invoke(&ingest, &batch([login("a", "a"), login("b", "b")])).await;
        let repeated = invoke(&ingest, &batch([login("b", "b"), login("a", "a")])).await;

        assert_eq!([answer, redelivered, repeated], std::array::from_fn(|_| failures(&[])), "{rule}");
        assert_eq!(database.user_ids().await, written, "{rule}");
        let sql = "SELECT user_id FROM copies ORDER BY 1";
        let copies = database.admin.query(sql, &[]).await.unwrap();
        assert_eq!(copies.iter().map(|row| row.get::<_, String>(0)).collect::<Vec<_>>(), copied, "{rule}");
        assert_eq!(database.ledger_entries().await, 2, "{rule}");
        let sum = |metric: &str| {
            logs.lines("batch done").iter().map(|line| line[metric].as_u64().unwrap()).sum::<u64>()
        };
        assert_eq!(sum("suppressed"), suppressed, "{rule}");
        assert_eq!(sum("duplicates"), 3, "{rule}");
    }
}

#[tokio::test]
async fn suppressed_rows_are_counted_as_such() {
    let to_other_table = "INSERT INTO elsewhere SELECT NEW.*; RETURN NULL";
    for action in ["RETURN NULL", to_other_table] {
        let database = Database::create().await;
        let trigger = format!(
            "CREATE TABLE elsewhere (LIKE user_logins);
             GRANT INSERT ON elsewhere TO login_writer;
             CREATE FUNCTION suppress() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN
                 IF NEW.locale = 'XX' THEN {action}; END IF;
                 RETURN NEW;
             END $$;
             CREATE TRIGGER suppress BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION suppress()"
        );
        database.execute(&trigger).await;
        let ingest = database.ingest().await;
        let logs = Logs::capture();
        let (first, second) = (login_in_locale("a", "XX"), login_in_locale("c", "XX"));

        let together = invoke(&ingest, &batch([first.clone(), login("b", "b")])).await;
        let row_by_row = invoke(&ingest, &batch([first, second, login("d", "d")])).await;

        assert_eq!([together, row_by_row], [failures(&[]), failures(&[])], "{action}");
        let counts = |line: &Value| ["written", "suppressed", "duplicates"].map(|name| line[name].as_u64());
        let lines = logs.lines("batch done");
        assert_eq!(counts(&lines[0]), [Some(1), Some(1), Some(0)], "{action}");
        assert_eq!(counts(&lines[1]), [Some(1), Some(1), Some(1)], "{action}");
        assert_eq!(database.ledger_entries().await, 4, "{action}");
    }
}

/// The time limit of the invocation is a part of the test: before, the function sent row by row over the network,
/// which took longer.
#[tokio::test]
async fn thousands_of_refused_rows_are_isolated() {
    let database = Database::create().await;
    database.execute("ALTER TABLE user_logins ADD CHECK (locale <> 'XX')").await;
    let ingest = database.ingest().await;
    for refused_every in [1, 2, 100] {
        let is_refused = |number: &usize| number.is_multiple_of(refused_every);
        let entries_before = database.ledger_entries().await;
        let records = (0..10_000).map(|number| {
            let id = format!("{refused_every}-{number:05}");
            login_in_locale(&id, if is_refused(&number) { "XX" } else { "RU" })
        });

        let answer = invoke(&ingest, &batch(records)).await.unwrap();

        let refused = (0..10_000).filter(is_refused).count();
        assert_eq!(reported(&answer).len(), refused, "every {refused_every}");
        let written = database.ledger_entries().await - entries_before;
        assert_eq!(written, i64::try_from(10_000 - refused).unwrap(), "every {refused_every}");
    }
}

/// Measures Postgres alone, because the function of a debug build is slow.
#[tokio::test]
async fn rows_written_when_time_runs_out_are_kept() {
    let database = Database::create().await;
    database.execute("ALTER TABLE user_logins ADD CHECK (locale <> 'XX')").await;
    database.execute(SLOW_TRIGGER).await;
    let ingest = database.ingest().await;
    let logs = Logs::capture();
    let locale = |number| if number % 10 == 0 { "XX" } else { "RU" };
    let event = batch((0..200).map(|number| login_in_locale(&format!("m{number:03}"), locale(number))));

    let answer = invoke_within(&ingest, event.to_string(), Duration::from_secs(3)).await.unwrap();

    let reported = reported(&answer);
    let written = database.user_ids().await;
    assert!(!written.is_empty());
    assert_eq!(written.len() + reported.len(), 200);
    assert_eq!(database.ledger_entries().await, i64::try_from(written.len()).unwrap());
    let reasons: Vec<_> = logs.lines("message failed").iter().map(|line| line["reason"].clone()).collect();
    let unreached = reasons.iter().position(|reason| reason == "OutOfTime").unwrap();
    assert!(unreached > 0);
    assert!(reported[unreached..].iter().all(|id| !written.contains(id)));
    assert_eq!(
        logs.lines("batch done")[0]["refused"],
        reasons.iter().filter(|reason| *reason == "RowRefused").count()
    );
}

#[tokio::test]
async fn fifo_order_is_kept_when_time_runs_out() {
    let database = Database::create().await;
    database.execute("ALTER TABLE user_logins ADD CHECK (user_id <> 'bad')").await;
    database.execute(SLOW_TRIGGER).await;
    let ingest = database.ingest().await;
    let user = |number: usize| if number == 1 { "bad".to_owned() } else { format!("{number:03}") };
    let group = |number: usize| if number.is_multiple_of(2) { "even" } else { "odd" };
    let record = |number| fifo(&format!("m{number:03}"), group(number), body(&user(number)).to_string());

    let answer =
        invoke_within(&ingest, batch((0..200).map(record)).to_string(), Duration::from_secs(2)).await;

    let written = database.user_ids().await;
    let expected: Vec<_> = (0..200).step_by(2).map(user).take(written.len()).collect();
    assert_eq!(written, expected);
    assert!((1..100).contains(&written.len()), "{} rows", written.len());
    assert_eq!(reported(&answer.unwrap()).len(), 200 - written.len());
}

/// The slow trigger fails no row, so nothing can be isolated.
#[tokio::test]
async fn slow_trigger_without_refusal_times_out() {
    let database = Database::create().await;
    database.execute(SLOW_TRIGGER).await;
    let ingest = database.ingest().await;
    let event = batch((0..200).map(|number| login(&format!("{number}"), "u")));

    let outcome = invoke_within(&ingest, event.to_string(), Duration::from_secs(2)).await;

    assert_eq!(error_type(&outcome), "DatabaseTimedOut");
    assert_eq!(database.ledger_entries().await, 0);
}

/// A function with the exact types is a better match than the polymorphic function of `pg_catalog`.
#[tokio::test]
async fn planted_functions_are_not_called() {
    let database = Database::create().await;
    database.execute("ALTER TABLE user_logins ADD CHECK (locale <> 'XX')").await;
    for function in [
        "unnest(timestamptz[])",
        "unnest(uuid[])",
        "unnest(text[])",
        "unnest(integer[])",
        "cardinality(uuid[])",
        "cardinality(integer[])",
        "array_fill(text, integer[])",
        "array_fill(integer, integer[])",
        "generate_subscripts(uuid[], integer)",
        "array_append(integer[], integer)",
        "array_append(text[], text)",
        "array_cat(integer[], integer[])",
        "array_cat(text[], text[])",
    ] {
        let returns = if function.starts_with("card") { "integer" } else { "text" };
        let plant = format!(
            "CREATE FUNCTION public.{function} RETURNS {returns} LANGUAGE plpgsql
             AS $$ BEGIN RAISE 'planted'; END $$"
        );
        database.execute(&plant).await;
    }
    for aggregated in ["integer", "text", "boolean"] {
        let plant = format!(
            "CREATE FUNCTION public.planted(integer, {aggregated}) RETURNS integer LANGUAGE plpgsql
             AS $$ BEGIN RAISE 'planted'; END $$;
             CREATE AGGREGATE public.array_agg({aggregated}) (SFUNC = planted, STYPE = integer)"
        );
        database.execute(&plant).await;
    }
    let ingest = database.ingest().await;
    let fifo = |id: &str, locale: &str| {
        let mut record = login_in_locale(id, locale);
        record["eventSourceARN"] = "arn:aws:sqs:eu-central-1:123456789012:logins.fifo".into();
        record
    };

    let together = invoke(&ingest, &batch([login("a", "a")])).await;
    let row_by_row = invoke(&ingest, &batch([login("a", "a"), login_in_locale("b", "XX")])).await;
    let fifo_together = invoke(&ingest, &batch([fifo("c", "RU")])).await;
    let fifo_row_by_row = invoke(&ingest, &batch([fifo("d", "RU"), fifo("e", "XX"), fifo("f", "RU")])).await;

    assert_eq!([together, row_by_row], [failures(&[]), failures(&["b"])]);
    assert_eq!([fifo_together, fifo_row_by_row], [failures(&[]), failures(&["e", "f"])]);
    assert_eq!(database.user_ids().await, ["a", "c", "d"]);
}

#[tokio::test]
async fn search_path_redirects_no_row() {
    let database = Database::create().await;
    let other_tables = format!(
        "CREATE SCHEMA other;
         CREATE TABLE other.user_logins (LIKE public.user_logins);
         CREATE TABLE other.processed_messages (LIKE public.processed_messages);
         CREATE TABLE other.processed_fifo_messages (LIKE public.processed_fifo_messages);
         CREATE TABLE other.salt_fingerprint (LIKE public.salt_fingerprint);
         GRANT USAGE ON SCHEMA other TO PUBLIC;
         GRANT ALL ON ALL TABLES IN SCHEMA other TO PUBLIC;
         ALTER ROLE {} SET search_path = other, public",
        database.name
    );
    database.execute(&other_tables).await;
    let ingest = database.ingest().await;

    invoke(&ingest, &batch([login("a", "a")])).await.unwrap();
    invoke(&ingest, &batch([login("a", "a"), login("b", "b")])).await.unwrap();
    invoke(&ingest, &batch([fifo("c", "g", body("c").to_string())])).await.unwrap();

    assert_eq!(database.user_ids().await, ["a", "b", "c"]);
    assert_eq!(database.ledger_entries().await, 3);
}

/// The function of the previous release sends no time limit, and sends the names of the FIFO groups.
#[tokio::test]
async fn older_function_isolates_refused_rows() {
    let database = Database::create().await;
    database.execute("ALTER TABLE user_logins ADD CHECK (locale <> 'XX')").await;
    let session = connect(superuser().dbname(&database.name)).await;
    session.batch_execute("SET ROLE login_writer").await.unwrap();
    let call = |groups: &str| {
        format!(
            "SELECT inserted, failed_rows, failed_sqlstates FROM write_logins_row_by_row(
                 array_fill(now(), ARRAY[4]),
                 ARRAY(SELECT gen_random_uuid() FROM generate_series(1, 4)),
                 array_fill('u'::text, ARRAY[4]), array_fill(NULL::text, ARRAY[4]),
                 array_fill(NULL::text, ARRAY[4]), array_fill(NULL::text, ARRAY[4]),
                 '{{RU,XX,RU,RU}}', array_fill(1, ARRAY[4]), 'salt', '{groups}'::text[])"
        )
    };

    for (groups, inserted, failed) in
        [("{}", 3, vec![(2, Some("23514"))]), ("{a,b,a,b}", 2, vec![(2, Some("23514")), (4, None)])]
    {
        let outcome = session.query_one(&call(groups), &[]).await.unwrap();

        assert_eq!(outcome.get::<_, i64>(0), inserted);
        let (rows, sqlstates): (Vec<i32>, Vec<Option<&str>>) = (outcome.get(1), outcome.get(2));
        assert_eq!(rows.into_iter().zip(sqlstates).collect::<Vec<_>>(), failed);
    }
}

#[tokio::test]
async fn row_refused_by_deferred_constraint_fails_alone() {
    let database = Database::create().await;
    let constraint =
        "ALTER TABLE user_logins ADD UNIQUE (user_id, create_date) DEFERRABLE INITIALLY DEFERRED";
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
