-- Makes $1 the current public key, which belongs to the KMS key $2. Changes no row if it is current already: the caller
-- reports whether the key changed. An older key stays, because older values are sealed to it.
INSERT INTO vault_keys AS before (public_key, kms_key)
VALUES ($1, $2)
ON CONFLICT (sha256) DO UPDATE SET is_current = true, accepted_at = pg_catalog.now(), kms_key = excluded.kms_key
WHERE NOT before.is_current
