-- Returns the statements that create the copy $2 of the table $1. The constraint is that of the partition: with it,
-- Postgres need not read the copy when it is attached. Without a value, || is null, and concat_ws leaves it out.
SELECT concat_ws(
    '; ',
    format(
        'CREATE TABLE %I (LIKE %s INCLUDING ALL EXCLUDING IDENTITY EXCLUDING STATISTICS)', $2, pg_class.oid::regclass
    ),
    format('ALTER TABLE %I ADD CONSTRAINT login_etl_resalt CHECK ', $2)
        || '(' || pg_get_partition_constraintdef(pg_class.oid) || ')',
    format('ALTER TABLE %I SET ', $2) || '(' || array_to_string(reloptions, ', ') || ')',
    format('COMMENT ON TABLE %I IS ', $2) || quote_literal(obj_description(pg_class.oid, 'pg_class'))
)
FROM pg_class
WHERE oid = $1
