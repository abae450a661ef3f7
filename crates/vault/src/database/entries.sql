SELECT coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
    'id', id,
    'at', pg_catalog.to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
    'caller', caller,
    'verb', verb,
    'field', field,
    'reason', reason,
    'ticket', ticket,
    'outcome', outcome,
    'kms_request_id', kms_request_id,
    'taken', taken
) ORDER BY id), '[]')::text
FROM {schema}.vault_entries($1, $2, $3, $4, $5)
