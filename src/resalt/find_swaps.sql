-- Returns the statements that replace the partitions of user_logins by their copies in the schema $1. The partition for
-- all other rows is the first to go and the last to come, because Postgres compares its rows with every new partition.
WITH partition AS (
    SELECT
        source::regclass::text AS source,
        format('%I.%I', $1, name) AS copy,
        format('%I.%I', nspname, name) AS target,
        nspname,
        pg_get_expr(relpartbound, pg_class.oid) AS bound,
        CASE WHEN pg_get_expr(relpartbound, pg_class.oid) = 'DEFAULT' THEN 1 ELSE 0 END AS is_default
    FROM copies
    JOIN pg_class ON pg_class.oid = source
    JOIN pg_namespace ON pg_namespace.oid = relnamespace
)
SELECT statement
FROM (
    SELECT 1 AS step, -is_default AS place, format('ALTER TABLE user_logins DETACH PARTITION %s', source) AS statement
    FROM partition
    UNION ALL
    SELECT 2, 0, format('DROP TABLE %s', source) FROM partition
    UNION ALL
    SELECT 3, 0, format('ALTER TABLE %s SET SCHEMA %I', copy, nspname) FROM partition
    UNION ALL
    SELECT 4, is_default, format('ALTER TABLE user_logins ATTACH PARTITION %s %s', target, bound) FROM partition
    UNION ALL
    SELECT 5, 0, format('ALTER TABLE %s DROP CONSTRAINT IF EXISTS login_etl_resalt', target) FROM partition
) AS statements
ORDER BY step, place, statement
