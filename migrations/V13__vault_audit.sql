-- The vault seen from outside: whoever may can read its audit, try whether its values open, and plant honey tokens.

-- The names are those that Postgres chose in V11.
ALTER TABLE vault_audit
    DROP CONSTRAINT vault_audit_verb_check,
    DROP CONSTRAINT vault_audit_check,
    DROP CONSTRAINT vault_audit_check1,
    ADD CONSTRAINT vault_audit_verb_check
        CHECK (verb IN ('token', 'reveal', 'erase', 'erase-user', 'audit', 'verify', 'honey')),
    -- A schedule reads the audit and tries the values. It has no ticket.
    ADD CONSTRAINT vault_audit_check
        CHECK (verb IN ('token', 'audit', 'verify') OR (reason IS NOT NULL AND ticket IS NOT NULL)),
    ADD CONSTRAINT vault_audit_check1
        CHECK ((token IS NOT NULL) = (verb IN ('token', 'reveal', 'erase', 'verify')));

CREATE TABLE vault_honey (
    token      bytea       PRIMARY KEY CHECK (octet_length(token) = 32),
    entry      bigint      NOT NULL,
    planted_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE vault_honey IS 'Tokens that belong to no value. Whoever asks for one has found it where it was planted';
COMMENT ON COLUMN vault_honey.entry IS 'The entry of the audit with which the token was made';

DO $migration$
BEGIN
    -- Uses up an entry of the audit, and returns it. The entry must be committed: whoever asked in this transaction
    -- could roll it back after the answer. A value is handed out for a reveal, and to try whether it opens.
    EXECUTE pg_catalog.format($create$
CREATE OR REPLACE FUNCTION vault_use(entry bigint, for_verb text) RETURNS %1$I.vault_audit
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    used %1$I.vault_audit;
BEGIN
    UPDATE %1$I.vault_audit AS audit
    SET taken_at = clock_timestamp()
    WHERE audit.id = entry
        AND (audit.verb = for_verb OR (audit.verb = 'verify' AND for_verb = 'reveal'))
        AND audit.db_user = session_user
        AND audit.xid <> pg_current_xact_id()
        AND audit.at >= clock_timestamp() - INTERVAL '1 minute'
        AND audit.taken_at IS NULL
        AND audit.outcome IS NULL
    RETURNING audit.* INTO used;
    IF NOT FOUND OR pg_xact_status(used.xid) IS DISTINCT FROM 'committed' THEN
        RAISE EXCEPTION 'there is no such entry in the audit' USING ERRCODE = 'LE004';
    END IF;
    RETURN used;
END
$$;
    $create$, pg_catalog.current_schema());

    -- Returns entries of a time, in the order of their numbers, without their tokens. Reading the audit takes an entry
    -- of its own.
    EXECUTE pg_catalog.format($create$
CREATE FUNCTION vault_entries(entry bigint, from_at timestamptz, to_at timestamptz, after bigint, most integer)
RETURNS TABLE (
    id bigint, at timestamptz, caller text, verb text, field text, reason text, ticket text, outcome text,
    kms_request_id text, taken boolean
)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM %1$I.vault_use(entry, 'audit');
    PERFORM %1$I.vault_flush(entry);
    RETURN QUERY
    SELECT audit.id, audit.at, audit.caller, audit.verb, audit.field, audit.reason, audit.ticket, audit.outcome,
        audit.kms_request_id, audit.taken_at IS NOT NULL
    FROM %1$I.vault_audit AS audit
    WHERE audit.id > after AND audit.at >= from_at AND audit.at < to_at
    ORDER BY audit.id
    LIMIT least(most, 1000);
END
$$;
    $create$, pg_catalog.current_schema());

    -- Returns the keys, the newest first, and the number of values that are sealed to each, if asked for: to count
    -- reads the whole table. Values that are not folded yet are not counted.
    EXECUTE pg_catalog.format($create$
CREATE FUNCTION vault_key_states(counted boolean)
RETURNS TABLE (
    id smallint, sha256 bytea, kms_key text, accepted_at timestamptz, is_current boolean, sealed bigint
)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN QUERY
    WITH numbers AS (
        SELECT value.key_id, count(*) AS sealed FROM %1$I.vault_sealed AS value WHERE counted GROUP BY value.key_id
    )
    SELECT each.id, each.sha256, each.kms_key, each.accepted_at, each.is_current,
        CASE WHEN counted THEN coalesce(numbers.sealed, 0) END
    FROM %1$I.vault_keys AS each
    LEFT JOIN numbers ON numbers.key_id = each.id
    ORDER BY each.is_current DESC, each.accepted_at DESC, each.id;
END
$$;
    $create$, pg_catalog.current_schema());

    -- Chooses values at random, and writes an entry of the audit for each, with the verb verify. There is a value of
    -- each key, and at most half of the values are not folded yet. The caller must commit the entries first.
    EXECUTE pg_catalog.format($create$
CREATE FUNCTION vault_sample(
    caller text, size integer, OUT entries bigint[], OUT tokens bytea[], OUT keys smallint[]
)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    most constant integer := least(greatest(size, 1), 100);
    from_inbox integer;
    lowest bytea;
    picked_token bytea;
    picked_key smallint;
BEGIN
    SELECT coalesce(array_agg(value.token), '{}'), coalesce(array_agg(value.key_id), '{}')
    INTO tokens, keys
    FROM %1$I.vault_sealed AS value
    WHERE value.ctid = ANY (ARRAY(SELECT max(each.ctid) FROM %1$I.vault_sealed AS each GROUP BY each.key_id));

    from_inbox := greatest(least(most - cardinality(tokens), (most + 1) / 2), 0);
    FOR picked_token, picked_key IN
        SELECT substr(batch.body, drawn.place * batch.entry_length + 4, 32), batch.key_id
        FROM (
            SELECT inbox.key_id, inbox.entry_length, inbox.body, inbox.written_at
            FROM %1$I.vault_inbox AS inbox
            ORDER BY random()
            LIMIT from_inbox
        ) AS batch
        CROSS JOIN LATERAL (
            SELECT floor(random() * (octet_length(batch.body) / batch.entry_length))::integer AS place
            FROM generate_series(1, from_inbox)
        ) AS drawn
        WHERE NOT EXISTS (
            SELECT FROM %1$I.vault_erased AS erasure
            WHERE erasure.token = substr(batch.body, drawn.place * batch.entry_length + 4, 32)
                AND (erasure.never_again OR batch.written_at <= erasure.erased_at)
        )
        ORDER BY random()
    LOOP
        EXIT WHEN from_inbox <= 0;
        IF picked_token <> ALL (tokens) THEN
            tokens := tokens || picked_token;
            keys := keys || picked_key;
            from_inbox := from_inbox - 1;
        END IF;
    END LOOP;

    -- The tokens are hashes, so the next token after random bytes is a random token.
    WHILE cardinality(tokens) < most LOOP
        FOREACH lowest IN ARRAY ARRAY[uuid_send(gen_random_uuid()), ''::bytea] LOOP
            SELECT value.token, value.key_id
            INTO picked_token, picked_key
            FROM %1$I.vault_sealed AS value
            WHERE value.token >= lowest AND value.token <> ALL (tokens)
            ORDER BY value.token
            LIMIT 1;
            EXIT WHEN FOUND;
        END LOOP;
        EXIT WHEN picked_token IS NULL;
        tokens := tokens || picked_token;
        keys := keys || picked_key;
    END LOOP;

    entries := '{}';
    FOREACH picked_token IN ARRAY tokens LOOP
        entries := entries || %1$I.vault_ask(caller, 'verify', NULL, picked_token, NULL, NULL, NULL);
    END LOOP;
END
$$;
    $create$, pg_catalog.current_schema());

    -- Keeps honey tokens, for an entry of the audit.
    EXECUTE pg_catalog.format($create$
CREATE FUNCTION vault_plant(entry bigint, tokens bytea[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM %1$I.vault_use(entry, 'honey');
    IF (cardinality(tokens) BETWEEN 1 AND 100) IS NOT TRUE THEN
        RAISE EXCEPTION 'the number of tokens is not 1 to 100' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    INSERT INTO %1$I.vault_honey (token, entry) SELECT unnest(tokens), vault_plant.entry;
    PERFORM %1$I.vault_tell(entry, 'done', NULL);
EXCEPTION WHEN check_violation OR not_null_violation OR unique_violation THEN
    RAISE EXCEPTION 'a token has not 32 bytes, or exists already' USING ERRCODE = 'invalid_parameter_value';
END
$$;
    $create$, pg_catalog.current_schema());

    -- Whether the token of an entry that was used is a honey token.
    EXECUTE pg_catalog.format($create$
CREATE FUNCTION vault_is_honey(entry bigint) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN EXISTS (
        SELECT
        FROM %1$I.vault_audit AS audit
        JOIN %1$I.vault_honey AS honey ON honey.token = audit.token
        WHERE audit.id = vault_is_honey.entry AND audit.db_user = session_user AND audit.taken_at IS NOT NULL
    );
END
$$;
    $create$, pg_catalog.current_schema());
END
$migration$;

-- Also from those to whom default privileges of the database give rights on new tables and functions.
DO $migration$
DECLARE
    statement text;
BEGIN
    FOR statement IN
        SELECT pg_catalog.format(
            'REVOKE ALL ON %s FROM %s', object,
            CASE WHEN grantee = 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(grantee)) END
        )
        FROM (
            SELECT 'TABLE ' || pg_class.oid::regclass::text, relowner, relacl
            FROM pg_catalog.pg_class
            WHERE pg_class.oid = 'vault_honey'::pg_catalog.regclass
            UNION ALL
            SELECT 'FUNCTION ' || pg_proc.oid::regprocedure::text, proowner,
                coalesce(proacl, pg_catalog.acldefault('f', proowner))
            FROM pg_catalog.pg_proc
            WHERE proname IN ('vault_entries', 'vault_key_states', 'vault_sample', 'vault_plant', 'vault_is_honey')
                AND proowner = (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = current_user)
                AND pronamespace = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = pg_catalog.current_schema())
        ) AS ours (object, owner, acl)
        CROSS JOIN LATERAL pg_catalog.aclexplode(acl) AS granted
        WHERE grantee <> owner
        GROUP BY object, grantee
    LOOP
        EXECUTE statement;
    END LOOP;
END
$migration$;
