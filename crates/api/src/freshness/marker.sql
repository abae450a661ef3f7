-- The comment by which `migrate` marks the schema that it made.
SELECT pg_catalog.obj_description(pg_catalog.to_regnamespace($1), 'pg_namespace') AS marker
