-- A batch without a fingerprint is refused. Before, NULL was compared with <>, whose result is NULL too, so that a batch
-- without a fingerprint was written; in an empty table it was even the first batch.
DO $migration$
BEGIN
    EXECUTE pg_catalog.format($create$
CREATE OR REPLACE FUNCTION check_salt(salt text) RETURNS boolean
LANGUAGE plpgsql AS $$
BEGIN
    IF salt IS NULL OR salt IS DISTINCT FROM (SELECT fingerprint FROM %1$I.salt_fingerprint) THEN
        RETURN %1$I.decide_salt(salt);
    END IF;
    RETURN true;
END
$$;
    $create$, pg_catalog.current_schema());

    EXECUTE pg_catalog.format($create$
CREATE OR REPLACE FUNCTION decide_salt(salt text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, %1$I, pg_temp AS $$
DECLARE
    accepted text;
BEGIN
    SELECT fingerprint INTO accepted FROM %1$I.salt_fingerprint;
    IF NOT FOUND AND salt IS NOT NULL THEN
        -- The first batch decides. Another batch at the same time waits here for it.
        INSERT INTO %1$I.salt_fingerprint (fingerprint) VALUES (salt) ON CONFLICT DO NOTHING;
        SELECT fingerprint INTO accepted FROM %1$I.salt_fingerprint;
    END IF;
    IF salt IS NULL OR accepted IS DISTINCT FROM salt THEN
        RAISE EXCEPTION 'the salt is not the one that user_logins is masked with' USING ERRCODE = 'LE001';
    END IF;
    RETURN true;
END
$$;
    $create$, pg_catalog.current_schema());
END
$migration$;
