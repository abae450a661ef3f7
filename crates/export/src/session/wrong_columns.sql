-- Returns the first column of user_logins, in the schema $1, that is missing or has a type that the export does not read:
-- its name, its type (null if it is missing), and the types that the export reads.
SELECT needed.name, pg_catalog.format_type(atttypid, atttypmod), pg_catalog.array_to_string(types, ', ')
FROM (VALUES
    (1, 'user_id', '{text,character varying,character}'::text[]),
    (2, 'device_type', '{text,character varying,character}'),
    (3, 'masked_ip', '{text,character varying,character}'),
    (4, 'masked_device_id', '{text,character varying,character}'),
    (5, 'locale', '{text,character varying,character}'),
    (6, 'app_version', '{integer,smallint}'),
    (7, 'create_date', '{date,timestamp without time zone}')
) AS needed (place, name, types)
LEFT JOIN pg_catalog.pg_attribute
    ON attrelid = pg_catalog.to_regclass(pg_catalog.format('%I.user_logins', $1))
    AND attname = needed.name AND attnum > 0 AND NOT attisdropped
LEFT JOIN pg_catalog.pg_type ON pg_type.oid = atttypid
-- A domain is read as the type below it.
WHERE COALESCE(
    pg_catalog.format_type(CASE WHEN typtype = 'd' THEN typbasetype ELSE atttypid END, NULL) <> ALL (types), true
)
ORDER BY place
LIMIT 1
