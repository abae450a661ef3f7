-- Stores $1 as the fingerprint of the accepted salt. Changes no row if it is stored already: the caller
-- reports whether the salt changed.
INSERT INTO salt_fingerprint (fingerprint)
VALUES ($1)
ON CONFLICT (only_row) DO UPDATE SET fingerprint = excluded.fingerprint, accepted_at = now()
WHERE salt_fingerprint.fingerprint <> excluded.fingerprint
