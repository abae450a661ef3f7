-- Returns those of the keys $1 whose erasures the database does not have, in their order.
SELECT object_key
FROM pg_catalog.unnest($1) WITH ORDINALITY AS listed (object_key, place)
WHERE NOT EXISTS (SELECT FROM vault_listed AS known WHERE known.object_key OPERATOR(pg_catalog.=) listed.object_key)
ORDER BY place
