SELECT coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
    'id', id,
    'sha256', pg_catalog.encode(sha256, 'hex'),
    'kms_key', kms_key,
    'accepted_at', pg_catalog.to_char(accepted_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
    'is_current', is_current,
    'sealed', sealed
) ORDER BY is_current DESC, accepted_at DESC, id), '[]')::text
FROM {schema}.vault_key_states($1)
