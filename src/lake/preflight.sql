-- Returns what prevents the export's schema $1 beside the logins' schema $2, each with its remedy. $3 is the comment
-- that this program gives to its schema. The caller sets the search_path to pg_catalog.
WITH
me AS (
    SELECT oid, quote_ident(rolname) AS name FROM pg_roles WHERE rolname = current_user
),
logins AS (
    SELECT relrowsecurity, format('%I.user_logins', $2) AS name
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

    -- The objects would show what is hidden in the table.
    UNION ALL
    SELECT 3,
        format('row security is on for %s, and the lake would show hidden rows to its readers', logins.name),
        format('ALTER TABLE %s DISABLE ROW LEVEL SECURITY, or do without EXPORT', logins.name)
    FROM logins
    WHERE relrowsecurity
)
SELECT problem, remedy FROM finding ORDER BY place
