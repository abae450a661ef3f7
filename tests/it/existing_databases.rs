//! `migrate` on databases that exist already: its report, and whether the function can then write. The tables in
//! docs/deployment.md show the same results.

use std::process::Command;
use std::time::{Duration, SystemTime};

use login_etl::analytics::{self, LOGINS_PER_STEP, schema_name};
use login_etl::deadline::Deadline;
use login_etl::handler::Ingest;
use login_etl::schema::{self, Finding, SchemaError, WriterLogin};
use postgres_protocol::escape::escape_identifier;
use serde_json::Value;
use tokio_postgres::{Client, Config};

use crate::support::{
    Database, Logs, batch, body, connect, error_type, failures, fifo, ingest_with, invoke, login, masker,
    record, server_address, superuser, unique_name,
};

/// The columns that the writer fills.
const COLUMNS: &str = "user_id varchar(128), device_type varchar(32), masked_ip varchar(256),
    masked_device_id varchar(256), locale varchar(32), app_version integer, create_date date";

/// A database, and the settings of both programs. In the statements, `{owner}` is the role that runs migrate, and
/// `{database}` the database. The statements run as this role, until they change it.
pub(crate) struct Case {
    found: &'static str,
    statements: &'static str,
    encoding: &'static str,
    schema: Option<&'static str>,
}

pub(crate) const fn case(found: &'static str, statements: &'static str) -> Case {
    Case { found, statements, encoding: "UTF8", schema: None }
}

/// First the databases that `migrate` refuses, then those that it warns about, then the others.
const CASES: [Case; 39] = [
    case("`id bigint PRIMARY KEY` without a default", "CREATE TABLE user_logins (id bigint PRIMARY KEY, {columns})"),
    case(
        "no column `locale`, and one called `\"User_Id\"`",
        "CREATE TABLE user_logins ({columns}); ALTER TABLE user_logins DROP COLUMN locale;
         ALTER TABLE user_logins RENAME COLUMN user_id TO \"User_Id\"",
    ),
    case(
        "columns of the types `inet`, `uuid`, `jsonb` and of an enum",
        "CREATE TYPE device AS ENUM ('android', 'ios');
         CREATE TABLE user_logins (user_id varchar(128), device_type device, masked_ip inet, masked_device_id uuid,
             locale jsonb, app_version integer, create_date date)",
    ),
    case(
        "`masked_ip varchar(45)` and `app_version smallint`",
        "CREATE TABLE user_logins (user_id varchar(128), device_type varchar(32), masked_ip varchar(45),
             masked_device_id varchar(256), locale varchar(32), app_version smallint, create_date date)",
    ),
    case(
        "a view that groups rows",
        "CREATE TABLE logins ({columns}); CREATE VIEW user_logins AS SELECT DISTINCT * FROM logins",
    ),
    case(
        "a materialized view",
        "CREATE TABLE logins ({columns}); CREATE MATERIALIZED VIEW user_logins AS SELECT * FROM logins",
    ),
    case(
        "a foreign table",
        "RESET ROLE; CREATE FOREIGN DATA WRAPPER other; CREATE SERVER other FOREIGN DATA WRAPPER other;
         GRANT USAGE ON FOREIGN SERVER other TO {owner}; SET ROLE {owner};
         CREATE FOREIGN TABLE user_logins ({columns}) SERVER other",
    ),
    case(
        "a table and a sequence of the superuser",
        "RESET ROLE; CREATE TABLE user_logins (id serial, {columns})",
    ),
    case(
        "a table and a sequence of another role",
        "RESET ROLE; CREATE TABLE user_logins (id serial, {columns}); ALTER TABLE user_logins OWNER TO {other};
         GRANT INSERT, SELECT ON public.user_logins TO {owner} WITH GRANT OPTION",
    ),
    case(
        "a table of `login_writer`",
        "RESET ROLE; CREATE TABLE user_logins ({columns}); ALTER TABLE user_logins OWNER TO login_writer",
    ),
    case(
        "a history of migrations that another role made",
        "RESET ROLE; CREATE TABLE login_etl_migrations (version integer PRIMARY KEY, name varchar(255) NOT NULL,
             applied_on varchar(255) NOT NULL, checksum varchar(255) NOT NULL);
         ALTER TABLE login_etl_migrations OWNER TO {other}",
    ),
    case(
        "a right of PUBLIC to create objects in the schema, as in Postgres 14 and older",
        "GRANT CREATE ON SCHEMA public TO PUBLIC",
    ),
    case(
        "the same, and `owner` does not own the database",
        "RESET ROLE; ALTER DATABASE {database} OWNER TO {other}; GRANT CREATE ON SCHEMA public TO PUBLIC",
    ),
    case("a right of another role to create objects", "GRANT CREATE ON SCHEMA public TO {other}"),
    case(
        "a right of another role to create triggers",
        "CREATE TABLE user_logins ({columns}); GRANT ALL ON user_logins TO {other}",
    ),
    case(
        "a function that another role made, with the name of a function of Postgres",
        "RESET ROLE; CREATE FUNCTION public.format(text, text) RETURNS text LANGUAGE sql AS 'SELECT $1';
         ALTER FUNCTION public.format(text, text) OWNER TO {other}",
    ),
    case(
        "row security without a policy",
        "CREATE TABLE user_logins ({columns}); ALTER TABLE user_logins ENABLE ROW LEVEL SECURITY",
    ),
    case(
        "a trigger that writes to a table which the writer may not use",
        "CREATE TABLE user_logins ({columns}); CREATE TABLE copies (user_id text);
         CREATE FUNCTION copy() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN INSERT INTO public.copies VALUES (NEW.user_id); RETURN NEW; END $$;
         CREATE TRIGGER copy BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION copy()",
    ),
    Case {
        found: "`DATABASE_SCHEMA` set to a schema that does not exist",
        statements: "",
        encoding: "UTF8",
        schema: Some("logins"),
    },
    case(
        "the ledger in another schema",
        "CREATE SCHEMA etl; CREATE TABLE etl.processed_messages (); CREATE FUNCTION etl.write_logins(
             timestamptz[], uuid[], text[], text[], text[], text[], text[], integer[], text
         ) RETURNS bigint LANGUAGE sql AS 'SELECT 0::bigint'",
    ),
    case(
        "no `CREATE` on the schema",
        "RESET ROLE; ALTER DATABASE {database} OWNER TO {other}; REVOKE CREATE ON SCHEMA public FROM PUBLIC",
    ),
    case("an unlogged table", "CREATE UNLOGGED TABLE user_logins ({columns})"),
    case(
        "a trigger that refuses the generated row",
        "CREATE TABLE user_logins ({columns});
         CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN IF NEW.user_id LIKE 'login-etl%' THEN RAISE 'no %', NEW.user_id; END IF; RETURN NEW; END $$;
         CREATE TRIGGER refuse BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION refuse()",
    ),
    case(
        "roles that exist, and no `CREATEROLE`",
        "RESET ROLE; ALTER ROLE {owner} NOCREATEROLE; REVOKE login_writer FROM {owner}",
    ),
    Case { found: "the encoding LATIN1", statements: "", encoding: "LATIN1", schema: None },
    case("nothing", ""),
    case(
        "`user_logins` with rows and a column of its own",
        "CREATE TABLE user_logins ({columns}, note text DEFAULT 'new'); INSERT INTO user_logins VALUES ('kept')",
    ),
    case("`id serial PRIMARY KEY`", "CREATE TABLE user_logins (id serial PRIMARY KEY, {columns})"),
    case(
        "`id bigint GENERATED ALWAYS AS IDENTITY`",
        "CREATE TABLE user_logins (id bigint GENERATED ALWAYS AS IDENTITY, {columns})",
    ),
    case(
        "a trigger that fills `id`",
        "CREATE TABLE user_logins (id uuid NOT NULL, {columns});
         CREATE FUNCTION fill() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN NEW.id := gen_random_uuid(); RETURN NEW; END $$;
         CREATE TRIGGER fill BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION fill()",
    ),
    case(
        "`text`, `bigint`, `timestamptz` and a domain",
        "CREATE DOMAIN identifier AS text CHECK (VALUE <> '');
         CREATE TABLE user_logins (user_id identifier, device_type text, masked_ip text, masked_device_id text,
             locale char(35), app_version bigint, create_date timestamptz)",
    ),
    case(
        "a view of one table",
        "CREATE TABLE logins ({columns}); CREATE VIEW user_logins AS SELECT * FROM logins",
    ),
    case(
        "a partitioned table",
        "CREATE TABLE user_logins ({columns}) PARTITION BY RANGE (create_date);
         CREATE TABLE all_logins PARTITION OF user_logins DEFAULT",
    ),
    case(
        "a table and a sequence of the superuser, with the two grants that `migrate` names",
        "RESET ROLE; CREATE TABLE user_logins (id serial, {columns});
         GRANT INSERT, SELECT ON public.user_logins TO {owner} WITH GRANT OPTION;
         GRANT USAGE ON SEQUENCE public.user_logins_id_seq TO {owner} WITH GRANT OPTION",
    ),
    case(
        "a table and a sequence of another role, whose rights `owner` has",
        "RESET ROLE; CREATE TABLE user_logins (id serial, {columns}); ALTER TABLE user_logins OWNER TO {other};
         GRANT {other} TO {owner}",
    ),
    case(
        "`CONNECT` and the schema revoked from PUBLIC",
        "RESET ROLE; ALTER SCHEMA public OWNER TO {owner}; REVOKE ALL ON DATABASE {database} FROM PUBLIC; REVOKE ALL ON SCHEMA public FROM PUBLIC",
    ),
    case(
        "a `search_path` of the database and of the role",
        "ALTER DATABASE {database} SET search_path TO nowhere; ALTER ROLE {owner} SET search_path TO elsewhere",
    ),
    Case {
        found: "the schema `Logins`, `DATABASE_SCHEMA` set to it",
        statements: "CREATE SCHEMA \"Logins\"",
        encoding: "UTF8",
        schema: Some("Logins"),
    },
    case(
        "the history of another program that uses refinery",
        "CREATE TABLE refinery_schema_history
             (version integer PRIMARY KEY, name varchar(255), applied_on varchar(255), checksum varchar(255));
         INSERT INTO refinery_schema_history VALUES (1, 'initial', '2026-01-01T00:00:00Z', '1')",
    ),
];

/// The outcome of a case.
struct Outcome {
    said: String,
    result: String,
}

/// Creates the database of a case and its roles, and returns their common name.
pub(crate) async fn create(case: &Case) -> String {
    let name = unique_name();
    let server = connect(&superuser()).await;
    let statements = format!(
        "DO $$ BEGIN CREATE ROLE login_writer LOGIN;
             EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$;
         DO $$ BEGIN CREATE ROLE login_reader NOLOGIN;
             EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$;
         CREATE ROLE {name}_owner LOGIN CREATEROLE PASSWORD '{name}';
         CREATE ROLE {name}_other;
         CREATE ROLE {name}_writer LOGIN PASSWORD '{name}' IN ROLE login_writer;
         GRANT login_writer, login_reader TO {name}_owner WITH ADMIN OPTION"
    );
    server.batch_execute(&statements).await.unwrap();
    let database = format!(
        "CREATE DATABASE {name} OWNER {name}_owner TEMPLATE template0 LOCALE 'C' ENCODING '{}'",
        case.encoding
    );
    server.batch_execute(&database).await.unwrap();
    name
}

/// Returns the statements that make the database of a case.
fn statements(case: &Case, name: &str) -> String {
    let statements = case
        .statements
        .replace("{columns}", COLUMNS)
        .replace("{owner}", &format!("{name}_owner"))
        .replace("{other}", &format!("{name}_other"))
        .replace("{database}", name);
    format!("SET ROLE {name}_owner; SET search_path TO public; {statements}; RESET ROLE")
}

/// Returns the URL with which one of the roles logs in to its database.
pub(crate) fn url(name: &str, role: &str) -> String {
    format!("postgresql://{name}_{role}:{name}@{}/{name}?sslmode=disable", server_address())
}

/// Returns everything that `migrate` could change in a database.
async fn state(admin: &Client) -> Vec<String> {
    let sql = "SELECT format('%s %s %s', oid::regclass, relkind, relacl) FROM pg_class WHERE oid >= 16384
               UNION ALL SELECT format('%s %s', oid::regprocedure, proacl) FROM pg_proc WHERE oid >= 16384
               UNION ALL SELECT format('%s %s', nspname, nspacl) FROM pg_namespace
               UNION ALL SELECT datacl::text FROM pg_database WHERE datname = current_database()
               ORDER BY 1";
    admin.query(sql, &[]).await.unwrap().iter().filter_map(|row| row.get(0)).collect()
}

/// The analysts' schema can be made beside each of these tables.
async fn roll_up(name: &str, case: &Case) {
    let schema = case.schema.unwrap_or("public");
    let mut owner = owner(name).await;
    analytics::create(&mut owner, schema).await.unwrap();
    let deadline = Deadline::within(Duration::from_mins(1));
    let rolled_up =
        analytics::roll_up(&mut owner, schema, SystemTime::now(), LOGINS_PER_STEP, deadline).await.unwrap();
    assert_eq!(rolled_up.days_left, 0, "{}", case.found);
    let through =
        format!("SELECT through IS NOT NULL FROM {}.freshness", escape_identifier(&schema_name(schema)));
    assert!(owner.query_one(&through, &[]).await.unwrap().get::<_, bool>(0), "{}", case.found);
}

async fn try_case(case: &Case) -> Outcome {
    let name = create(case).await;
    let admin = connect(superuser().dbname(&name)).await;
    admin.batch_execute(&statements(case, &name)).await.unwrap();
    let before = state(&admin).await;

    let mut migrate = Command::new(env!("CARGO_BIN_EXE_migrate"));
    migrate.env_clear().env("DATABASE_URL", url(&name, "owner"));
    migrate.envs(case.schema.map(|schema| ("DATABASE_SCHEMA", schema)));
    let output = migrate.output().unwrap();

    let writer = url(&name, "writer");
    let mut settings = vec![("DATABASE_URL", &*writer)];
    settings.extend(case.schema.map(|schema| ("DATABASE_SCHEMA", schema)));
    let written = if output.status.success() {
        // A second run changes nothing.
        assert!(migrate.output().unwrap().status.success(), "{}", case.found);
        let ingest = ingest_with(&settings).await;
        invoke(&ingest, &batch([login("m", "user")])).await.map_err(|error| error.error_type)
    } else {
        assert_eq!(state(&admin).await, before, "{}", case.found);
        Err("changes nothing".to_owned())
    };
    if written.is_ok() {
        roll_up(&name, case).await;
    }
    let said = said(&output.stdout)
        .replace(&format!("{name}_owner"), "owner")
        .replace(&format!("{name}_other"), "other");
    Outcome {
        said: said.replace(&name, "logins"),
        result: match written {
            Ok(answer) if answer["batchItemFailures"] == Value::Array(Vec::new()) => "writes".to_owned(),
            Ok(_) => "refuses the row".to_owned(),
            Err(problem) => problem,
        },
    }
}

/// Returns the warnings and the error in a log.
fn said(log: &[u8]) -> String {
    let lines =
        log.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice::<Value>(line).ok());
    let texts = lines.filter_map(|line| match line["message"].as_str()? {
        "the database may cause failures" => {
            Some(format!("warning: {}: {}", line["problem"].as_str()?, line["remedy"].as_str()?))
        }
        _ => line["error"]
            .as_str()
            .map(|error| error.trim_start_matches("the database is not ready: ").to_owned()),
    });
    let texts: Vec<String> = texts.collect();
    if texts.is_empty() { "nothing".to_owned() } else { texts.join("; ") }
}

#[tokio::test]
async fn document_shows_the_messages_of_migrate() {
    let mut results = Vec::new();
    for case in &CASES {
        let Outcome { said, result } = try_case(case).await;
        results.push(match (&*said, &*result) {
            ("nothing", "writes") => format!("- {}", case.found),
            (_, "changes nothing" | "writes") => {
                format!("| {} | `{}` |", case.found, said.replace("; ", "`; `"))
            }
            _ => panic!("{}: {said}, {result}", case.found),
        });
    }

    let document = include_str!("../../docs/deployment.md");
    let (_, section) = document.split_once("\n### Databases that were tried\n").unwrap();
    let (section, _) = section.split_once("\n#").unwrap();
    let is_result = |line: &&str| {
        line.starts_with("- ") || (line.starts_with("| ") && !line.starts_with("| the database has |"))
    };
    let shown: Vec<&str> = section.lines().filter(is_result).collect();
    assert_eq!(shown, results, "docs/deployment.md should show:\n{}", results.join("\n"));
}

pub(crate) async fn owner(name: &str) -> Client {
    connect(&url(name, "owner").parse::<Config>().unwrap()).await
}

#[tokio::test]
async fn all_problems_are_reported_at_once() {
    let name = create(&case("", "")).await;
    let statements = format!(
        "CREATE TABLE user_logins (id uuid PRIMARY KEY, user_id varchar(128), masked_ip inet, app_version integer,
             create_date date);
         ALTER TABLE user_logins OWNER TO {name}_other;
         REVOKE ALL ON SCHEMA public FROM PUBLIC; ALTER DATABASE {name} OWNER TO {name}_other;
         REVOKE ALL ON DATABASE {name} FROM PUBLIC; GRANT CONNECT ON DATABASE {name} TO {name}_owner;
         GRANT USAGE ON SCHEMA public TO {name}_owner; ALTER ROLE {name}_owner NOCREATEROLE"
    );
    connect(superuser().dbname(&name)).await.batch_execute(&statements).await.unwrap();
    let mut owner = owner(&name).await;

    let password = WriterLogin::Password("x".into());
    let refusal = schema::migrate(&mut owner, "public", &password).await.unwrap_err().to_string();

    let refusal =
        refusal.replace(&format!("{name}_owner"), "owner").replace(&format!("{name}_other"), "other");
    insta::assert_snapshot!(refusal.replace(&name, "logins").replace("; ", ";\n"));
}

#[tokio::test]
async fn each_remedy_makes_the_database_ready() {
    for case in &CASES {
        let name = create(case).await;
        let admin = connect(superuser().dbname(&name)).await;
        admin.batch_execute(&statements(case, &name)).await.unwrap();
        let mut owner = owner(&name).await;
        let schema = case.schema.unwrap_or("public");

        let Err(SchemaError::NotReady(findings)) =
            schema::migrate(&mut owner, schema, &WriterLogin::Unchanged).await
        else {
            continue;
        };
        // Two remedies are not statements.
        let is_statement =
            |finding: &&Finding| finding.remedy.starts_with(|first: char| first.is_uppercase());
        let remedies: Vec<&str> =
            findings.iter().filter(is_statement).map(|finding| &*finding.remedy).collect();
        admin.batch_execute(&remedies.join("; ")).await.expect(case.found);

        if remedies.len() == findings.len() {
            schema::migrate(&mut owner, schema, &WriterLogin::Unchanged).await.expect(case.found);
        }
    }
}

#[tokio::test]
async fn proof_leaves_nothing_behind() {
    let mut database = Database::create().await;

    schema::migrate(&mut database.admin, "public", &WriterLogin::Unchanged).await.unwrap();

    let sql = "SELECT (SELECT count(*) FROM user_logins) + (SELECT count(*) FROM processed_messages)
                   + (SELECT count(*) FROM processed_fifo_messages) + (SELECT count(*) FROM salt_fingerprint)";
    assert_eq!(database.admin.query_one(sql, &[]).await.unwrap().get::<_, i64>(0), 0);
}

/// The text of a trigger's error may quote rows of any table.
#[tokio::test]
async fn warning_quotes_no_text_of_triggers() {
    let mut database = Database::create().await;
    for (raise, level) in [
        ("RAISE EXCEPTION 'hunter2'", "ROW"),
        ("RAISE EXCEPTION 'hunter2' USING ERRCODE = '42501'", "ROW"),
        ("ASSERT false, 'hunter2'", "ROW"),
        ("RAISE EXCEPTION 'hunter2'", "STATEMENT"),
    ] {
        let trigger = format!(
            "CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {raise}; END $$;
             CREATE OR REPLACE TRIGGER refuse BEFORE INSERT ON user_logins
                 FOR EACH {level} EXECUTE FUNCTION refuse()"
        );
        database.execute(&trigger).await;

        let migrated = schema::migrate(&mut database.admin, "public", &WriterLogin::Unchanged).await.unwrap();

        assert!(migrated.warnings[0].problem.starts_with("user_logins refuses a generated row, SQLSTATE "));
        assert!(!format!("{migrated:?}").contains("hunter2"));
    }
}

#[tokio::test]
async fn reader_of_some_columns_stays_narrow() {
    let mut database = Database::create().await;
    let narrow = "REVOKE SELECT ON user_logins FROM login_reader;
         GRANT SELECT (user_id, create_date) ON user_logins TO login_reader";
    database.execute(narrow).await;

    schema::migrate(&mut database.admin, "public", &WriterLogin::Unchanged).await.unwrap();

    let reads_tokens = "SELECT has_column_privilege('login_reader', 'user_logins', 'masked_ip', 'SELECT')";
    let reads_tokens: bool = database.admin.query_one(reads_tokens, &[]).await.unwrap().get(0);
    assert!(!reads_tokens);
}

#[tokio::test]
async fn lost_privileges_are_granted_again() {
    let mut database = Database::create().await;
    let revoke =
        "REVOKE ALL ON user_logins, processed_messages, processed_fifo_messages FROM login_writer, login_reader;
         REVOKE ALL ON salt_fingerprint FROM login_writer;
         REVOKE ALL (fingerprint) ON salt_fingerprint FROM login_writer;
         ALTER TABLE user_logins ADD COLUMN id serial";
    database.execute(revoke).await;

    schema::migrate(&mut database.admin, "public", &WriterLogin::Unchanged).await.unwrap();

    let ingest = database.ingest().await;
    assert_eq!(invoke(&ingest, &batch([login("a", "a")])).await, failures(&[]));
    let reads = "SELECT has_table_privilege('login_reader', 'user_logins', 'SELECT')";
    assert!(database.admin.query_one(reads, &[]).await.unwrap().get::<_, bool>(0));
}

#[tokio::test]
async fn wrong_schema_setting_is_named() {
    let database = Database::create().await;
    let schemas = "CREATE SCHEMA empty; GRANT USAGE ON SCHEMA empty TO PUBLIC; CREATE SCHEMA hidden";
    database.execute(schemas).await;
    let url = database.url();
    let error = async |schema: &str| {
        let ingest = ingest_with(&[("DATABASE_URL", &url), ("DATABASE_SCHEMA", schema)]).await;
        let outcome = invoke(&ingest, &batch([login("a", "a")])).await;
        assert_eq!(error_type(&outcome), "DatabaseRefused");
        outcome.unwrap_err().error_message
    };

    let wrong = [error("empty").await, error("hidden").await, error("missing").await];
    database.execute("DROP SCHEMA public CASCADE").await;
    let nowhere = [error("empty").await, error("public").await];

    for (schema, error) in ["empty", "hidden", "missing"].iter().zip(wrong) {
        let remedy = "set DATABASE_SCHEMA to public";
        assert_eq!(error, format!("the schema {schema} has no function write_logins: {remedy}"));
    }
    for (schema, error) in ["empty", "public"].iter().zip(nowhere) {
        assert_eq!(error, format!("the schema {schema} has no function write_logins: run migrate"));
    }
}

/// Creates a database with this encoding, and returns its owner's session and the function that writes to it.
async fn ingest_into(encoding: &'static str) -> (Client, Ingest) {
    let name = create(&Case { encoding, ..case("", "") }).await;
    let mut owner = owner(&name).await;
    schema::migrate(&mut owner, "public", &WriterLogin::Unchanged).await.unwrap();
    let ingest = ingest_with(&[("DATABASE_URL", &url(&name, "writer"))]).await;
    (owner, ingest)
}

async fn user_ids(owner: &Client) -> Vec<String> {
    let sql = "SELECT user_id FROM user_logins ORDER BY user_id COLLATE \"C\"";
    owner.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn text_outside_the_encoding_fails_alone() {
    let (owner, ingest) = ingest_into("LATIN1").await;
    let logs = Logs::capture();
    let mut in_locale = body("d");
    in_locale["locale"] = "日本".into();
    let event =
        batch([login("a", "a"), login("b", "Ж"), login("c", "é"), record("d", in_locale.to_string())]);

    let answer = invoke(&ingest, &event).await;
    let repeated = invoke(&ingest, &event).await;
    let all = invoke(&ingest, &batch([login("e", "Ж")])).await;

    assert_eq!([answer, repeated, all], [failures(&["b", "d"]), failures(&["b", "d"]), failures(&["e"])]);
    assert_eq!(user_ids(&owner).await, ["a", "é"]);
    assert_eq!(logs.lines("message failed")[0]["error"], "Postgres refused the row, SQLSTATE 22P05");
    assert!(!logs.text().contains('Ж'));
}

#[tokio::test]
async fn text_outside_the_encoding_holds_back_group() {
    let (owner, ingest) = ingest_into("LATIN1").await;
    let message = |id: &str, group: &str, user: &str| fifo(id, group, body(user).to_string());
    let event = batch([
        message("a1", "a", "a1"),
        message("a2", "a", "Ж"),
        message("b1", "b", "b1"),
        message("a3", "a", "a3"),
        message("a4", "a", "Ж"),
    ]);

    let answer = invoke(&ingest, &event).await;

    assert_eq!(answer, failures(&["a2", "a3", "a4"]));
    assert_eq!(user_ids(&owner).await, ["a1", "b1"]);
}

#[tokio::test]
async fn thousands_outside_the_encoding_are_isolated() {
    let (owner, ingest) = ingest_into("LATIN1").await;
    let user = |number: usize| if number.is_multiple_of(2) { "Ж" } else { "good" };
    let records = (0..10_000).map(|number| login(&format!("m{number:05}"), user(number)));

    let answer = invoke(&ingest, &batch(records)).await.unwrap();

    assert_eq!(answer["batchItemFailures"].as_array().unwrap().len(), 5_000);
    assert_eq!(user_ids(&owner).await.len(), 5_000);
}

/// A database with `SQL_ASCII` stores any bytes, and counts bytes instead of characters.
#[tokio::test]
async fn sql_ascii_counts_bytes() {
    let (owner, ingest) = ingest_into("SQL_ASCII").await;
    let (short, long) = ("é".repeat(64), "é".repeat(65));

    let answer = invoke(&ingest, &batch([login("a", &short), login("b", &long)])).await;

    assert_eq!(answer, failures(&["b"]));
    assert_eq!(user_ids(&owner).await, [short]);
}

#[tokio::test]
async fn prune_and_salt_use_the_schema() {
    let name = create(&case("", "")).await;
    let mut owner = owner(&name).await;
    owner.batch_execute("CREATE SCHEMA \"Logins\"").await.unwrap();
    schema::migrate(&mut owner, "Logins", &WriterLogin::Unchanged).await.unwrap();
    let old_entry = "INSERT INTO \"Logins\".processed_messages
                     SELECT ((now() AT TIME ZONE 'UTC')::date - 20 - DATE '1970-01-01') % 32, now(), gen_random_uuid()";
    owner.batch_execute(old_entry).await.unwrap();

    schema::prune(&mut owner, "Logins").await.unwrap();
    let changed = schema::accept_salt(&mut owner, "Logins", &masker().salt_fingerprint()).await.unwrap();

    assert!(changed);
    let counts = "SELECT (SELECT count(*) FROM \"Logins\".processed_messages),
                      (SELECT count(*) FROM \"Logins\".salt_fingerprint)";
    let counts = owner.query_one(counts, &[]).await.unwrap();
    assert_eq!((counts.get::<_, i64>(0), counts.get::<_, i64>(1)), (0, 1));
}

/// Asserts that, after the statements of a case, creating a schema beside `public` is refused for its problem. In the
/// statements, `{owner}` runs migrate, and `{other}` is another role.
pub(crate) async fn assert_refusals(
    cases: &[(String, &str)],
    create_beside: impl AsyncFn(&mut Client, &str) -> Result<(), SchemaError>,
) {
    for (statements, problem) in cases {
        let name = create(&case("", "")).await;
        let mut owner = owner(&name).await;
        schema::migrate(&mut owner, "public", &WriterLogin::Unchanged).await.unwrap();
        let statements = statements
            .replace("{owner}", &format!("{name}_owner"))
            .replace("{other}", &format!("{name}_other"))
            .replace("{database}", &name);
        connect(superuser().dbname(&name)).await.batch_execute(&statements).await.unwrap();

        let refusal = create_beside(&mut owner, "public").await.unwrap_err().to_string();

        let refusal = refusal.replace(&format!("{name}_"), "");
        assert!(refusal.contains(problem), "{statements}: {refusal}");
    }
}
