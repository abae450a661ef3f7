-- Sets, until the transaction ends, the schema $1 in which objects are created and found, with temporary tables
-- last; and a limit for each wait that has none, so that no run waits for ever. The last limit ends the session
-- of a run that Lambda froze, and with the session its locks.
SELECT set_config('search_path', format('%I, pg_temp', $1), true)
UNION ALL
SELECT set_config(name, value, true)
FROM (VALUES
    ('lock_timeout', '60s'),
    ('statement_timeout', '240s'),
    ('idle_in_transaction_session_timeout', '60s')
) AS timeout (name, value)
WHERE current_setting(name) = '0'
