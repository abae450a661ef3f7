-- Accepts the salt with this fingerprint, if it is not the accepted one already.
INSERT INTO salt_fingerprint (fingerprint)
VALUES ($1)
ON CONFLICT (only_row) DO UPDATE SET fingerprint = excluded.fingerprint, accepted_at = now()
WHERE salt_fingerprint.fingerprint <> excluded.fingerprint
