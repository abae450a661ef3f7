-- Returns what prevents a resalt of the schema $2, each with its remedy. $1 is the schema of the copies. The caller sets
-- the search_path to pg_catalog.
WITH
me AS (
    SELECT oid, quote_ident(rolname) AS name FROM pg_roles WHERE rolname = current_user
),
logins AS (
    SELECT pg_class.oid, pg_class.oid::regclass::text AS name, relkind, relowner
    FROM pg_class
    JOIN pg_namespace ON pg_namespace.oid = relnamespace
    WHERE nspname = $2 AND relname = 'user_logins'
),
tree (oid) AS (
    SELECT oid FROM logins
    UNION
    SELECT relid FROM logins CROSS JOIN LATERAL pg_partition_tree(logins.oid)
),
finding (place, problem, remedy) AS (
    SELECT 1,
        format('%s is no table', name),
        'resalt the tables below it yourself, or replace it by a table'
    FROM logins
    WHERE relkind NOT IN ('r', 'p')

    UNION ALL
    SELECT 2,
        format('%s is a foreign table', pg_class.oid::regclass),
        'detach it from user_logins'
    FROM tree
    JOIN pg_class USING (oid)
    WHERE relkind = 'f'

    UNION ALL
    SELECT 3,
        format('%s may not replace the rows of %s, which %I owns', me.name, logins.name, pg_get_userbyid(relowner)),
        format('GRANT %I TO %s', pg_get_userbyid(relowner), me.name)
    FROM me, logins
    WHERE NOT pg_has_role(relowner, 'USAGE')

    UNION ALL
    SELECT 4,
        format('the rule %I of %s could change the rows while they are replaced', rulename, ev_class::regclass),
        format('DROP RULE %I ON %s', rulename, ev_class::regclass)
    FROM pg_rewrite
    JOIN tree ON tree.oid = ev_class

    UNION ALL
    SELECT 5,
        format('the table %s refers to %s', conrelid::regclass, confrelid::regclass),
        format('ALTER TABLE %s DROP CONSTRAINT %I', conrelid::regclass, conname)
    FROM pg_constraint
    JOIN tree ON tree.oid = confrelid
    WHERE contype = 'f'
)
SELECT problem, remedy FROM finding ORDER BY place, problem
