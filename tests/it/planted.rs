//! Code that another role planted in the database: `migrate` refuses the database, and never runs the code.

use std::process::Command;

use login_etl::schema::{self, SchemaError, WriterLogin};
use tokio_postgres::Client;

use crate::existing_databases::{case, create, owner, url};
use crate::support::{Database, connect, masker, superuser};

/// Counts calls in a sequence, because a rollback does not reset it.
const PREPARE: &str = "CREATE SEQUENCE public.calls;
    GRANT USAGE ON SEQUENCE public.calls TO PUBLIC;
    GRANT CREATE ON SCHEMA public TO {other}";

const TABLE: &str = "CREATE TABLE public.user_logins (user_id varchar(128), device_type varchar(32),
    masked_ip varchar(256), masked_device_id varchar(256), locale varchar(32), app_version integer, create_date date)";

const SPY: &str = "CREATE FUNCTION public.spy() RETURNS integer LANGUAGE plpgsql AS
    $$ BEGIN PERFORM nextval('public.calls'); RETURN 1; END $$";

/// migrate proves that the writer can write. A trigger can leave the role of the writer during this proof.
const TRIGGER: &str = "CREATE FUNCTION public.spy() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        RESET ROLE;
        IF current_user <> 'login_writer' THEN PERFORM nextval('public.calls'); END IF;
        RETURN NEW;
    END $$;
    CREATE TRIGGER spy BEFORE INSERT ON public.user_logins FOR EACH ROW EXECUTE FUNCTION public.spy()";

async fn is_called(admin: &Client) -> bool {
    admin.query_one("SELECT is_called FROM public.calls", &[]).await.unwrap().get(0)
}

/// The role `{other}` may create objects only until it planted its own.
#[tokio::test]
async fn planted_code_is_refused_and_not_run() {
    let function = "SET ROLE {other};
         CREATE FUNCTION public.format(text, text) RETURNS text LANGUAGE plpgsql AS
             $$ BEGIN PERFORM nextval('public.calls'); RETURN pg_catalog.format($1, $2); END $$";
    let history = format!(
        "SET ROLE {{other}}; {SPY};
         CREATE VIEW public.login_etl_migrations AS
             SELECT public.spy() AS version, 'x'::varchar AS name, '1'::varchar AS checksum;
         GRANT SELECT ON public.login_etl_migrations TO {{owner}}"
    );
    let table = format!(
        "SET ROLE {{other}}; {TABLE}; {TRIGGER};
         GRANT INSERT, SELECT ON public.user_logins TO {{owner}} WITH GRANT OPTION"
    );
    let trigger = format!(
        "SET ROLE {{owner}}; {TABLE}; GRANT TRIGGER ON public.user_logins TO {{other}};
         SET ROLE {{other}}; {TRIGGER}"
    );
    // The right to create triggers ends, and the trigger stays.
    let trigger_left = format!("{trigger}; RESET ROLE; REVOKE TRIGGER ON public.user_logins FROM {{other}}");
    let default = format!(
        "SET ROLE {{owner}}; {TABLE}; SET ROLE {{other}}; {SPY}; SET ROLE {{owner}};
         ALTER TABLE public.user_logins ADD COLUMN number integer DEFAULT public.spy()"
    );
    let below_a_view = format!(
        "SET ROLE {{other}}; {TABLE}; {TRIGGER}; ALTER TABLE public.user_logins RENAME TO all_logins;
         GRANT INSERT, SELECT ON public.all_logins TO {{owner}};
         SET ROLE {{owner}}; CREATE VIEW public.user_logins AS SELECT * FROM public.all_logins"
    );
    for plant in [function, &history, &table, &trigger, &trigger_left, &default, &below_a_view] {
        let name = create(&case("", "")).await;
        let admin = connect(superuser().dbname(&name)).await;
        let statements =
            format!("{PREPARE}; {plant}; RESET ROLE; REVOKE CREATE ON SCHEMA public FROM {{other}}")
                .replace("{other}", &format!("{name}_other"))
                .replace("{owner}", &format!("{name}_owner"));
        admin.batch_execute(&statements).await.unwrap();

        let status = schema::status(&mut owner(&name).await, "public").await;
        let mut migrate = Command::new(env!("CARGO_BIN_EXE_migrate"));
        let output = migrate.env_clear().env("DATABASE_URL", url(&name, "owner")).output().unwrap();

        let log = String::from_utf8(output.stdout).unwrap();
        assert!(!is_called(&admin).await, "{plant}");
        assert!(matches!(status, Err(SchemaError::NotReady(_))), "{status:?}");
        assert!(log.contains("the database is not ready: "), "{log}");
        assert_eq!(output.status.code(), Some(1));
    }
}

#[tokio::test]
async fn right_to_create_ends_every_run() {
    let name = create(&case("", "")).await;
    let mut owner = owner(&name).await;
    schema::migrate(&mut owner, "public", &WriterLogin::Unchanged).await.unwrap();
    owner.batch_execute("GRANT CREATE ON SCHEMA public TO PUBLIC").await.unwrap();

    let migrated = schema::migrate(&mut owner, "public", &WriterLogin::Unchanged).await.map(drop);
    let pruned = schema::prune(&mut owner, "public").await;
    let accepted = schema::accept_salt(&mut owner, "public", &masker().salt_fingerprint()).await.map(drop);
    let read = schema::status(&mut owner, "public").await.map(drop);

    for outcome in [migrated, pruned, accepted, read] {
        let Err(SchemaError::NotReady(findings)) = outcome else { panic!("{outcome:?}") };
        assert_eq!(findings[0].remedy, "REVOKE CREATE ON SCHEMA public FROM PUBLIC");
    }
}

/// A new table or function must be added to `trust.sql`.
#[tokio::test]
async fn every_object_of_ours_is_checked() {
    let name = create(&case("", "")).await;
    let mut owner = owner(&name).await;
    schema::migrate(&mut owner, "public", &WriterLogin::Unchanged).await.unwrap();
    let admin = connect(superuser().dbname(&name)).await;
    let objects = "SELECT 'TABLE', oid::regclass::text FROM pg_class
                   WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')
                   UNION ALL
                   SELECT 'FUNCTION', oid::regprocedure::text FROM pg_proc
                   WHERE pronamespace = 'public'::regnamespace";
    let objects = admin.query(objects, &[]).await.unwrap();
    for object in &objects {
        let (kind, object): (String, String) = (object.get(0), object.get(1));
        admin.batch_execute(&format!("ALTER {kind} {object} OWNER TO {name}_other")).await.unwrap();
    }

    let refusal = schema::migrate(&mut owner, "public", &WriterLogin::Unchanged).await.unwrap_err();

    assert!(objects.len() > 40);
    for object in &objects {
        let object: String = object.get(1);
        assert!(refusal.to_string().contains(&format!("public.{object}")), "{object}");
    }
}

#[tokio::test]
async fn default_privileges_give_no_triggers() {
    let name = create(&case("", "")).await;
    let mut owner = owner(&name).await;
    let grant = format!("ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO {name}_other, PUBLIC");
    owner.batch_execute(&grant).await.unwrap();

    let first = schema::migrate(&mut owner, "public", &WriterLogin::Unchanged).await.map(drop);
    let second = schema::migrate(&mut owner, "public", &WriterLogin::Unchanged).await.map(drop);

    first.unwrap();
    second.unwrap();
}

/// An administrator grants `login_writer` and `login_reader` to the owner. Their members do not become trusted by it.
#[tokio::test]
async fn members_of_our_roles_are_not_trusted() {
    for role in ["login_writer", "login_reader"] {
        let name = create(&case("", "")).await;
        let grant = format!(
            "GRANT {role} TO {name}_other; GRANT CREATE ON SCHEMA public TO {name}_other;
             CREATE SCHEMA own AUTHORIZATION {name}_owner; GRANT CREATE ON SCHEMA own TO {role}"
        );
        connect(superuser().dbname(&name)).await.batch_execute(&grant).await.unwrap();
        let mut owner = owner(&name).await;

        for (schema, grantee) in [("public", format!("{name}_other")), ("own", role.to_owned())] {
            let refusal = schema::migrate(&mut owner, schema, &WriterLogin::Unchanged).await.unwrap_err();

            let remedy = format!("REVOKE CREATE ON SCHEMA {schema} FROM {grantee}");
            assert!(refusal.to_string().ends_with(&remedy), "{refusal}");
        }
    }
}

#[tokio::test]
async fn planted_operators_are_refused() {
    let mut database = Database::create().await;
    let name = &database.name;
    let plant = format!(
        "CREATE FUNCTION public.joined(text, integer) RETURNS text LANGUAGE sql AS 'SELECT $1';
         CREATE OPERATOR public.|| (LEFTARG = text, RIGHTARG = integer, FUNCTION = public.joined);
         GRANT CREATE ON SCHEMA public TO {name};
         ALTER OPERATOR public.|| (text, integer) OWNER TO {name};
         REVOKE CREATE ON SCHEMA public FROM {name}"
    );
    database.execute(&plant).await;

    let Err(SchemaError::NotReady(findings)) =
        schema::migrate(&mut database.admin, "public", &WriterLogin::Unchanged).await
    else {
        panic!("migrate accepted the operator");
    };

    assert_eq!(findings[0].remedy, "DROP OPERATOR public.||(text,integer)");
    database.execute(&findings[0].remedy).await;
    schema::migrate(&mut database.admin, "public", &WriterLogin::Unchanged).await.unwrap();
}
