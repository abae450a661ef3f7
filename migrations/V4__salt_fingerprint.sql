-- Which salt the tokens in user_logins are made with, by its fingerprint: one row, or none before the
-- first batch. With another salt an address would be another token, and every join with older rows
-- would silently end; so a function that comes with another salt is refused until an operator accepts
-- it (see ../accept_salt.sql).
CREATE TABLE salt_fingerprint (
    only_row    boolean     PRIMARY KEY DEFAULT true CHECK (only_row),
    fingerprint text        NOT NULL,
    accepted_at timestamptz NOT NULL DEFAULT now()
);

COMMENT ON TABLE salt_fingerprint IS 'The salt that the tokens in user_logins are made with';

-- Both statements that write call this, so the check is of the transaction that writes. It runs with
-- its owner's rights: the writer itself has none on the table. Its search path is this schema's,
-- with temporary tables last, so that nobody's table is taken for ours.
DO $migration$
BEGIN
    EXECUTE format($create$
        CREATE FUNCTION check_salt(salt text) RETURNS boolean
        LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, %I, pg_temp
        AS $function$
        DECLARE
            accepted text;
        BEGIN
            SELECT fingerprint INTO accepted FROM salt_fingerprint;
            IF NOT FOUND THEN
                -- The first batch decides. One that comes at the same time waits here for it.
                INSERT INTO salt_fingerprint (fingerprint) VALUES (salt) ON CONFLICT DO NOTHING;
                SELECT fingerprint INTO accepted FROM salt_fingerprint;
            END IF;
            IF accepted <> salt THEN
                RAISE EXCEPTION 'the salt is not the one that user_logins is masked with'
                    USING ERRCODE = 'LE001';
            END IF;
            RETURN true;
        END
        $function$
    $create$, current_schema());
END
$migration$;

REVOKE ALL ON FUNCTION check_salt(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION check_salt(text) TO login_writer;
