-- Returns what prevents the analysts' schema $1 beside the logins' schema $2, each with its remedy. $3 is the comment
-- that this program gives to its schema. The caller sets the search_path to pg_catalog.
WITH
me AS (
    SELECT oid, quote_ident(rolname) AS name FROM pg_roles WHERE rolname = current_user
),
logins AS (
    SELECT pg_class.oid, relrowsecurity, format('%I.user_logins', $2) AS name
    FROM pg_class
    WHERE relname = 'user_logins' AND relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = $2)
),
finding (place, problem, remedy) AS (
    SELECT 1,
        format('the schema %I exists, and %s has not made it with this version of login-etl', $1, me.name),
        format('ALTER SCHEMA %1$I RENAME TO another name, or, if nobody needs it, DROP SCHEMA %1$I CASCADE', $1)
    FROM me, pg_namespace
    WHERE nspname = $1 AND (nspowner <> me.oid OR obj_description(pg_namespace.oid, 'pg_namespace') IS DISTINCT FROM $3)

    UNION ALL
    SELECT 2,
        format('%s may not create the schema %I', me.name, $1),
        format('GRANT CREATE ON DATABASE %I TO %s', current_database(), me.name)
    FROM me
    WHERE NOT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)
        AND NOT has_database_privilege(current_database(), 'CREATE')

    UNION ALL
    SELECT 3,
        format('%s may not create temporary tables', me.name),
        format('GRANT TEMPORARY ON DATABASE %I TO %s', current_database(), me.name)
    FROM me
    WHERE NOT has_database_privilege(current_database(), 'TEMPORARY')

    UNION ALL
    SELECT 4,
        format('%s may not read %s', me.name, logins.name),
        format('GRANT SELECT ON %s TO %s', logins.name, me.name)
    FROM me, logins
    WHERE NOT has_table_privilege(logins.oid, 'SELECT')

    -- The counts would show what is hidden in the table.
    UNION ALL
    SELECT 5,
        format('row security is on for %s, and the schema %I would show hidden rows to login_reader', logins.name, $1),
        format('ALTER TABLE %s DISABLE ROW LEVEL SECURITY, or do without ANALYSTS', logins.name)
    FROM logins
    WHERE relrowsecurity

    UNION ALL
    SELECT 6,
        format('login_reader may not read %s, and the schema %I would show its rows', logins.name, $1),
        format('GRANT SELECT ON %s TO login_reader, or do without ANALYSTS', logins.name)
    FROM logins
    WHERE NOT has_table_privilege('login_reader', logins.oid, 'SELECT')
)
SELECT problem, remedy FROM finding ORDER BY place
