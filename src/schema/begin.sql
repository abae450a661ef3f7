-- Sets the search_path to the schema $1, with temporary tables last, and a limit for each wait that has none, so
-- that no run waits for ever. These settings end with the transaction. The last limit ends the session of a run
-- that Lambda froze, and so releases its locks. The functions are named with pg_catalog, because the search_path before
-- may lead to a planted function.
SELECT pg_catalog.set_config('search_path', pg_catalog.format('%I, pg_temp', $1), true)
UNION ALL
SELECT pg_catalog.set_config(name, value, true)
FROM (VALUES
    ('lock_timeout', '60s'),
    ('statement_timeout', '240s'),
    ('idle_in_transaction_session_timeout', '60s')
) AS timeout (name, value)
WHERE pg_catalog.current_setting(name) OPERATOR(pg_catalog.=) '0'
