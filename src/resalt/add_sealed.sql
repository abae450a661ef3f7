-- Adds to the copy the sealed values of the tokens $1, whose new tokens are $2. A value of a newer key replaces its copy.
INSERT INTO {copy} AS copied (stream_id, key_id, sequence, field, token, ciphertext, sealed_token)
SELECT stream_id, key_id, sequence, field, new, ciphertext, coalesce(sealed_token, token)
FROM unnest($1, $2) AS replaced (old, new)
JOIN {sealed} ON token = old
ON CONFLICT (token) DO UPDATE SET
    stream_id = excluded.stream_id, key_id = excluded.key_id, sequence = excluded.sequence, field = excluded.field,
    ciphertext = excluded.ciphertext, sealed_token = excluded.sealed_token
