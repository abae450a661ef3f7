-- Returns the columns of the table $1 that COPY writes, in their order, and the quoted names as a list. Postgres computes
-- the generated columns itself.
SELECT array_agg(attname::text ORDER BY attnum), string_agg(quote_ident(attname), ', ' ORDER BY attnum)
FROM pg_attribute
WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped AND attgenerated = ''
