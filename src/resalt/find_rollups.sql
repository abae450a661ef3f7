-- Returns the tables of the analysts' schema $1 that have tokens, and the column of the tokens. The name of a ring is one of
-- its tokens.
SELECT relname::text, attname::text
FROM pg_class
JOIN pg_namespace ON pg_namespace.oid = relnamespace
JOIN pg_attribute ON attrelid = pg_class.oid
WHERE nspname = $1 AND relkind = 'r' AND attnum > 0 AND NOT attisdropped AND attname IN ('token', 'ring')
ORDER BY relname
