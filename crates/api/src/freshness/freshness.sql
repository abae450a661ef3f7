SELECT run, rolled_up_at, through, days_left, logins_without_day, cursor_key,
    pg_catalog.obj_description(pg_catalog.to_regnamespace($1), 'pg_namespace') AS marker
FROM {analytics}.freshness
