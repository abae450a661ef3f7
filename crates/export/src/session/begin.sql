-- Sets the search_path to the schema of the books $1 and the logins' schema $2, and the limits of this transaction. A
-- statement may take $3. The transaction is idle while S3 completes an upload. One process of the server works, and it
-- generates no machine code, so that the others are left to batches. With row_security off, a policy that hides rows from
-- this role is an error, and not a day without these rows.
SELECT pg_catalog.set_config('search_path', pg_catalog.format('%I, %I, pg_temp', $1, $2), true)
UNION ALL
SELECT pg_catalog.set_config(name, value, true)
FROM (VALUES
    ('statement_timeout', $3),
    ('lock_timeout', '10s'),
    ('idle_in_transaction_session_timeout', '5min'),
    ('max_parallel_workers_per_gather', '0'),
    ('jit', 'off'),
    ('row_security', 'off')
) AS setting (name, value)
