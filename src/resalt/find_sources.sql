-- Returns the tables that hold the rows of user_logins: the object id, the name, the number of blocks, and whether SQS
-- can still deliver messages for it. The caller sets DateStyle to ISO.
SELECT
    pg_class.oid,
    format('%I.%I', nspname, relname),
    relname::text,
    pg_relation_size(pg_class.oid) / current_setting('block_size')::bigint,
    coalesce(
        substring(pg_get_expr(relpartbound, pg_class.oid) FROM 'TO \(''(.+)''\)')::date
            > (now() AT TIME ZONE 'UTC')::date - 16,
        true
    )
FROM (
    SELECT 'user_logins'::regclass AS oid
    UNION
    SELECT relid FROM pg_partition_tree('user_logins')
) AS tree
JOIN pg_class USING (oid)
JOIN pg_namespace ON pg_namespace.oid = relnamespace
WHERE relkind = 'r'
ORDER BY relname, nspname
