-- Returns what prevents the vault from working beside the logins' schema $1, each with its remedy. The caller sets the
-- search_path to pg_catalog.
WITH
me AS (
    SELECT quote_ident(rolname) AS name FROM pg_roles WHERE rolname = current_user
),
home AS (
    SELECT oid, quote_ident(nspname) AS name FROM pg_namespace WHERE nspname = $1
),
logins AS (
    SELECT pg_class.oid, relrowsecurity, format('%s.user_logins', home.name) AS name
    FROM pg_class JOIN home ON pg_class.relnamespace = home.oid
    WHERE relname = 'user_logins'
),
finding (place, problem, remedy) AS (
    -- vault_flush() creates a table for a moment.
    SELECT 1,
        format('%s may not create tables in the schema %s', me.name, home.name),
        format('GRANT USAGE, CREATE ON SCHEMA %s TO %s', home.name, me.name)
    FROM me, home
    WHERE NOT has_schema_privilege(home.oid, 'USAGE') OR NOT has_schema_privilege(home.oid, 'CREATE')

    UNION ALL
    SELECT 2,
        'wal_level is minimal: an entry of the audit could be lost after its value was handed out',
        'set wal_level = replica in postgresql.conf, and restart Postgres'
    WHERE current_setting('wal_level') = 'minimal'

    -- Erasing a person's rows must not fail when somebody asks for it.
    UNION ALL
    SELECT 3,
        format('%s may not read and change %s, and could not erase tokens from it', me.name, logins.name),
        format('GRANT SELECT, UPDATE ON %s TO %s', logins.name, me.name)
    FROM me, logins
    WHERE NOT has_table_privilege(logins.oid, 'SELECT') OR NOT has_table_privilege(logins.oid, 'UPDATE')

    UNION ALL
    SELECT 4,
        format('row security is on for %s, and the vault could not erase tokens from hidden rows', logins.name),
        format('ALTER TABLE %s DISABLE ROW LEVEL SECURITY, or do without VAULT_PUBLIC_KEY', logins.name)
    FROM logins
    WHERE relrowsecurity

    UNION ALL
    SELECT 5,
        format('login_vault has the attribute %s, which gives it more rights than it needs', attribute.name),
        format('ALTER ROLE login_vault NO%s', attribute.name)
    FROM pg_roles
    CROSS JOIN LATERAL (VALUES
        ('SUPERUSER', rolsuper),
        ('CREATEDB', rolcreatedb),
        ('CREATEROLE', rolcreaterole),
        ('REPLICATION', rolreplication),
        ('BYPASSRLS', rolbypassrls)
    ) AS attribute (name, is_set)
    WHERE rolname = 'login_vault' AND attribute.is_set

    UNION ALL
    SELECT 6,
        format('login_vault is a member of %I, which gives it more rights than it needs', granted.rolname),
        format('REVOKE %I FROM login_vault', granted.rolname)
    FROM pg_auth_members
    JOIN pg_roles AS member ON member.oid = pg_auth_members.member AND member.rolname = 'login_vault'
    JOIN pg_roles AS granted ON granted.oid = pg_auth_members.roleid
    WHERE granted.rolname <> 'rds_iam'
)
SELECT problem, remedy FROM finding ORDER BY place, problem
