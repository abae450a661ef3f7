-- Returns the fingerprint of the accepted salt and when it was accepted. The caller has
-- verified that nobody planted the table.
SELECT
    fingerprint,
    pg_catalog.to_char(accepted_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')
FROM salt_fingerprint
