//! Attacks on the vault by those who may log in to the database: no ciphertext without a committed entry in the audit.

use std::collections::BTreeSet;

use proptest::prelude::{Just, Strategy, any, prop_oneof};
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use tokio_postgres::Client;

use crate::support::{connect, superuser};
use crate::vault_support::{Login, Vault, ask, broker, sqlstate, take};

const LOGINS: [Login<'static>; 2] =
    [Login { user: "a", ip: 1, device: 10 }, Login { user: "b", ip: 2, device: 10 }];

const NO_SUCH_ENTRY: &str = "LE004";
const INSUFFICIENT_PRIVILEGE: &str = "42501";
const INVALID_PARAMETER: &str = "22023";

/// Number of random interleavings.
/// With `VAULT_INTERLEAVINGS=10000` a longer run.
fn interleavings() -> usize {
    std::env::var("VAULT_INTERLEAVINGS").map_or(500, |number| number.parse().unwrap())
}

async fn vault() -> Vault {
    let vault = Vault::create().await;
    vault.write_sealed(7, &LOGINS).await;
    vault.fold().await;
    vault
}

/// Returns another session of the role of this session.
async fn another_session(vault: &Vault, session: &Client) -> Client {
    let role: String = session.query_one("SELECT session_user::text", &[]).await.unwrap().get(0);
    connect(superuser().user(&role).password(&role).dbname(&vault.database.name)).await
}

async fn entries(vault: &Vault) -> i64 {
    vault.database.admin.query_one("SELECT count(*) FROM vault_audit", &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn entry_of_the_same_transaction_is_refused() {
    let vault = vault().await;
    for (begin, then) in [
        ("BEGIN", "SELECT"),
        ("BEGIN; SAVEPOINT a", "RELEASE a"),
        ("BEGIN ISOLATION LEVEL SERIALIZABLE", "SELECT"),
        ("BEGIN; SET LOCAL synchronous_commit = off", "SAVEPOINT b"),
    ] {
        vault.broker.batch_execute(begin).await.unwrap();
        let entry = vault.ask(1).await;
        vault.broker.batch_execute(then).await.unwrap();

        let refused = take(&vault.broker, entry).await;

        assert_eq!(sqlstate(refused), NO_SUCH_ENTRY, "{begin}");
        vault.broker.batch_execute("ROLLBACK").await.unwrap();
        assert_eq!(sqlstate(take(&vault.broker, entry).await), NO_SUCH_ENTRY, "{begin}");
    }
    assert_eq!(entries(&vault).await, 0);
}

#[tokio::test]
async fn entry_that_is_rolled_back_is_refused() {
    let vault = vault().await;
    vault.broker.batch_execute("BEGIN; SAVEPOINT a").await.unwrap();
    let entry = vault.ask(1).await;
    vault.broker.batch_execute("ROLLBACK TO a; COMMIT").await.unwrap();

    assert_eq!(sqlstate(take(&vault.broker, entry).await), NO_SUCH_ENTRY);
    assert_eq!(entries(&vault).await, 0);
}

#[tokio::test]
async fn entry_of_an_open_session_is_refused() {
    let vault = vault().await;
    let asking = broker(&vault.database, "second").await;
    asking.batch_execute("BEGIN").await.unwrap();
    let entry = ask(&asking, "reveal", 1).await.unwrap();

    assert_eq!(sqlstate(take(&vault.broker, entry).await), NO_SUCH_ENTRY);
    let other_session = another_session(&vault, &asking).await;
    assert_eq!(sqlstate(take(&other_session, entry).await), NO_SUCH_ENTRY);

    asking.batch_execute("COMMIT").await.unwrap();
    // Now it is committed, but of another role.
    assert_eq!(sqlstate(take(&vault.broker, entry).await), NO_SUCH_ENTRY);
    assert!(take(&other_session, entry).await.is_ok());
}

#[tokio::test]
async fn entry_is_used_once_and_soon() {
    let vault = vault().await;
    let taken = vault.ask(1).await;
    take(&vault.broker, taken).await.unwrap();
    let told = vault.ask(1).await;
    let tell = "SELECT vault_tell($1, 'failed', NULL)";
    vault.broker.query_one(tell, &[&told]).await.unwrap();
    let stale = vault.ask(1).await;
    vault.database.execute("UPDATE vault_audit SET at = at - INTERVAL '61 seconds'").await;
    let erase = ask(&vault.broker, "erase", 1).await.unwrap();
    let only_token = ask(&vault.broker, "token", 1).await.unwrap();

    for entry in [taken, told, stale, erase, only_token, 0, -1, i64::MAX] {
        assert_eq!(sqlstate(take(&vault.broker, entry).await), NO_SUCH_ENTRY, "{entry}");
    }
    assert_eq!(sqlstate(vault.broker.query_one(tell, &[&told]).await), NO_SUCH_ENTRY);
    assert_eq!(sqlstate(vault.broker.query_one("SELECT vault_take(NULL)", &[]).await), NO_SUCH_ENTRY);
    let reveal = vault.ask(1).await;
    let erase_with_reveal = "SELECT vault_erase($1, false, false)";
    assert_eq!(sqlstate(vault.broker.query_one(erase_with_reveal, &[&reveal]).await), NO_SUCH_ENTRY);
    let erase_user = "SELECT vault_erase_user($1, 'a', false, false)";
    assert_eq!(sqlstate(vault.broker.query_one(erase_user, &[&erase]).await), NO_SUCH_ENTRY);
}

/// Two sessions of one role take the same entry at the same moment.
#[tokio::test]
async fn concurrent_takes_have_one_winner() {
    let vault = vault().await;
    let second = another_session(&vault, &vault.broker).await;
    for _ in 0..20 {
        let entry = vault.ask(1).await;

        let outcomes = tokio::join!(take(&vault.broker, entry), take(&second, entry));

        assert_eq!(usize::from(outcomes.0.is_ok()) + usize::from(outcomes.1.is_ok()), 1);
    }
}

#[tokio::test]
async fn malformed_entries_are_refused_without_quotes() {
    let vault = vault().await;
    let good =
        ["'c'", "'reveal'", "NULL", "decode(repeat('01', 32), 'hex')", "NULL", "'incident'", "'SEC-1'"];
    for (place, wrong) in [
        (0, "NULL"),
        (0, "''"),
        (1, "NULL"),
        (1, "'hunter2'"),
        (2, "'hunter2'"),
        (3, "NULL"),
        (3, "'hunter2'"),
        (4, "'hunter2'"),
        (4, "decode(repeat('01', 32), 'hex')"),
        (5, "NULL"),
        (5, "'hunter2'"),
        (6, "NULL"),
        (6, "'hunter2'"),
        (6, "'SEC-1 hunter2'"),
        (6, "E'SEC-1\\nhunter2'"),
    ] {
        let mut arguments = good;
        arguments[place] = wrong;
        let ask = format!("SELECT vault_ask({})", arguments.join(", "));

        let refused = vault.broker.batch_execute(&ask).await.unwrap_err();

        let text = format!("{refused} {refused:?}").replace(&ask, "");
        assert!(!text.contains("hunter2"), "{text}");
        assert_eq!(sqlstate(Err::<(), _>(refused)), INVALID_PARAMETER, "{ask}");
    }
    let entry = vault.ask(1).await;
    for wrong in ["'hunter2', NULL", "NULL, NULL", "'done', 'hunter2 !'"] {
        let tell = format!("SELECT vault_tell({entry}, {wrong})");
        assert_eq!(sqlstate(vault.broker.batch_execute(&tell).await), INVALID_PARAMETER, "{tell}");
    }
    assert_eq!(entries(&vault).await, 1);
}

#[tokio::test]
async fn no_role_reads_or_changes_a_table() {
    let vault = vault().await;
    let reader = format!("{}_reader", vault.database.name);
    vault
        .database
        .execute(&format!("CREATE ROLE {reader} LOGIN PASSWORD '{reader}' IN ROLE login_reader"))
        .await;
    let reader = connect(superuser().user(&reader).password(&reader).dbname(&vault.database.name)).await;
    let entry = vault.ask(1).await;

    for table in [
        "vault_keys",
        "vault_inbox",
        "vault_streams",
        "vault_sealed",
        "vault_erased",
        "vault_audit",
        "vault_honey",
    ] {
        for statement in [
            format!("SELECT {table}::text FROM {table}"),
            format!("DELETE FROM {table}"),
            format!("TRUNCATE {table}"),
            format!("INSERT INTO {table} SELECT FROM {table}"),
            format!("COPY {table} TO STDOUT"),
            format!("LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE"),
            format!(
                "CREATE TRIGGER spy BEFORE UPDATE ON {table} EXECUTE FUNCTION suppress_redundant_updates_trigger()"
            ),
        ] {
            for session in [&vault.broker, &vault.writer, &reader] {
                let refused = session.batch_execute(&format!("BEGIN; {statement}")).await;
                assert_eq!(sqlstate(refused), INSUFFICIENT_PRIVILEGE, "{statement}");
                session.batch_execute("ROLLBACK").await.unwrap();
            }
        }
    }
    let written_at = "INSERT INTO vault_inbox (key_id, enc, entry_length, body, written_at)
        SELECT 1, '', 99, '', now() + INTERVAL '1 year'";
    assert_eq!(sqlstate(vault.writer.batch_execute(written_at).await), INSUFFICIENT_PRIVILEGE);
    let kms_key = "SELECT kms_key FROM vault_keys";
    assert_eq!(sqlstate(vault.writer.batch_execute(kms_key).await), INSUFFICIENT_PRIVILEGE);
    for function in [
        "vault_fold(1)",
        "vault_lock()",
        "vault_flush(1)",
        "vault_forget('', true)",
        "vault_clear_rows('{}')",
        "vault_find('', 1, '')",
        &format!("vault_use({entry}, 'reveal')"),
        "check_vault_key('')",
    ] {
        for session in [&vault.broker, &reader] {
            let refused = session.batch_execute(&format!("SELECT {function}")).await;
            assert_eq!(sqlstate(refused), INSUFFICIENT_PRIVILEGE, "{function}");
        }
    }
    for function in [
        "vault_ask('c', 'reveal', NULL, '', NULL, 'test', 'SEC-1')",
        &format!("vault_take({entry})"),
        &format!("vault_tell({entry}, 'done', NULL)"),
        &format!("vault_erase({entry}, true, true)"),
        &format!("vault_erase_user({entry}, 'a', true, true)"),
        &format!("vault_entries({entry}, '-infinity', 'infinity', 0, 1000)"),
        "vault_key_states(true)",
        "vault_sample('c', 1)",
        &format!("vault_plant({entry}, '{{}}')"),
        &format!("vault_is_honey({entry})"),
    ] {
        for session in [&vault.writer, &reader] {
            let refused = session.batch_execute(&format!("SELECT {function}")).await;
            assert_eq!(sqlstate(refused), INSUFFICIENT_PRIVILEGE, "{function}");
        }
    }
}

/// Nobody reads the audit, or hides a honey token in the vault, without a committed entry of this verb.
#[tokio::test]
async fn audit_and_honey_need_their_own_entry() {
    let vault = vault().await;
    let ask = |verb: &str| format!("SELECT vault_ask('c', '{verb}', NULL, NULL, NULL, 'test', 'SEC-1')");
    let read = "SELECT count(*) FROM vault_entries($1, '-infinity', 'infinity', 0, 1000)";
    let plant = "SELECT vault_plant($1, ARRAY[decode(repeat('07', 32), 'hex')])";
    for (verb, statement) in [("audit", read), ("honey", plant)] {
        vault.broker.batch_execute("BEGIN").await.unwrap();
        let uncommitted: i64 = vault.broker.query_one(&ask(verb), &[]).await.unwrap().get(0);
        let refused = vault.broker.query_one(statement, &[&uncommitted]).await;
        assert_eq!(sqlstate(refused), NO_SUCH_ENTRY, "{verb}");
        vault.broker.batch_execute("ROLLBACK").await.unwrap();

        let other_verb = vault.ask(1).await;
        assert_eq!(
            sqlstate(vault.broker.query_one(statement, &[&other_verb]).await),
            NO_SUCH_ENTRY,
            "{verb}"
        );

        let entry: i64 = vault.broker.query_one(&ask(verb), &[]).await.unwrap().get(0);
        assert_eq!(sqlstate(take(&vault.broker, entry).await), NO_SUCH_ENTRY, "{verb}");
        vault.broker.query_one(statement, &[&entry]).await.unwrap();
        assert_eq!(sqlstate(vault.broker.query_one(statement, &[&entry]).await), NO_SUCH_ENTRY, "{verb}");
    }
}

#[tokio::test]
async fn honey_is_known_only_of_own_used_entries() {
    let vault = vault().await;
    let other = broker(&vault.database, "other").await;
    vault.database.execute("INSERT INTO vault_honey VALUES (decode(repeat('07', 32), 'hex'), 1)").await;
    let is_honey = async |session: &Client, entry: i64| -> bool {
        session.query_one("SELECT vault_is_honey($1)", &[&entry]).await.unwrap().get(0)
    };

    let entry = vault.ask(7).await;
    let before = is_honey(&vault.broker, entry).await;
    let state: String = take(&vault.broker, entry).await.unwrap().get("state");
    let after = is_honey(&vault.broker, entry).await;

    assert_eq!((before, &*state, after), (false, "unknown", true));
    assert!(!is_honey(&other, entry).await);
    let sealed = vault.ask(1).await;
    take(&vault.broker, sealed).await.unwrap();
    assert!(!is_honey(&vault.broker, sealed).await);
}

#[tokio::test]
async fn honey_of_another_form_is_refused() {
    let vault = vault().await;
    let token = |byte: u8| format!("decode(repeat('{byte:02x}', 32), 'hex')");
    for tokens in [
        "'{}'".to_owned(),
        "NULL".to_owned(),
        "ARRAY[''::bytea]".to_owned(),
        "ARRAY[NULL::bytea]".to_owned(),
        format!("ARRAY[{0}, {0}]", token(8)),
        format!("array_fill({}, ARRAY[101])", token(8)),
    ] {
        let ask = "SELECT vault_ask('c', 'honey', NULL, NULL, NULL, 'test', 'SEC-1')";
        let entry: i64 = vault.broker.query_one(ask, &[]).await.unwrap().get(0);
        let refused = vault.broker.batch_execute(&format!("SELECT vault_plant({entry}, {tokens})")).await;
        assert_eq!(sqlstate(refused), INVALID_PARAMETER, "{tokens}");
    }
    let planted = "SELECT count(*) FROM vault_honey";
    assert_eq!(vault.database.admin.query_one(planted, &[]).await.unwrap().get::<_, i64>(0), 0);
}

/// The values are chosen by the database, and their entries must be committed as those of a reveal.
#[tokio::test]
async fn sampled_entry_is_used_as_a_reveal() {
    let vault = vault().await;
    let sample = "SELECT entries, tokens FROM vault_sample('c', 2)";
    vault.broker.batch_execute("BEGIN").await.unwrap();
    let uncommitted: Vec<i64> = vault.broker.query_one(sample, &[]).await.unwrap().get(0);
    assert_eq!(sqlstate(take(&vault.broker, uncommitted[0]).await), NO_SUCH_ENTRY);
    vault.broker.batch_execute("ROLLBACK").await.unwrap();

    let row = vault.broker.query_one(sample, &[]).await.unwrap();
    let (entries, tokens): (Vec<i64>, Vec<Vec<u8>>) = (row.get(0), row.get(1));

    assert_eq!((entries.len(), tokens.len()), (2, 2));
    for (entry, token) in entries.iter().zip(&tokens) {
        let erase = vault.broker.query_one("SELECT vault_erase($1, false, false)", &[entry]).await;
        assert_eq!(sqlstate(erase), NO_SUCH_ENTRY);
        let taken = take(&vault.broker, *entry).await.unwrap();
        assert_eq!((taken.get::<_, &str>("state"), taken.get::<_, &[u8]>("token")), ("sealed", &**token));
        assert_eq!(sqlstate(take(&vault.broker, *entry).await), NO_SUCH_ENTRY);
    }
}

/// Each key has a value in the sample, also if there are more keys than the sample is to have.
#[tokio::test]
async fn sample_has_a_value_of_each_key() {
    let vault = vault().await;
    let more_keys = "INSERT INTO vault_keys (public_key, kms_key, is_current)
            SELECT sha256(number::text::bytea), 'key', false FROM generate_series(2, 4) AS number;
        INSERT INTO vault_sealed (stream_id, key_id, sequence, field, token, ciphertext)
            SELECT 1, id, 0, 'i', sha256(id::text::bytea), '' FROM vault_keys WHERE NOT is_current";
    vault.database.execute(more_keys).await;

    for size in [None, Some(-1), Some(0), Some(1), Some(i32::MAX)] {
        let row = vault.broker.query_one("SELECT keys FROM vault_sample('c', $1)", &[&size]).await.unwrap();
        let keys: BTreeSet<i16> = row.get::<_, Vec<i16>>(0).into_iter().collect();
        assert_eq!(keys.len(), 4, "{size:?}");
    }
}

#[tokio::test]
async fn broker_cannot_become_another_role() {
    let vault = vault().await;
    for statement in [
        "SET ROLE postgres",
        "SET ROLE login_writer",
        "SET ROLE login_reader",
        "SET SESSION AUTHORIZATION postgres",
        "SET session_replication_role = replica",
        "ALTER FUNCTION vault_take(bigint) RESET ALL",
        "CREATE TABLE public.vault_flush_1 ()",
    ] {
        let refused = vault.broker.batch_execute(statement).await;
        assert_eq!(sqlstate(refused), INSUFFICIENT_PRIVILEGE, "{statement}");
    }
    // SET ROLE to the role that it is a member of does not change whose entry it is.
    vault.broker.batch_execute("SET ROLE login_vault").await.unwrap();
    let entry = vault.ask(1).await;
    vault.broker.batch_execute("RESET ROLE").await.unwrap();
    assert!(take(&vault.broker, entry).await.is_ok());
}

/// Temporary objects and the settings of the session do not lead the functions elsewhere.
#[tokio::test]
async fn planted_objects_and_settings_have_no_effect() {
    let vault = vault().await;
    let planted = "
        CREATE TEMPORARY TABLE vault_audit (LIKE public.login_etl_migrations);
        CREATE TEMPORARY TABLE vault_erased (token bytea);
        CREATE TEMPORARY TABLE vault_sealed (token bytea);
        CREATE FUNCTION pg_temp.vault_use(bigint, text) RETURNS bigint LANGUAGE sql AS 'SELECT 1';
        CREATE FUNCTION pg_temp.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS 'SELECT ''-infinity''::timestamptz';
        CREATE FUNCTION pg_temp.pg_current_xact_id() RETURNS xid8 LANGUAGE sql AS 'SELECT ''1''::xid8';
        CREATE FUNCTION pg_temp.differs(xid8, xid8) RETURNS boolean LANGUAGE sql AS 'SELECT true';
        CREATE OPERATOR pg_temp.<> (LEFTARG = xid8, RIGHTARG = xid8, FUNCTION = pg_temp.differs);
        SET search_path = pg_temp, public, pg_catalog";
    vault.database.execute("GRANT SELECT ON login_etl_migrations TO PUBLIC").await;
    vault.broker.batch_execute(planted).await.unwrap();
    vault.broker.batch_execute("BEGIN").await.unwrap();
    let entry = vault.ask(1).await;
    assert_eq!(sqlstate(take(&vault.broker, entry).await), NO_SUCH_ENTRY);
    vault.broker.batch_execute("ROLLBACK").await.unwrap();

    let settings = "SET default_transaction_isolation = 'serializable'; SET transform_null_equals = on;
        SET standard_conforming_strings = off; SET bytea_output = 'escape'; SET DateStyle = 'SQL, DMY';
        SET IntervalStyle = 'sql_standard'; SET synchronous_commit = off; SET enable_indexscan = off;
        SET enable_seqscan = off; SET row_security = off; SET xmloption = document; SET plan_cache_mode = force_generic_plan";
    vault.broker.batch_execute(settings).await.unwrap();
    vault.broker.batch_execute("BEGIN").await.unwrap();
    let entry = vault.ask(1).await;
    assert_eq!(sqlstate(take(&vault.broker, entry).await), NO_SUCH_ENTRY);
    vault.broker.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(vault.reveal(1).await, ("sealed".to_owned(), Some(0), Some(7)));
    assert_eq!(entries(&vault).await, 1);
}

/// These run a query at the end of the transaction.
#[tokio::test]
async fn deferred_takes_are_refused() {
    let vault = vault().await;
    let trigger = "CREATE TEMPORARY TABLE loot (entry bigint);
        CREATE FUNCTION pg_temp.steal() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN PERFORM public.vault_take(NEW.entry); RETURN NEW; END $$;
        CREATE CONSTRAINT TRIGGER steal AFTER INSERT ON loot DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW EXECUTE FUNCTION pg_temp.steal()";
    vault.broker.batch_execute(trigger).await.unwrap();
    for later in [
        "DECLARE loot CURSOR WITH HOLD FOR SELECT * FROM vault_take({entry})",
        "INSERT INTO loot VALUES ({entry})",
    ] {
        vault.broker.batch_execute("BEGIN").await.unwrap();
        let entry = vault.ask(1).await;
        vault.broker.batch_execute(&later.replace("{entry}", &entry.to_string())).await.unwrap();

        let refused = vault.broker.batch_execute("COMMIT").await;

        assert_eq!(sqlstate(refused), NO_SUCH_ENTRY, "{later}");
    }
    assert_eq!(entries(&vault).await, 0);
}

/// Otherwise a crash of the server could lose the entry after its value was handed out.
#[tokio::test]
async fn taken_entry_is_on_the_disk() {
    let vault = vault().await;
    vault.broker.batch_execute("SET synchronous_commit = off").await.unwrap();
    let mut behind = 0;
    for _ in 0..50 {
        let entry = vault.ask(1).await;
        let lsn = "SELECT pg_current_wal_insert_lsn()::text, pg_current_wal_flush_lsn() < pg_current_wal_insert_lsn()";
        let lsn = vault.database.admin.query_one(lsn, &[]).await.unwrap();
        behind += usize::from(lsn.get::<_, bool>(1));

        vault.broker.batch_execute("BEGIN").await.unwrap();
        take(&vault.broker, entry).await.unwrap();
        let is_flushed = format!("SELECT pg_current_wal_flush_lsn() >= '{}'", lsn.get::<_, &str>(0));
        let is_flushed: bool = vault.broker.query_one(&is_flushed, &[]).await.unwrap().get(0);
        vault.broker.batch_execute("COMMIT").await.unwrap();

        assert!(is_flushed);
    }
    assert!(behind > 0, "no entry was written asynchronously");
    let left = "SELECT count(*) FROM pg_class WHERE relname LIKE 'vault_flush%'";
    assert_eq!(vault.database.admin.query_one(left, &[]).await.unwrap().get::<_, i64>(0), 0);
}

/// What a session does next.
#[derive(Clone, Copy, Debug)]
enum Step {
    Begin,
    Commit,
    Rollback,
    Savepoint,
    RollbackToSavepoint,
    CommitAsynchronously(bool),
    Ask(&'static str),
    /// Takes one of the entries that were asked for, counted from the last.
    Take(usize),
    Tell(usize),
}

fn steps() -> impl Strategy<Value = Vec<(usize, Step)>> {
    let step = prop_oneof![
        3 => Just(Step::Begin),
        3 => Just(Step::Commit),
        2 => Just(Step::Rollback),
        1 => Just(Step::Savepoint),
        1 => Just(Step::RollbackToSavepoint),
        1 => any::<bool>().prop_map(Step::CommitAsynchronously),
        4 => Just(Step::Ask("reveal")),
        1 => Just(Step::Ask("erase")),
        6 => (0..3_usize).prop_map(Step::Take),
        1 => (0..3_usize).prop_map(Step::Tell),
    ];
    proptest::collection::vec((0..2_usize, step), 4..14)
}

/// Each value that a session sees belongs to an entry that another session sees too: it is committed. No entry gives
/// its value to two transactions that commit.
#[tokio::test]
async fn no_interleaving_gives_an_unaudited_value() {
    let vault = vault().await;
    let sessions =
        [another_session(&vault, &vault.broker).await, another_session(&vault, &vault.broker).await];
    for session in &sessions {
        // Two sessions that want one entry must not wait for each other for ever.
        session.batch_execute("SET lock_timeout = '5ms'").await.unwrap();
    }
    let mut runner =
        TestRunner::new_with_rng(Config::default(), TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let (mut values, mut refused) = (0, 0);
    let interleavings = interleavings();
    for _ in 0..interleavings {
        let steps = steps().new_tree(&mut runner).unwrap().current();
        let mut entries: Vec<i64> = Vec::new();
        let mut in_transaction = [false; 2];
        // Until the transaction ends, a take can be rolled back, and the entry be taken again.
        let mut taken: [Vec<i64>; 2] = [Vec::new(), Vec::new()];
        let mut used_up = BTreeSet::new();
        for (number, step) in &steps {
            let session = &sessions[*number];
            match step {
                Step::Ask(verb) => entries.extend(ask(session, verb, 1).await.ok()),
                Step::Take(back) | Step::Tell(back) if *back >= entries.len() => {}
                Step::Take(back) => match take(session, entries[entries.len() - 1 - back]).await {
                    Ok(row) => {
                        let entry = entries[entries.len() - 1 - back];
                        assert_eq!(row.get::<_, &str>("state"), "sealed");
                        assert!(is_committed(&vault.database.admin, entry).await, "{steps:?}");
                        assert!(!used_up.contains(&entry), "{steps:?}");
                        taken[*number].push(entry);
                        values += 1;
                    }
                    Err(_) => refused += 1,
                },
                Step::Tell(back) => {
                    let entry = entries[entries.len() - 1 - back];
                    drop(session.query_opt("SELECT vault_tell($1, 'done', NULL)", &[&entry]).await);
                }
                statement => drop(session.batch_execute(&sql(*statement)).await),
            }
            match step {
                Step::Begin => in_transaction[*number] = true,
                Step::Commit | Step::Rollback => in_transaction[*number] = false,
                _ => {}
            }
            if !in_transaction[*number] {
                for entry in taken[*number].drain(..) {
                    if is_taken(&vault.database.admin, entry).await {
                        used_up.insert(entry);
                    }
                }
            }
        }
        for session in &sessions {
            session.batch_execute("ROLLBACK").await.unwrap();
        }
    }
    assert!(
        values > interleavings / 10 && refused > interleavings / 10,
        "{values} values, {refused} refused"
    );
}

fn sql(step: Step) -> String {
    match step {
        Step::Begin => "BEGIN".to_owned(),
        Step::Commit => "COMMIT".to_owned(),
        Step::Rollback => "ROLLBACK".to_owned(),
        Step::Savepoint => "SAVEPOINT s".to_owned(),
        Step::RollbackToSavepoint => "ROLLBACK TO s".to_owned(),
        Step::CommitAsynchronously(is_on) => {
            format!("SET synchronous_commit = {}", if is_on { "off" } else { "on" })
        }
        Step::Ask(_) | Step::Take(_) | Step::Tell(_) => unreachable!("these have parameters"),
    }
}

/// Another session sees only what is committed.
async fn is_committed(admin: &Client, entry: i64) -> bool {
    let sql = "SELECT FROM vault_audit WHERE id = $1 AND verb = 'reveal' AND token IS NOT NULL AND ticket IS NOT NULL";
    !admin.query(sql, &[&entry]).await.unwrap().is_empty()
}

async fn is_taken(admin: &Client, entry: i64) -> bool {
    let sql = "SELECT FROM vault_audit WHERE id = $1 AND taken_at IS NOT NULL";
    !admin.query(sql, &[&entry]).await.unwrap().is_empty()
}
