//! The vault's tables and functions: what batches leave in them, the fold, and erasure.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use login_etl::analytics::{self, LOGINS_PER_STEP};
use login_etl::deadline::Deadline;
use login_etl::lake;
use login_etl::schema::vault::{self, Folded};
use login_etl::schema::{self, SchemaError, WriterLogin};
use tokio_postgres::Client;

use crate::existing_databases::{assert_refusals, case, create, owner};
use crate::support::{Database, connect, superuser};
use crate::vault_support::{
    KEY, Login, OTHER_KEY, Sealed, Vault, ask, enc, entry, hex, key, sealed, sqlstate, take, token,
};

const LIMIT: Duration = Duration::from_mins(1);

/// The first two users share a device.
const LOGINS: [Login<'static>; 3] = [
    Login { user: "a", ip: 1, device: 10 },
    Login { user: "b", ip: 2, device: 10 },
    Login { user: "b", ip: 3, device: 11 },
];

fn text(value: &str) -> (String, Option<i32>, Option<u8>) {
    (value.to_owned(), None, None)
}

fn value(sequence: i32, ciphertext: u8) -> (String, Option<i32>, Option<u8>) {
    ("sealed".to_owned(), Some(sequence), Some(ciphertext))
}

async fn count(admin: &Client, sql: &str) -> i64 {
    admin.query_one(sql, &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn values_are_found_before_and_after_folding() {
    let vault = Vault::create().await;
    vault.write_sealed(7, &LOGINS).await;

    let before = [vault.reveal(2).await, vault.reveal(10).await, vault.reveal(99).await];
    let folded = [vault.fold().await, vault.fold().await];
    let after = [vault.reveal(2).await, vault.reveal(10).await, vault.reveal(99).await];

    assert_eq!(before, [value(2, 7), value(1, 7), text("unknown")]);
    assert_eq!(folded, [1, 0]);
    assert_eq!(after, before);
    assert_eq!(vault.folded().await, [1, 2, 3, 10, 11]);
}

#[tokio::test]
async fn taken_value_has_all_that_opens_it() {
    let vault = Vault::create().await;
    vault.write_sealed(7, &LOGINS).await;

    for _ in 0..2 {
        let entry = vault.ask(11).await;
        let row = take(&vault.broker, entry).await.unwrap();

        assert_eq!(row.get::<_, &str>("field"), "device_id");
        assert_eq!(row.get::<_, &[u8]>("token"), token(11));
        assert_eq!(row.get::<_, &[u8]>("public_key"), key(KEY).spki());
        assert_eq!(row.get::<_, &str>("kms_key"), "kms-key");
        assert_eq!(row.get::<_, &[u8]>("enc"), enc(7));
        assert_eq!(row.get::<_, i32>("sequence"), 5);
        assert_eq!(row.get::<_, &[u8]>("ciphertext"), [7; 64]);
        vault.fold().await;
    }
}

#[tokio::test]
async fn first_value_stays_unless_key_is_newer() {
    let mut vault = Vault::create().await;
    vault.write_sealed(7, &LOGINS[..1]).await;
    vault.write_sealed(8, &LOGINS[..1]).await;
    vault.fold().await;
    vault.write_sealed(9, &LOGINS[..1]).await;
    vault.fold().await;
    assert_eq!(vault.reveal(1).await, value(0, 7));

    // The batch of the old key was written before the new key was accepted.
    vault.write_sealed(20, &[Login { user: "c", ip: 4, device: 12 }]).await;
    let changed = vault::accept_key(&mut vault.database.admin, "public", &key(OTHER_KEY), "other").await;
    let of_new_key = Sealed { key: key(OTHER_KEY), ..sealed(21, [(b'i', 1), (b'i', 4)]) };
    vault.write(&LOGINS[..1], &[of_new_key]).await.unwrap();
    vault.fold().await;

    assert!(changed.unwrap());
    assert_eq!(vault.reveal(1).await, value(0, 21));
    assert_eq!(vault.reveal(4).await, value(1, 21));
    assert_eq!(vault.reveal(12).await, value(1, 20));
    assert_eq!(vault.folded().await, [1, 4, 10, 12]);
}

#[tokio::test]
async fn batch_of_another_key_is_refused() {
    let mut vault = Vault::create().await;
    let of_other_key = Sealed { key: key(OTHER_KEY), ..sealed(7, [(b'i', 1)]) };

    let refused = vault.write(&LOGINS, std::slice::from_ref(&of_other_key)).await;
    let pinned = vault::create(&mut vault.database.admin, "public", &key(OTHER_KEY), "other").await;
    let unchanged = vault::accept_key(&mut vault.database.admin, "public", &key(KEY), "kms-key").await;
    let changed = vault::accept_key(&mut vault.database.admin, "public", &key(OTHER_KEY), "other").await;
    let again = vault::accept_key(&mut vault.database.admin, "public", &key(OTHER_KEY), "other").await;
    let old_key = vault.write(&LOGINS, &[]).await;

    assert_eq!(sqlstate(refused), "LE003");
    assert!(matches!(pinned, Err(SchemaError::VaultKeyChanged)), "{pinned:?}");
    assert_eq!([unchanged.unwrap(), changed.unwrap(), again.unwrap()], [false, true, false]);
    assert_eq!(sqlstate(old_key), "LE003");
    assert_eq!(vault.database.rows().await, [""; 0]);
    assert_eq!(vault.write(&LOGINS, &[of_other_key]).await.unwrap(), 3);
    let back = vault::accept_key(&mut vault.database.admin, "public", &key(KEY), "kms-key").await;
    assert!(back.unwrap());
    assert_eq!(count(&vault.database.admin, "SELECT count(*) FROM vault_keys").await, 2);
}

#[tokio::test]
async fn vault_without_a_key_refuses_batches() {
    let database = Database::create().await;
    let writer = connect(&database.url().parse().unwrap()).await;

    for sha256 in ["NULL", r"'\x00'"] {
        let write = format!(
            "SELECT vault_write_logins('{{}}', '{{}}', '{{}}', '{{}}', '{{}}', '{{}}', '{{}}', '{{}}', 's', {sha256},
                '{{}}', '{{}}', '{{}}')"
        );
        assert_eq!(sqlstate(writer.batch_execute(&write).await), "LE003");
    }
}

#[tokio::test]
async fn refused_row_leaves_no_value() {
    let vault = Vault::create().await;
    let sql = "SELECT inserted, failed_rows, failed_sqlstates FROM vault_write_logins_row_by_row(
        ARRAY[now(), now(), now()], ARRAY[gen_random_uuid(), gen_random_uuid(), gen_random_uuid()],
        ARRAY['a', repeat('x', 129), 'c'], ARRAY[NULL, NULL, NULL], $1, $2, ARRAY[NULL, NULL, NULL],
        ARRAY[NULL, NULL, NULL]::integer[], 'salt', '{}', 60, $3, $4, ARRAY[99, 99], $5)";
    let ips = [Some(hex(1)), Some(hex(2)), None];
    let devices = [hex(10), hex(11), hex(11)];
    let bodies =
        [sealed(7, [(b'i', 1), (b'i', 2)]).body, sealed(8, [(b'd', 10), (b'd', 11), (b'i', 2)]).body];
    let encs = [enc(7), enc(8)];

    let sha256 = key(KEY).sha256();
    let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 5] =
        [&&ips[..], &&devices[..], &&sha256[..], &&encs[..], &&bodies[..]];
    let row = vault.writer.query_one(sql, &parameters).await.unwrap();
    vault.fold().await;

    assert_eq!(row.get::<_, i64>(0), 2);
    assert_eq!(
        (row.get::<_, Vec<i32>>(1), row.get::<_, Vec<String>>(2)),
        (vec![2], vec!["22001".to_owned()])
    );
    assert_eq!(vault.folded().await, [1, 10, 11]);
    assert_eq!(vault.reveal(11).await, value(1, 8));
}

#[tokio::test]
async fn fifo_batches_are_sealed_too() {
    let vault = Vault::create().await;
    let sql = "SELECT vault_write_fifo_logins(ARRAY[now()], ARRAY[gen_random_uuid()], ARRAY['a'], ARRAY[NULL],
        ARRAY[$1], ARRAY[NULL], ARRAY[NULL], ARRAY[NULL]::integer[], 'salt', $2, ARRAY[$3::bytea], ARRAY[99], ARRAY[$4::bytea])";
    let body = sealed(7, [(b'i', 1)]).body;

    vault.writer.query_one(sql, &[&hex(1), &&key(KEY).sha256()[..], &enc(7), &body]).await.unwrap();

    assert_eq!(vault.database.fifo_ledger_entries().await, 1);
    assert_eq!(vault.reveal(1).await, value(0, 7));
}

#[tokio::test]
async fn ordinary_bodies_stay_in_their_rows() {
    let vault = Vault::create().await;
    let toasted = "SELECT pg_relation_size(reltoastrelid) FROM pg_class WHERE oid = 'vault_inbox'::regclass";
    let body = |values| (0..values).flat_map(|number| entry(number, b'i', 1, 0)).collect();
    let mut sizes = Vec::new();

    for values in [80, 1_000] {
        vault.write(&[], &[Sealed { body: body(values), ..sealed(7, []) }]).await.unwrap();
        sizes.push(count(&vault.database.admin, toasted).await);
    }

    assert!(sizes[0] == 0 && sizes[1] >= 99_000, "{sizes:?}");
}

#[tokio::test]
async fn long_bodies_count_as_several_rows() {
    let vault = Vault::create().await;
    for byte in 1..=5 {
        let values = if byte % 2 == 0 { 1 } else { 1_000 };
        let body = (0..values).flat_map(|number| entry(number, b'i', byte, 0)).collect();
        vault.write(&[], &[Sealed { body, ..sealed(byte, []) }]).await.unwrap();
    }
    let fold = async || count(&vault.database.admin, "SELECT vault_fold(14)").await;

    assert_eq!((fold().await, vault.folded().await), (14, vec![1, 2]));
    assert_eq!((fold().await, vault.folded().await), (14, vec![1, 2, 3, 4]));
    assert_eq!((fold().await, vault.folded().await), (13, vec![1, 2, 3, 4, 5]));
    assert_eq!(fold().await, 0);
}

#[tokio::test]
async fn malformed_entries_do_not_stop_the_fold() {
    let vault = Vault::create().await;
    // A wrong field, a wrong sequence number, a token within a ciphertext, an unknown key.
    let mut hiding = entry(2, b'i', 3, 0);
    hiding[40..72].copy_from_slice(&token(4));
    let body = [entry(0, b'x', 1, 0), entry(60_000, b'i', 2, 0), hiding, entry(3, b'i', 4, 9)].concat();
    vault.write(&[], &[Sealed { body, ..sealed(7, []) }]).await.unwrap();
    let unknown_key = "INSERT INTO vault_inbox (key_id, enc, entry_length, body)
        SELECT 77, enc, entry_length, body FROM vault_inbox";
    vault.database.execute(unknown_key).await;
    for (column, wrong) in [("body", r"'\x00'"), ("body", r"''"), ("enc", r"'\x04'"), ("entry_length", "3")] {
        let wrong = format!("UPDATE vault_inbox SET {column} = {wrong}");
        assert_eq!(sqlstate(vault.database.admin.batch_execute(&wrong).await), "23514", "{wrong}");
    }

    assert_eq!(vault.reveal(1).await, text("unknown"));
    assert_eq!(vault.reveal(4).await, value(3, 9));
    assert_eq!(vault.fold().await, 2);
    assert_eq!(vault.folded().await, [3, 4]);
    assert_eq!(vault.reveal(4).await, value(3, 9));
}

#[tokio::test]
async fn erased_value_is_gone_until_it_comes_again() {
    let vault = Vault::create().await;
    for is_folded in [false, true] {
        vault.write_sealed(7, &LOGINS).await;
        if is_folded {
            vault.fold().await;
        }

        let erased = [vault.erase(10, false, false).await, vault.erase(10, false, false).await];
        let after = vault.reveal(10).await;
        vault.fold().await;
        let folded = vault.folded().await;
        vault.write_sealed(8, &LOGINS[..1]).await;
        let in_inbox = vault.reveal(10).await;
        vault.fold().await;

        assert_eq!(erased, [(true, 0), (false, 0)]);
        assert_eq!(after, text("erased"));
        assert_eq!(folded, [1, 2, 3, 11]);
        assert_eq!([in_inbox, vault.reveal(10).await], [value(1, 8), value(1, 8)]);
        assert_eq!(vault.reveal(2).await, value(2, 7));
    }
    assert_eq!(vault.database.rows().await.len(), 8);
}

#[tokio::test]
async fn value_erased_for_ever_never_comes_again() {
    let vault = Vault::create().await;
    vault.write_sealed(7, &LOGINS).await;

    let erased = vault.erase(10, true, false).await;
    vault.erase(10, false, false).await;
    vault.write_sealed(8, &LOGINS).await;
    let in_inbox = vault.reveal(10).await;
    vault.fold().await;

    assert_eq!(erased, (true, 0));
    assert_eq!([in_inbox, vault.reveal(10).await], [text("erased"), text("erased")]);
    assert_eq!(vault.folded().await, [1, 2, 3, 11]);
}

/// The batch began before the erasure, and commits after it.
#[tokio::test]
async fn batch_in_flight_does_not_undo_an_erasure() {
    let vault = Vault::create().await;
    vault.writer.batch_execute("BEGIN").await.unwrap();
    vault.write_sealed(7, &LOGINS).await;

    let erased = vault.erase(10, false, false).await;
    vault.writer.batch_execute("COMMIT").await.unwrap();
    let in_inbox = vault.reveal(10).await;
    vault.fold().await;

    assert_eq!(erased, (false, 0));
    assert_eq!([in_inbox, vault.reveal(10).await], [text("erased"), text("erased")]);
    assert_eq!(vault.folded().await, [1, 2, 3, 11]);
}

#[tokio::test]
async fn value_after_an_erasure_is_folded() {
    let vault = Vault::create().await;
    vault.writer.batch_execute("BEGIN").await.unwrap();
    vault.write_sealed(7, &LOGINS).await;
    vault.erase(10, false, false).await;
    vault.writer.batch_execute("COMMIT").await.unwrap();
    vault.write_sealed(8, &LOGINS).await;

    let in_inbox = vault.reveal(10).await;
    vault.fold().await;

    assert_eq!(in_inbox.2, Some(8));
    assert_eq!(vault.reveal(10).await, in_inbox);
}

#[tokio::test]
async fn row_without_entries_is_deleted() {
    let vault = Vault::create().await;
    vault.write(&[], &[sealed(7, [(b'i', 1), (b'i', 1)])]).await.unwrap();

    assert_eq!(vault.erase(1, false, false).await, (true, 0));

    assert_eq!(count(&vault.database.admin, "SELECT count(*) FROM vault_inbox").await, 0);
}

#[tokio::test]
async fn erased_rows_keep_all_but_the_token() {
    let vault = Vault::create().await;
    // A table as users have it, without partitions.
    let plain = "DROP TABLE user_logins CASCADE; CREATE TABLE user_logins (user_id varchar(128), device_type varchar(32),
        masked_ip varchar(256), masked_device_id varchar(256), locale varchar(32), app_version integer,
        create_date date); GRANT INSERT ON user_logins TO login_writer";
    // A trigger of a user, which finds its table by the schema of the logins.
    let trigger = "CREATE TABLE changes (user_id text);
        CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
            $$BEGIN INSERT INTO changes VALUES (NEW.user_id); RETURN NEW; END$$;
        CREATE TRIGGER note BEFORE UPDATE ON user_logins FOR EACH ROW EXECUTE FUNCTION note()";
    vault.database.execute(trigger).await;
    for is_partitioned in [true, false] {
        if !is_partitioned {
            vault.database.execute(plain).await;
        }
        vault.write_sealed(7, &LOGINS).await;
        let without_date = "INSERT INTO user_logins
            SELECT user_id, 'old', masked_ip, masked_device_id, NULL, 1, NULL FROM user_logins";
        vault.database.execute(without_date).await;

        let erased = vault.erase(10, false, true).await;

        let tokens =
            "SELECT user_id || coalesce(left(masked_ip, 2), '-') || coalesce(left(masked_device_id, 2), '-')
            FROM user_logins ORDER BY 1";
        let rows = vault.database.admin.query(tokens, &[]).await.unwrap();
        let rows: Vec<&str> = rows.iter().map(|row| row.get(0)).collect();
        assert_eq!(erased, (true, 4));
        assert_eq!(rows, ["a01-", "a01-", "b02-", "b02-", "b030b", "b030b"]);
    }
    assert_eq!(count(&vault.database.admin, "SELECT count(*) FROM changes").await, 4);
}

#[tokio::test]
async fn only_own_tokens_of_a_user_are_erased() {
    let vault = Vault::create().await;
    vault.write_sealed(7, &LOGINS).await;
    vault.fold().await;
    let ask_user = "SELECT vault_ask('caller', 'erase-user', NULL, NULL, $1, 'data-subject', 'SEC-1')";
    let erase = "SELECT erased, shared, rows FROM vault_erase_user($1, $2, false, true)";
    let subject = token(9);

    let mut erased = Vec::new();
    for user in ["b", "b", "nobody"] {
        let entry: i64 = vault.broker.query_one(ask_user, &[&&subject[..]]).await.unwrap().get(0);
        let row = vault.broker.query_one(erase, &[&entry, &user]).await.unwrap();
        let outcome = vault.outcome(entry).await.unwrap();
        erased.push((
            row.get::<_, Vec<String>>(0),
            row.get::<_, Vec<String>>(1),
            row.get::<_, i64>(2),
            outcome,
        ));
    }

    let text = |outcome: &str| outcome.to_owned();
    assert_eq!(
        erased,
        [
            (vec![hex(2), hex(3), hex(11)], vec![hex(10)], 2, text("done")),
            (vec![], vec![hex(10)], 0, text("unknown")),
            (vec![], vec![], 0, text("unknown")),
        ]
    );
    assert_eq!(vault.folded().await, [1, 10]);
    assert_eq!(vault.reveal(11).await.0, "erased");
}

#[tokio::test]
async fn erasure_reaches_rollups_and_lake() {
    let mut vault = Vault::create().await;
    lake::create(&mut vault.database.admin, "public").await.unwrap();
    vault.write_sealed(7, &LOGINS).await;
    let admin = &mut vault.database.admin;
    analytics::create(admin, "public").await.unwrap();
    let roll_up = async |admin: &mut Client| {
        let now = std::time::SystemTime::now();
        analytics::roll_up(admin, "public", now, LOGINS_PER_STEP, Deadline::within(LIMIT)).await.unwrap()
    };
    roll_up(admin).await;
    let ring = "SELECT count(*) FROM analytics.rings";
    let shared = "SELECT count(*) FROM analytics.duplicates_all";
    let pairs = "SELECT count(*) FROM analytics.token_user";
    assert_eq!([count(admin, ring).await, count(admin, shared).await, count(admin, pairs).await], [1, 1, 6]);

    let erased = vault.erase(10, false, true).await;
    let admin = &mut vault.database.admin;
    let at_once = [count(admin, ring).await, count(admin, shared).await, count(admin, pairs).await];
    let rolled_up = roll_up(admin).await;

    assert_eq!(erased, (true, 2));
    assert_eq!(at_once, [0, 0, 4]);
    assert_eq!(rolled_up.days, 1);
    assert_eq!([count(admin, ring).await, count(admin, shared).await, count(admin, pairs).await], [0, 0, 4]);
    assert_eq!(count(admin, "SELECT count(*) FROM lake.exports WHERE changed").await, 1);
}

/// The owner is no superuser, and the schema needs quotes around its name.
#[tokio::test]
async fn vault_works_in_another_schema() {
    let name = create(&case("", "")).await;
    let mut owner = owner(&name).await;
    owner.batch_execute("CREATE SCHEMA \"Our Logins\"").await.unwrap();
    schema::migrate(&mut owner, "Our Logins", &WriterLogin::Unchanged).await.unwrap();
    lake::create(&mut owner, "Our Logins").await.unwrap();

    let created = vault::create(&mut owner, "Our Logins", &key(KEY), "kms-key").await.unwrap();
    let again = vault::create(&mut owner, "Our Logins", &key(KEY), "arn of the same key").await.unwrap();
    let rows = format!(
        "INSERT INTO \"Our Logins\".user_logins (masked_ip, create_date) VALUES ('{}', '2026-11-14');
         INSERT INTO \"Our Logins\".vault_inbox (key_id, enc, entry_length, body)
             SELECT id, decode('{}', 'base64'), 99, decode('{}', 'base64') FROM \"Our Logins\".vault_keys",
        hex(1),
        STANDARD.encode(enc(7)),
        STANDARD.encode(entry(0, b'i', 1, 7)),
    );
    owner.batch_execute(&rows).await.unwrap();
    let database = Database { name: name.clone(), admin: connect(superuser().dbname(&name)).await };
    let broker = crate::vault_support::broker(&database, "broker").await;
    broker.batch_execute("SET search_path = \"Our Logins\"").await.unwrap();
    let reveal = ask(&broker, "reveal", 1).await.unwrap();
    let state: String = take(&broker, reveal).await.unwrap().get("state");
    let erase = ask(&broker, "erase", 1).await.unwrap();
    let erased = broker.query_one("SELECT erased, rows FROM vault_erase($1, false, true)", &[&erase]).await;

    assert_eq!([created, again], [true, false]);
    assert_eq!(state, "sealed");
    let erased = erased.unwrap();
    assert_eq!((erased.get::<_, bool>(0), erased.get::<_, i64>(1)), (true, 1));
    let marked = "SELECT count(*) FROM \"Our Logins_lake\".exports WHERE changed";
    assert_eq!(count(&owner, marked).await, 1);
    let kms_key = owner.query_one("SELECT kms_key FROM \"Our Logins\".vault_keys", &[]).await.unwrap();
    assert_eq!(kms_key.get::<_, &str>(0), "arn of the same key");
}

#[tokio::test]
async fn database_that_cannot_hold_a_vault_is_refused() {
    let cases = [
        (
            "REVOKE CREATE ON SCHEMA public FROM PUBLIC; ALTER SCHEMA public OWNER TO {other};
             GRANT USAGE ON SCHEMA public TO {owner}"
                .to_owned(),
            "owner may not create tables in the schema public: GRANT USAGE, CREATE ON SCHEMA public TO",
        ),
        (
            "ALTER TABLE user_logins ENABLE ROW LEVEL SECURITY".to_owned(),
            "row security is on for public.user_logins, and the vault could not erase",
        ),
        (
            "REVOKE UPDATE ON user_logins FROM {owner}".to_owned(),
            "owner may not read and change public.user_logins, and could not erase tokens from it: GRANT SELECT, UPDATE",
        ),
        (
            "CREATE FUNCTION spy() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
             ALTER FUNCTION spy() OWNER TO {other};
             CREATE TRIGGER spy BEFORE INSERT ON vault_sealed FOR EACH ROW EXECUTE FUNCTION spy()"
                .to_owned(),
            "other owns public.spy()",
        ),
    ];
    assert_refusals(&cases, async |client: &mut Client, schema: &str| {
        vault::create(client, schema, &key(KEY), "kms-key").await.map(drop)
    })
    .await;
}

#[tokio::test]
async fn fold_works_in_steps() {
    let mut vault = Vault::create().await;
    for stream in 0..5 {
        vault.write_sealed(stream, &[Login { user: "a", ip: stream + 1, device: 100 + stream }]).await;
    }

    let admin = &mut vault.database.admin;
    let no_time = vault::fold(admin, "public", 2, Deadline::within(Duration::ZERO)).await.unwrap();
    let folded = vault::fold(admin, "public", 2, Deadline::within(LIMIT)).await.unwrap();
    let empty = vault::fold(admin, "public", 2, Deadline::within(LIMIT)).await.unwrap();

    assert_eq!((no_time.rows, no_time.rows_left), (2, 3));
    assert!(no_time.oldest > Duration::ZERO);
    assert_eq!(folded, Folded { rows: 3, ..Folded::default() });
    assert_eq!(empty, Folded::default());
    assert_eq!(vault.folded().await.len(), 10);
    assert_eq!(count(&vault.database.admin, "SELECT count(*) FROM vault_streams").await, 5);
}

#[tokio::test]
async fn concurrent_folds_move_each_row_once() {
    let vault = Vault::create().await;
    for stream in 0..20 {
        vault.write_sealed(stream, &[Login { user: "a", ip: stream + 1, device: 100 + stream }]).await;
    }

    let mut folds = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let mut client = connect(superuser().dbname(&vault.database.name)).await;
        folds.spawn(async move { vault::fold(&mut client, "public", 3, Deadline::within(LIMIT)).await });
    }
    let folded = folds.join_all().await.into_iter().map(|folded| folded.unwrap().rows).sum::<u64>();

    assert_eq!(folded, 20);
    assert_eq!(vault.folded().await.len(), 40);
}

#[tokio::test]
async fn fold_waits_for_an_erasure_and_gives_up() {
    let mut vault = Vault::create().await;
    vault.broker.batch_execute("BEGIN").await.unwrap();
    let entry = ask(&vault.broker, "erase", 1).await.unwrap();
    vault.broker.batch_execute("COMMIT; BEGIN").await.unwrap();
    vault.broker.query_one("SELECT vault_erase($1, false, false)", &[&entry]).await.unwrap();
    let admin = &mut vault.database.admin;
    admin.batch_execute("SET lock_timeout = '100ms'").await.unwrap();

    let busy = vault::fold(admin, "public", 3, Deadline::within(LIMIT)).await;

    assert!(matches!(busy, Err(SchemaError::Busy)), "{busy:?}");
}

/// In a snapshot from before, an erasure would miss what was folded since.
#[tokio::test]
async fn erasure_in_an_old_snapshot_is_refused() {
    let vault = Vault::create().await;
    vault.write_sealed(7, &LOGINS).await;
    let entry = ask(&vault.broker, "erase", 1).await.unwrap();

    vault.broker.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ").await.unwrap();
    let refused = vault.broker.query_one("SELECT vault_erase($1, false, false)", &[&entry]).await;

    assert_eq!(sqlstate(refused), "25000");
}
