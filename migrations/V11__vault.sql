-- The vault: the originals of masked values, sealed to a public key. It is empty unless it is turned on.
-- crates/login/src/pii/sealer.rs describes the format of the bytes. A body consists of entries of one length: sequence
-- (2 bytes), field ('i' ip or 'd' device_id), token (32 bytes), ciphertext with tag.

-- The public keys to which values are sealed. One is current: a batch that is sealed to another key is refused.
CREATE TABLE vault_keys (
    id          smallint    GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    public_key  bytea       NOT NULL,
    sha256      bytea       NOT NULL GENERATED ALWAYS AS (pg_catalog.sha256(public_key)) STORED UNIQUE,
    kms_key     text        NOT NULL,
    accepted_at timestamptz NOT NULL DEFAULT now(),
    is_current  boolean     NOT NULL DEFAULT true
);
CREATE UNIQUE INDEX ON vault_keys (is_current) WHERE is_current;
COMMENT ON TABLE vault_keys IS
    'The public keys of the vault. A value that is sealed to a newer key replaces the value of an older key';
COMMENT ON COLUMN vault_keys.public_key IS 'SubjectPublicKeyInfo, in DER';
COMMENT ON COLUMN vault_keys.accepted_at IS 'When the key became the current key for the last time';

-- What the batches seal: a row for each stream and length in a batch. No index, because a row for each value, or an
-- index on random tokens, would make a batch three times slower. vault_fold() empties the table, so a vacuum for its
-- inserts would be useless.
CREATE TABLE vault_inbox (
    key_id       smallint    NOT NULL,
    entry_length integer     NOT NULL CHECK (entry_length >= 99),
    written_at   timestamptz NOT NULL DEFAULT now(),
    enc          bytea       NOT NULL CHECK (octet_length(enc) = 65),
    body         bytea       NOT NULL,
    CHECK (octet_length(body) > 0 AND octet_length(body) % entry_length = 0)
) WITH (autovacuum_vacuum_insert_threshold = -1, toast.autovacuum_vacuum_insert_threshold = -1);
ALTER TABLE vault_inbox ALTER COLUMN body SET STORAGE EXTERNAL;
COMMENT ON TABLE vault_inbox IS 'Sealed values as the batches wrote them, until they are folded into vault_sealed';

CREATE TABLE vault_streams (
    id     bigint   GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    key_id smallint NOT NULL REFERENCES vault_keys,
    enc    bytea    NOT NULL UNIQUE
);
COMMENT ON TABLE vault_streams IS 'Streams of at most 1,000 values that were sealed with one encapsulated key';

-- Without foreign keys and checks, which would take time for each value.
CREATE TABLE vault_sealed (
    stream_id  bigint   NOT NULL,
    key_id     smallint NOT NULL,
    sequence   smallint NOT NULL,
    field      "char"   NOT NULL,
    token      bytea    PRIMARY KEY,
    ciphertext bytea    NOT NULL
);
ALTER TABLE vault_sealed ALTER COLUMN ciphertext SET STORAGE EXTERNAL;
COMMENT ON TABLE vault_sealed IS 'The sealed value of each token';
COMMENT ON COLUMN vault_sealed.field IS 'i: ip, d: device_id';

CREATE TABLE vault_erased (
    token       bytea       PRIMARY KEY,
    erased_at   timestamptz NOT NULL,
    never_again boolean     NOT NULL
);
COMMENT ON TABLE vault_erased IS
    'Tokens whose sealed value was erased. What was written before stays out of vault_sealed';
COMMENT ON COLUMN vault_erased.never_again IS 'Whether later values are kept out too';

-- No free text: it would become a copy of what it describes.
CREATE TABLE vault_audit (
    id             bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at             timestamptz NOT NULL DEFAULT clock_timestamp(),
    xid            xid8        NOT NULL DEFAULT pg_current_xact_id(),
    db_user        name        NOT NULL DEFAULT session_user,
    caller         text        NOT NULL CHECK (length(caller) BETWEEN 1 AND 2048),
    verb           text        NOT NULL CHECK (verb IN ('token', 'reveal', 'erase', 'erase-user')),
    field          text        CHECK (field IN ('ip', 'device_id')),
    token          bytea       CHECK (octet_length(token) = 32),
    subject        bytea       CHECK (octet_length(subject) = 32),
    reason         text        CHECK (reason IN ('incident', 'fraud', 'legal', 'data-subject', 'support', 'test')),
    ticket         text        CHECK (ticket ~ '^[A-Z][A-Z0-9]{1,9}-[0-9]{1,9}$'),
    taken_at       timestamptz,
    outcome        text        CHECK (outcome IN ('done', 'unknown', 'erased', 'unopenable', 'kms-failed', 'failed')),
    kms_request_id text        CHECK (kms_request_id ~ '^[A-Za-z0-9-]{1,64}$'),
    told_at        timestamptz,
    CHECK (verb = 'token' OR (reason IS NOT NULL AND ticket IS NOT NULL)),
    CHECK ((token IS NOT NULL) = (verb <> 'erase-user')),
    CHECK ((subject IS NOT NULL) = (verb = 'erase-user')),
    CHECK ((outcome IS NULL) = (told_at IS NULL))
);
COMMENT ON TABLE vault_audit IS 'Who asked the vault for what, and why. Written and committed before the answer';
COMMENT ON COLUMN vault_audit.subject IS 'Keyed hash of the user id whose values were to be erased';
COMMENT ON COLUMN vault_audit.taken_at IS 'When the ciphertext was handed out, or the erasure began';

-- The writer's functions have no SET search_path, because the triggers of user_logins would then run with it.
DO $migration$
BEGIN
    EXECUTE pg_catalog.format($create$
CREATE FUNCTION check_vault_key(key_sha256 bytea) RETURNS smallint
LANGUAGE plpgsql AS $$
DECLARE
    current_key smallint;
BEGIN
    SELECT id INTO current_key FROM %1$I.vault_keys WHERE is_current AND sha256 = key_sha256;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the public key is not the current key of the vault' USING ERRCODE = 'LE003';
    END IF;
    RETURN current_key;
END
$$;
    $create$, pg_catalog.current_schema());

    EXECUTE pg_catalog.format($create$
CREATE FUNCTION vault_write_logins(
    sent_ats timestamptz[],
    message_ids uuid[],
    user_ids text[],
    device_types text[],
    masked_ips text[],
    masked_device_ids text[],
    locales text[],
    app_versions integer[],
    salt text,
    key_sha256 bytea,
    encs bytea[],
    entry_lengths integer[],
    bodies bytea[]
) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    current_key constant smallint := %1$I.check_vault_key(key_sha256);
    inserted bigint;
BEGIN
    inserted := %1$I.write_logins(
        sent_ats, message_ids, user_ids, device_types, masked_ips, masked_device_ids, locales, app_versions, salt
    );
    IF pg_catalog.cardinality(bodies) > 0 THEN
        INSERT INTO %1$I.vault_inbox (key_id, enc, entry_length, body)
        SELECT current_key, pg_catalog.unnest(encs), pg_catalog.unnest(entry_lengths), pg_catalog.unnest(bodies);
    END IF;
    RETURN inserted;
END
$$;
    $create$, pg_catalog.current_schema());

    EXECUTE pg_catalog.format($create$
CREATE FUNCTION vault_write_fifo_logins(
    sent_ats timestamptz[],
    message_ids uuid[],
    user_ids text[],
    device_types text[],
    masked_ips text[],
    masked_device_ids text[],
    locales text[],
    app_versions integer[],
    salt text,
    key_sha256 bytea,
    encs bytea[],
    entry_lengths integer[],
    bodies bytea[]
) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    current_key constant smallint := %1$I.check_vault_key(key_sha256);
    inserted bigint;
BEGIN
    inserted := %1$I.write_fifo_logins(
        sent_ats, message_ids, user_ids, device_types, masked_ips, masked_device_ids, locales, app_versions, salt
    );
    IF pg_catalog.cardinality(bodies) > 0 THEN
        INSERT INTO %1$I.vault_inbox (key_id, enc, entry_length, body)
        SELECT current_key, pg_catalog.unnest(encs), pg_catalog.unnest(entry_lengths), pg_catalog.unnest(bodies);
    END IF;
    RETURN inserted;
END
$$;
    $create$, pg_catalog.current_schema());

    -- A row that is not written leaves no value in the vault, unless a row that is written has the same value.
    EXECUTE pg_catalog.format($create$
CREATE FUNCTION vault_write_logins_row_by_row(
    sent_ats timestamptz[],
    message_ids uuid[],
    user_ids text[],
    device_types text[],
    masked_ips text[],
    masked_device_ids text[],
    locales text[],
    app_versions integer[],
    salt text,
    fifo_groups integer[],
    time_limit_s double precision,
    key_sha256 bytea,
    encs bytea[],
    entry_lengths integer[],
    bodies bytea[],
    OUT inserted bigint,
    OUT suppressed bigint,
    OUT failed_rows integer[],
    OUT failed_sqlstates text[],
    OUT unreached_rows integer[]
)
LANGUAGE plpgsql AS $$
DECLARE
    current_key constant smallint := %1$I.check_vault_key(key_sha256);
    -- The numbers of the rows that are in a ledger already. Their values must not come back after an erasure.
    earlier_rows constant integer[] := ARRAY(
        SELECT number
        FROM pg_catalog.generate_subscripts(message_ids, 1) AS number
        WHERE EXISTS (
                SELECT FROM %1$I.processed_messages AS entry
                WHERE entry.slot = (
                        ((sent_ats[number] AT TIME ZONE INTERVAL '0')::date - DATE '1970-01-01') %% 32
                    )::smallint
                    AND entry.sent_at = sent_ats[number]
                    AND entry.message_id = message_ids[number]
            )
            OR fifo_groups[number] IS NOT NULL AND EXISTS (
                SELECT FROM %1$I.processed_fifo_messages AS entry WHERE entry.message_id = message_ids[number]
            )
    );
BEGIN
    -- Without rows, this fails only if a table, a column or a privilege is missing.
    INSERT INTO %1$I.vault_inbox (key_id, enc, entry_length, body)
    SELECT current_key, NULL::bytea, NULL::integer, NULL::bytea WHERE false;

    SELECT written.inserted, written.suppressed, written.failed_rows, written.failed_sqlstates, written.unreached_rows
    INTO inserted, suppressed, failed_rows, failed_sqlstates, unreached_rows
    FROM %1$I.write_logins_row_by_row(
        sent_ats, message_ids, user_ids, device_types, masked_ips, masked_device_ids, locales, app_versions, salt,
        fifo_groups, time_limit_s
    ) AS written;

    INSERT INTO %1$I.vault_inbox (key_id, enc, entry_length, body)
    SELECT current_key, enc, entry_length, pg_catalog.string_agg(entry, '' ORDER BY place)
    FROM (
        SELECT number, enc, entry_length, place,
            pg_catalog.substr(body, place * entry_length + 1, entry_length) AS entry
        FROM ROWS FROM (
            pg_catalog.unnest(encs), pg_catalog.unnest(entry_lengths), pg_catalog.unnest(bodies)
        ) WITH ORDINALITY AS given (enc, entry_length, body, number)
        CROSS JOIN LATERAL pg_catalog.generate_series(0, pg_catalog.octet_length(body) / entry_length - 1) AS place
    ) AS cut
    WHERE pg_catalog.encode(pg_catalog.substr(entry, 4, 32), 'hex') IN (
        SELECT token
        FROM (
            SELECT pg_catalog.generate_subscripts(message_ids, 1)
            EXCEPT SELECT pg_catalog.unnest(failed_rows)
            EXCEPT SELECT pg_catalog.unnest(unreached_rows)
            EXCEPT SELECT pg_catalog.unnest(earlier_rows)
        ) AS written (number)
        CROSS JOIN LATERAL (VALUES (masked_ips[number]), (masked_device_ids[number])) AS tokens (token)
        WHERE token IS NOT NULL
    )
    GROUP BY number, enc, entry_length;
END
$$;
    $create$, pg_catalog.current_schema());
END
$migration$;

-- The functions of the owner and of the broker. The broker logs in as login_vault. It has no right on any table, and
-- may execute vault_ask, vault_take, vault_tell, vault_erase and vault_erase_user: src/schema/vault/grants.sql grants
-- this.
DO $migration$
BEGIN
    -- Lets one fold or erasure run at a time. Each of their statements must see what the transactions before have
    -- committed, also if the caller has chosen another isolation.
    EXECUTE pg_catalog.format($create$
CREATE FUNCTION vault_lock() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'the transaction must be READ COMMITTED' USING ERRCODE = 'invalid_transaction_state';
    END IF;
    LOCK TABLE %1$I.vault_erased IN SHARE ROW EXCLUSIVE MODE;
END
$$;
    $create$, pg_catalog.current_schema());

    -- Returns where the entry of a token begins in a body, from 0; NULL if there is none.
    EXECUTE pg_catalog.format($create$
CREATE FUNCTION vault_find(body bytea, entry_length integer, token bytea) RETURNS integer
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    place integer;
    searched integer := 0;
BEGIN
    LOOP
        place := position(token IN substr(body, searched + 1));
        IF place = 0 THEN
            RETURN NULL;
        END IF;
        searched := searched + place;
        -- The bytes of a ciphertext may be equal to the token.
        IF (searched - 1) %% entry_length = 3 THEN
            RETURN searched - 4;
        END IF;
    END LOOP;
END
$$;
    $create$, pg_catalog.current_schema());

    -- Moves at most `most_rows` rows of vault_inbox into vault_sealed, the oldest first, and returns their number.
    -- Nothing is opened. Of several values of a token, the value of the newest key stays, and of these the first.
    EXECUTE pg_catalog.format($create$
CREATE FUNCTION vault_fold(most_rows integer) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET work_mem = '64MB' SET jit = off AS $$
DECLARE
    picked tid[];
BEGIN
    PERFORM %1$I.vault_lock();
    picked := ARRAY(SELECT ctid FROM %1$I.vault_inbox ORDER BY written_at LIMIT most_rows);

    INSERT INTO %1$I.vault_streams (key_id, enc)
    SELECT DISTINCT ON (enc) key_id, enc
    FROM %1$I.vault_inbox
    JOIN %1$I.vault_keys ON vault_keys.id = key_id
    WHERE vault_inbox.ctid = ANY (picked)
    ORDER BY enc, written_at
    ON CONFLICT DO NOTHING;

    WITH cut AS (
        SELECT stream_id, key_id, accepted_at, written_at,
            get_byte(body, start) * 256 + get_byte(body, start + 1) AS sequence,
            chr(get_byte(body, start + 2))::"char" AS field,
            substr(body, start + 4, 32) AS token,
            substr(body, start + 36, entry_length - 35) AS ciphertext
        FROM (
            SELECT vault_streams.id AS stream_id, vault_inbox.key_id, accepted_at, written_at, entry_length,
                -- The concatenation reads the body once. Otherwise each entry would read its part of the body.
                body || ''::bytea AS body
            FROM %1$I.vault_inbox
            JOIN %1$I.vault_keys ON vault_keys.id = vault_inbox.key_id
            JOIN %1$I.vault_streams ON vault_streams.enc = vault_inbox.enc
            WHERE vault_inbox.ctid = ANY (picked)
            OFFSET 0
        ) AS whole
        CROSS JOIN LATERAL generate_series(0, octet_length(body) - 1, entry_length) AS start
        -- A writer that does not keep to the format must not stop the fold.
        WHERE get_byte(body, start) < 4 AND get_byte(body, start + 2) IN (ascii('i'), ascii('d'))
    ),
    -- In the order of the tokens, so that the lookups and the insertion find the pages of the index in the caches. The
    -- lookups are subqueries: a join could change the order, or read a whole table.
    chosen AS MATERIALIZED (
        SELECT entry.*, (
            SELECT before.key_id FROM %1$I.vault_sealed AS before WHERE before.token = entry.token LIMIT 1
        ) AS key_before
        FROM (
            SELECT DISTINCT ON (token) *
            FROM cut
            WHERE (
                SELECT erasure.never_again OR cut.written_at <= erasure.erased_at
                FROM %1$I.vault_erased AS erasure
                WHERE erasure.token = cut.token
                LIMIT 1
            ) IS NOT TRUE
            ORDER BY token, accepted_at DESC, written_at
        ) AS entry
    ),
    replaced AS (
        UPDATE %1$I.vault_sealed AS sealed
        SET stream_id = newer.stream_id, key_id = newer.key_id, sequence = newer.sequence, field = newer.field,
            ciphertext = newer.ciphertext
        FROM (
            SELECT chosen.*
            FROM chosen
            JOIN %1$I.vault_keys ON vault_keys.id = key_before
            WHERE vault_keys.accepted_at < chosen.accepted_at
        ) AS newer
        WHERE sealed.token = newer.token
    )
    INSERT INTO %1$I.vault_sealed (stream_id, key_id, sequence, field, token, ciphertext)
    SELECT stream_id, key_id, sequence, field, token, ciphertext FROM chosen WHERE key_before IS NULL;

    DELETE FROM %1$I.vault_inbox WHERE ctid = ANY (picked);
    RETURN cardinality(picked);
END
$$;
    $create$, pg_catalog.current_schema());

    -- Writes an entry of the audit, which vault_take, vault_erase and vault_erase_user require, and returns its
    -- number. The caller must commit it first. An error quotes no argument.
    EXECUTE pg_catalog.format($create$
CREATE FUNCTION vault_ask(
    caller text, verb text, field text, token bytea, subject bytea, reason text, ticket text
) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    entry bigint;
BEGIN
    INSERT INTO %1$I.vault_audit (caller, verb, field, token, subject, reason, ticket)
    VALUES (caller, verb, field, token, subject, reason, ticket)
    RETURNING id INTO entry;
    RETURN entry;
EXCEPTION WHEN check_violation OR not_null_violation THEN
    RAISE EXCEPTION 'the entry of the audit is not complete or not in the right form'
        USING ERRCODE = 'invalid_parameter_value';
END
$$;
    $create$, pg_catalog.current_schema());

    -- Uses up an entry of the audit, and returns it. The entry must be committed: whoever asked in this transaction
    -- could roll it back after the answer.
    EXECUTE pg_catalog.format($create$
CREATE FUNCTION vault_use(entry bigint, for_verb text) RETURNS %1$I.vault_audit
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    used %1$I.vault_audit;
BEGIN
    UPDATE %1$I.vault_audit AS audit
    SET taken_at = clock_timestamp()
    WHERE audit.id = entry
        AND audit.verb = for_verb
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

    -- Writes everything that was committed before to the disk of the server. With synchronous_commit = off, which
    -- every role may set, a committed entry of the audit would otherwise be lost in a crash.
    --
    -- Postgres does this before it truncates a table that was created in the same transaction, because no rollback can
    -- restore what is in the file. The rows give the table a free space map: older minor versions do it only then.
    EXECUTE pg_catalog.format($create$
CREATE FUNCTION vault_flush(entry bigint) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    name constant text := format('%%I.%%I', %1$L, 'vault_flush_' || entry);
BEGIN
    -- Then Postgres does not log the truncation, and has nothing to write.
    IF current_setting('wal_level') = 'minimal' THEN
        RAISE EXCEPTION 'the vault requires wal_level = replica' USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    EXECUTE 'CREATE TABLE ' || name || ' (number integer) USING heap';
    EXECUTE 'INSERT INTO ' || name || ' SELECT generate_series(1, 300)';
    EXECUTE 'TRUNCATE ' || name;
    EXECUTE 'DROP TABLE ' || name;
END
$$;
    $create$, pg_catalog.current_schema());

    -- Hands out the sealed value of an entry's token, once. `state` is sealed, unknown or erased.
    EXECUTE pg_catalog.format($create$
CREATE FUNCTION vault_take(
    entry bigint,
    OUT state text,
    OUT field text,
    OUT token bytea,
    OUT public_key bytea,
    OUT kms_key text,
    OUT enc bytea,
    OUT sequence integer,
    OUT ciphertext bytea
)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    wanted constant bytea := (%1$I.vault_use(entry, 'reveal')).token;
BEGIN
    PERFORM %1$I.vault_flush(entry);
    token := wanted;
    -- The first table twice, because a fold may move the value from the second table to the first table meanwhile.
    FOR attempt IN 1..2 LOOP
        SELECT CASE sealed.field WHEN 'i' THEN 'ip' ELSE 'device_id' END, vault_keys.public_key, vault_keys.kms_key,
            vault_streams.enc, sealed.sequence, sealed.ciphertext
        INTO field, public_key, kms_key, enc, sequence, ciphertext
        FROM %1$I.vault_sealed AS sealed
        JOIN %1$I.vault_streams ON vault_streams.id = sealed.stream_id
        JOIN %1$I.vault_keys ON vault_keys.id = sealed.key_id
        WHERE sealed.token = wanted;
        IF FOUND THEN
            state := 'sealed';
            RETURN;
        END IF;
        EXIT WHEN attempt = 2;

        SELECT CASE chr(get_byte(body, start + 2)) WHEN 'i' THEN 'ip' ELSE 'device_id' END,
            vault_keys.public_key, vault_keys.kms_key, found.enc,
            get_byte(body, start) * 256 + get_byte(body, start + 1), substr(body, start + 36, entry_length - 35)
        INTO field, public_key, kms_key, enc, sequence, ciphertext
        FROM (
            SELECT inbox.*, %1$I.vault_find(body, entry_length, wanted) AS start
            FROM %1$I.vault_inbox AS inbox
            WHERE NOT EXISTS (
                SELECT FROM %1$I.vault_erased AS erasure
                WHERE erasure.token = wanted AND (never_again OR inbox.written_at <= erased_at)
            )
            OFFSET 0
        ) AS found
        JOIN %1$I.vault_keys ON vault_keys.id = found.key_id
        WHERE start IS NOT NULL
            AND get_byte(body, start) < 4
            AND get_byte(body, start + 2) IN (ascii('i'), ascii('d'))
        ORDER BY accepted_at DESC, written_at
        LIMIT 1;
        IF FOUND THEN
            state := 'sealed';
            RETURN;
        END IF;
    END LOOP;
    state := CASE
        WHEN EXISTS (SELECT FROM %1$I.vault_erased AS erasure WHERE erasure.token = wanted) THEN 'erased'
        ELSE 'unknown'
    END;
END
$$;
    $create$, pg_catalog.current_schema());

    -- Notes once how an entry of the audit ended.
    EXECUTE pg_catalog.format($create$
CREATE FUNCTION vault_tell(entry bigint, outcome text, kms_request_id text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    told_outcome constant text := outcome;
    told_request constant text := kms_request_id;
BEGIN
    IF told_outcome IS NULL THEN
        RAISE not_null_violation;
    END IF;
    UPDATE %1$I.vault_audit AS audit
    SET outcome = told_outcome, kms_request_id = told_request, told_at = clock_timestamp()
    WHERE audit.id = entry AND audit.db_user = session_user AND audit.outcome IS NULL;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no such entry in the audit' USING ERRCODE = 'LE004';
    END IF;
EXCEPTION WHEN check_violation OR not_null_violation THEN
    RAISE EXCEPTION 'the outcome is not in the right form' USING ERRCODE = 'invalid_parameter_value';
END
$$;
    $create$, pg_catalog.current_schema());

    -- Removes a token's sealed values, and notes the erasure, so that a batch that commits later cannot bring them
    -- back. Returns whether there was a value.
    EXECUTE pg_catalog.format($create$
CREATE FUNCTION vault_forget(forgotten bytea, for_ever boolean) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    was_sealed boolean;
    written record;
    start integer;
BEGIN
    INSERT INTO %1$I.vault_erased AS before (token, erased_at, never_again)
    VALUES (forgotten, clock_timestamp(), for_ever)
    ON CONFLICT (token) DO UPDATE SET
        erased_at = excluded.erased_at,
        never_again = before.never_again OR excluded.never_again;

    DELETE FROM %1$I.vault_sealed WHERE token = forgotten;
    was_sealed := FOUND;

    FOR written IN
        SELECT inbox.ctid AS place, body, entry_length
        FROM %1$I.vault_inbox AS inbox
        WHERE %1$I.vault_find(body, entry_length, forgotten) IS NOT NULL
    LOOP
        was_sealed := true;
        LOOP
            start := %1$I.vault_find(written.body, written.entry_length, forgotten);
            EXIT WHEN start IS NULL;
            written.body := overlay(written.body PLACING ''::bytea FROM start + 1 FOR written.entry_length);
        END LOOP;
        IF written.body = ''::bytea THEN
            DELETE FROM %1$I.vault_inbox WHERE ctid = written.place;
        ELSE
            UPDATE %1$I.vault_inbox SET body = written.body WHERE ctid = written.place;
        END IF;
    END LOOP;
    RETURN was_sealed;
END
$$;
    $create$, pg_catalog.current_schema());

    -- Removes tokens from user_logins and from what is derived from it, and returns the number of rows that had one.
    EXECUTE pg_catalog.format($create$
CREATE FUNCTION vault_clear_rows(tokens text[]) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET row_security = off AS $$
DECLARE
    prefix constant text := CASE WHEN %1$L = 'public' THEN '' ELSE %1$L || '_' END;
    -- The comments by which src/analytics.rs and src/lake.rs recognise their schemas.
    analytics constant text := (
        SELECT quote_ident(nspname)
        FROM pg_namespace
        WHERE nspname = prefix || 'analytics'
            AND pg_get_userbyid(nspowner) = current_user
            AND obj_description(oid, 'pg_namespace') = 'login-etl rollups, version 1'
    );
    lake constant text := (
        SELECT quote_ident(nspname)
        FROM pg_namespace
        WHERE nspname = prefix || 'lake'
            AND pg_get_userbyid(nspowner) = current_user
            AND obj_description(oid, 'pg_namespace') = 'login-etl lake, version 1'
    );
    rollup text;
    changed_days date[];
    changed_rows bigint;
BEGIN
    -- Before the rows are changed: a step of a roll-up that runs now would bring the tokens back.
    IF analytics IS NOT NULL THEN
        EXECUTE format('LOCK TABLE %%s.state IN SHARE ROW EXCLUSIVE MODE', analytics);
    END IF;

    -- For the triggers of the table, which may have bare names. The function's own setting returns at its end.
    PERFORM set_config('search_path', format('%%I, pg_temp', %1$L), true);
    WITH changed AS (
        UPDATE %1$I.user_logins
        SET
            masked_ip = CASE WHEN masked_ip = ANY (tokens) THEN NULL ELSE masked_ip END,
            masked_device_id = CASE WHEN masked_device_id = ANY (tokens) THEN NULL ELSE masked_device_id END
        WHERE masked_ip = ANY (tokens) OR masked_device_id = ANY (tokens)
        RETURNING create_date::date AS day
    )
    SELECT coalesce(sum(days.rows), 0), coalesce(array_agg(day) FILTER (
        WHERE day BETWEEN DATE '0001-01-01' AND DATE '9999-12-31'
    ), '{}')
    INTO changed_rows, changed_days
    FROM (SELECT day, count(*) AS rows FROM changed GROUP BY day) AS days;
    PERFORM set_config('search_path', 'pg_catalog, pg_temp', true);

    IF lake IS NOT NULL THEN
        EXECUTE format('SELECT %%s.mark_changed(day) FROM unnest($1) AS day', lake) USING changed_days;
    END IF;

    IF analytics IS NOT NULL THEN
        FOREACH rollup IN ARRAY ARRAY[
            'token_user_day', 'token_user_before', 'token_period', 'popular_token_user', 'popular_token_day'
        ] LOOP
            EXECUTE format('DELETE FROM %%s.%%I WHERE token = ANY ($1)', analytics, rollup) USING tokens;
        END LOOP;
        -- A ring has the name of one of its devices. The next roll-up finds the rings anew.
        EXECUTE format('DELETE FROM %%s.rings WHERE ring = ANY ($1)', analytics) USING tokens;
        EXECUTE format('DELETE FROM %%s.ring_members WHERE ring = ANY ($1)', analytics) USING tokens;
        EXECUTE format(
            'UPDATE %%s.day SET ledger_entries = NULL, closed = false WHERE day = ANY ($1) AND NOT merged', analytics
        ) USING changed_days;
        EXECUTE format('UPDATE %%s.state SET run = run + 1', analytics);
    END IF;
    RETURN changed_rows;
END
$$;
    $create$, pg_catalog.current_schema());

    -- Erases the sealed value of an entry's token and, if asked for, the token in user_logins.
    EXECUTE pg_catalog.format($create$
CREATE FUNCTION vault_erase(
    entry bigint, never_again boolean, with_rows boolean, OUT erased boolean, OUT rows bigint
)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    wanted constant bytea := (%1$I.vault_use(entry, 'erase')).token;
    was_erased boolean;
BEGIN
    PERFORM %1$I.vault_lock();
    was_erased := EXISTS (SELECT FROM %1$I.vault_erased WHERE token = wanted);
    erased := %1$I.vault_forget(wanted, coalesce(never_again, false));
    rows := CASE WHEN with_rows THEN %1$I.vault_clear_rows(ARRAY[encode(wanted, 'hex')]) ELSE 0 END;
    PERFORM %1$I.vault_tell(
        entry, CASE WHEN erased OR rows > 0 THEN 'done' WHEN was_erased THEN 'erased' ELSE 'unknown' END, NULL
    );
END
$$;
    $create$, pg_catalog.current_schema());

    -- Erases the sealed values of the tokens that only this user's rows have, and returns these tokens. Tokens that
    -- rows of other users have too stay, and are returned as shared.
    EXECUTE pg_catalog.format($create$
CREATE FUNCTION vault_erase_user(
    entry bigint, user_id text, never_again boolean, with_rows boolean,
    OUT erased text[], OUT shared text[], OUT rows bigint
)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET row_security = off AS $$
DECLARE
    erased_user constant text := user_id;
    erased_token text;
BEGIN
    PERFORM %1$I.vault_use(entry, 'erase-user');
    PERFORM %1$I.vault_lock();

    WITH own AS MATERIALIZED (
        SELECT DISTINCT token
        FROM %1$I.user_logins AS logins
        CROSS JOIN LATERAL (VALUES (masked_ip::text), (masked_device_id::text)) AS tokens (token)
        WHERE logins.user_id = erased_user AND token ~ '^[0-9a-f]{64}$'
    ),
    others AS MATERIALIZED (
        SELECT DISTINCT token
        FROM %1$I.user_logins AS logins
        CROSS JOIN LATERAL (VALUES (masked_ip::text), (masked_device_id::text)) AS tokens (token)
        WHERE logins.user_id IS DISTINCT FROM erased_user AND token IN (SELECT token FROM own)
    )
    SELECT
        coalesce(array_agg(own.token ORDER BY own.token) FILTER (WHERE others.token IS NULL), '{}'),
        coalesce(array_agg(own.token ORDER BY own.token) FILTER (WHERE others.token IS NOT NULL), '{}')
    INTO erased, shared
    FROM own
    LEFT JOIN others USING (token);

    FOREACH erased_token IN ARRAY erased LOOP
        PERFORM %1$I.vault_forget(decode(erased_token, 'hex'), coalesce(never_again, false));
    END LOOP;
    rows := CASE WHEN with_rows THEN %1$I.vault_clear_rows(erased) ELSE 0 END;
    PERFORM %1$I.vault_tell(entry, CASE WHEN erased = '{}' THEN 'unknown' ELSE 'done' END, NULL);
END
$$;
    $create$, pg_catalog.current_schema());
END
$migration$;

-- Nobody but the owner and the functions may touch these tables and functions, also if default privileges of the
-- database give others rights on new objects.
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
            SELECT CASE relkind WHEN 'S' THEN 'SEQUENCE ' ELSE 'TABLE ' END || pg_class.oid::regclass::text,
                relowner, relacl
            FROM pg_catalog.pg_class
            WHERE relname IN (
                    'vault_keys', 'vault_keys_id_seq', 'vault_inbox', 'vault_streams', 'vault_streams_id_seq',
                    'vault_sealed', 'vault_erased', 'vault_audit', 'vault_audit_id_seq'
                )
                AND relnamespace = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = pg_catalog.current_schema())
            UNION ALL
            SELECT 'FUNCTION ' || pg_proc.oid::regprocedure::text, proowner,
                coalesce(proacl, pg_catalog.acldefault('f', proowner))
            FROM pg_catalog.pg_proc
            WHERE proname IN (
                    'check_vault_key', 'vault_write_logins', 'vault_write_fifo_logins', 'vault_write_logins_row_by_row',
                    'vault_lock', 'vault_find', 'vault_fold', 'vault_ask', 'vault_use', 'vault_flush', 'vault_take',
                    'vault_tell', 'vault_forget', 'vault_clear_rows', 'vault_erase', 'vault_erase_user'
                )
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

-- Without written_at: an erasure relies on it.
GRANT INSERT (key_id, enc, entry_length, body) ON vault_inbox TO login_writer;
GRANT SELECT (id, sha256, is_current) ON vault_keys TO login_writer;
GRANT EXECUTE ON FUNCTION check_vault_key(bytea) TO login_writer;
GRANT EXECUTE ON FUNCTION vault_write_logins(
    timestamptz[], uuid[], text[], text[], text[], text[], text[], integer[], text,
    bytea, bytea[], integer[], bytea[]
) TO login_writer;
GRANT EXECUTE ON FUNCTION vault_write_fifo_logins(
    timestamptz[], uuid[], text[], text[], text[], text[], text[], integer[], text,
    bytea, bytea[], integer[], bytea[]
) TO login_writer;
GRANT EXECUTE ON FUNCTION vault_write_logins_row_by_row(
    timestamptz[], uuid[], text[], text[], text[], text[], text[], integer[], text, integer[], double precision,
    bytea, bytea[], integer[], bytea[]
) TO login_writer;
