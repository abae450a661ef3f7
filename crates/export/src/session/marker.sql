SELECT pg_catalog.obj_description(pg_catalog.to_regnamespace(pg_catalog.quote_ident($1)), 'pg_namespace')
