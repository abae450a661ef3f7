-- Returns what prevents the schema $1, each with its remedy. $2 is the comment that this program gives to the schema. The
-- caller sets the search_path to pg_catalog.
WITH
me AS (
    SELECT oid, quote_ident(rolname) AS name FROM pg_roles WHERE rolname = current_user
),
finding (place, problem, remedy) AS (
    SELECT 1,
        format('the schema %I exists, and %s has not made it with this version of login-etl', $1, me.name),
        format('ALTER SCHEMA %1$I RENAME TO another name, or, if nobody needs it, DROP SCHEMA %1$I CASCADE', $1)
    FROM me, pg_namespace
    WHERE nspname = $1 AND (nspowner <> me.oid OR obj_description(pg_namespace.oid, 'pg_namespace') IS DISTINCT FROM $2)

    UNION ALL
    SELECT 2,
        format('%s may not create the schema %I', me.name, $1),
        format('GRANT CREATE ON DATABASE %I TO %s', current_database(), me.name)
    FROM me
    WHERE NOT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)
        AND NOT has_database_privilege(current_database(), 'CREATE')
)
SELECT problem, remedy FROM finding ORDER BY place
