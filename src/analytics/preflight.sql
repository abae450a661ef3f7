-- Returns what prevents the analysts' schema $1 beside the logins' schema $2, each with its remedy. The caller sets the
-- search_path to pg_catalog.
WITH
me AS (
    SELECT quote_ident(rolname) AS name FROM pg_roles WHERE rolname = current_user
),
logins AS (
    SELECT pg_class.oid, relrowsecurity, format('%I.user_logins', $2) AS name
    FROM pg_class
    WHERE relname = 'user_logins' AND relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = $2)
),
finding (place, problem, remedy) AS (
    SELECT 1,
        format('%s may not create temporary tables', me.name),
        format('GRANT TEMPORARY ON DATABASE %I TO %s', current_database(), me.name)
    FROM me
    WHERE NOT has_database_privilege(current_database(), 'TEMPORARY')

    UNION ALL
    SELECT 2,
        format('%s may not read %s', me.name, logins.name),
        format('GRANT SELECT ON %s TO %s', logins.name, me.name)
    FROM me, logins
    WHERE NOT has_table_privilege(logins.oid, 'SELECT')

    -- The counts would show what is hidden in the table.
    UNION ALL
    SELECT 3,
        format('row security is on for %s, and the schema %I would show hidden rows to login_reader', logins.name, $1),
        format('ALTER TABLE %s DISABLE ROW LEVEL SECURITY, or do without ANALYSTS', logins.name)
    FROM logins
    WHERE relrowsecurity

    UNION ALL
    SELECT 4,
        format('login_reader may not read %s, and the schema %I would show its rows', logins.name, $1),
        format('GRANT SELECT ON %s TO login_reader, or do without ANALYSTS', logins.name)
    FROM logins
    WHERE NOT has_table_privilege('login_reader', logins.oid, 'SELECT')
)
SELECT problem, remedy FROM finding ORDER BY place
