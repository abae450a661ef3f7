-- Returns a row for each column of an existing user_logins that the writer fills: a statement that fails if the
-- column's type does not accept the writer's values, and the problem and the remedy for this case. The statement is
-- an EXPLAIN, which runs no trigger.
SELECT
    format('EXPLAIN INSERT INTO user_logins (%s) SELECT NULL::%s', needed.name, needed.written_type),
    format(
        'the column %s of %I.user_logins has the type %s, which accepts no %s',
        needed.name, $1, format_type(atttypid, atttypmod), needed.written_type
    ),
    format(
        'ALTER TABLE %I.user_logins ALTER COLUMN %s TYPE %s USING %s::text::%s',
        $1, needed.name, needed.type, needed.name, needed.type
    )
FROM (VALUES
    (1, 'user_id', 'text', 'varchar(128)'),
    (2, 'device_type', 'text', 'varchar(32)'),
    (3, 'masked_ip', 'text', 'varchar(256)'),
    (4, 'masked_device_id', 'text', 'varchar(256)'),
    (5, 'locale', 'text', 'varchar(32)'),
    (6, 'app_version', 'integer', 'integer'),
    (7, 'create_date', 'date', 'date')
) AS needed (place, name, written_type, type)
JOIN pg_class AS logins ON logins.oid = to_regclass('user_logins') AND logins.relkind IN ('r', 'p', 'v')
JOIN pg_attribute ON attrelid = logins.oid AND attname = needed.name
ORDER BY place
