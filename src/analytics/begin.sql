-- Sets the search_path to the analysts' schema $1 and the logins' schema $2, with temporary tables last, and the limits
-- of this transaction. The whole time of a step is $3. One process works, so that the others are left to batches.
-- With row_security off, a policy that hides rows from this role is an error, and not a wrong count.
SELECT pg_catalog.set_config('search_path', pg_catalog.format('%I, %I, pg_temp', $1, $2), true)
UNION ALL
SELECT pg_catalog.set_config(name, value, true)
FROM (VALUES
    ('statement_timeout', $3),
    ('idle_in_transaction_session_timeout', '60s'),
    ('max_parallel_workers_per_gather', '0'),
    ('work_mem', '64MB'),
    ('row_security', 'off')
) AS setting (name, value)
