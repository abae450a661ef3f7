-- Two changes:
--
-- 1. A later salt: `resalt` replaces each token by its keyed hash with the new salt.
-- 2. A message that is refused, and is twice in one batch, leaves no value in the vault. Before, its second copy counted
--    as written.

-- A ciphertext opens only beside the token with which it was sealed.
ALTER TABLE vault_sealed ADD COLUMN sealed_token bytea;
COMMENT ON COLUMN vault_sealed.sealed_token IS
    'The token beside which the value was sealed, if the salt has changed since; otherwise null';

-- A body of at most 8,000 bytes stays in its row. In the TOAST table each 2 KB would be a row and an entry of an index.
ALTER TABLE vault_inbox SET (toast_tuple_target = 8160);
-- With the bodies in it, the table is too large to be read for each step of the fold. New entries are always the last.
CREATE INDEX ON vault_inbox (written_at);

DO $migration$
BEGIN
    -- Moves the oldest rows of vault_inbox into vault_sealed, and returns their number. A body of more than 8,000 bytes
    -- counts as several rows. At most `most_rows` are moved, or more if the last row counts as several. Nothing is
    -- opened. Of several values of a token, the value of the newest key stays, and of these the first.
    EXECUTE pg_catalog.format($create$
CREATE OR REPLACE FUNCTION vault_write_logins_row_by_row(
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
            EXCEPT SELECT copies.number
            FROM pg_catalog.unnest(pg_catalog.array_cat(failed_rows, unreached_rows)) AS refused (number)
            JOIN pg_catalog.generate_subscripts(message_ids, 1) AS copies (number)
                ON message_ids[copies.number] = message_ids[refused.number]
                AND (fifo_groups[refused.number] IS NOT NULL OR sent_ats[copies.number] = sent_ats[refused.number])
        ) AS written (number)
        CROSS JOIN LATERAL (VALUES (masked_ips[number]), (masked_device_ids[number])) AS tokens (token)
        WHERE token IS NOT NULL
    )
    GROUP BY number, enc, entry_length;
END
$$;
    $create$, pg_catalog.current_schema());

    EXECUTE pg_catalog.format($create$
CREATE OR REPLACE FUNCTION vault_fold(most_rows integer) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET work_mem = '64MB' SET jit = off AS $$
DECLARE
    picked tid[];
    picked_rows bigint;
BEGIN
    PERFORM %1$I.vault_lock();
    SELECT coalesce(array_agg(place), '{}'), coalesce(sum(rows), 0)
    INTO picked, picked_rows
    FROM (
        SELECT ctid AS place, rows, sum(rows) OVER (ORDER BY written_at, ctid) - rows AS rows_before
        FROM (
            SELECT ctid, written_at, (octet_length(body) + 7999) / 8000 AS rows
            FROM %1$I.vault_inbox
            ORDER BY written_at
            LIMIT most_rows
        ) AS oldest
    ) AS counted
    WHERE rows_before < most_rows;

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
            -- In the list of columns, because Postgres would keep the numbers of a function in FROM in a store.
            SELECT whole.*, generate_series(0, octet_length(body) - 1, entry_length) AS start
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
            OFFSET 0
        ) AS entry
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
            WHERE NOT EXISTS (SELECT FROM %1$I.vault_erased) OR (
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
            ciphertext = newer.ciphertext, sealed_token = NULL
        FROM (
            SELECT chosen.*
            FROM chosen
            JOIN %1$I.vault_keys ON vault_keys.id = key_before
            WHERE key_before IS NOT NULL AND vault_keys.accepted_at < chosen.accepted_at
        ) AS newer
        WHERE sealed.token = newer.token
    )
    INSERT INTO %1$I.vault_sealed (stream_id, key_id, sequence, field, token, ciphertext)
    SELECT stream_id, key_id, sequence, field, token, ciphertext FROM chosen WHERE key_before IS NULL;

    DELETE FROM %1$I.vault_inbox WHERE ctid = ANY (picked);
    RETURN picked_rows;
END
$$;
    $create$, pg_catalog.current_schema());

    -- Hands out the sealed value of an entry's token, once. `state` is sealed, unknown or erased. The token that it
    -- returns is the token beside which the value was sealed.
    EXECUTE pg_catalog.format($create$
CREATE OR REPLACE FUNCTION vault_take(
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
    -- The first table twice, because a fold may move the value from the second table to the first table meanwhile.
    FOR attempt IN 1..2 LOOP
        SELECT CASE sealed.field WHEN 'i' THEN 'ip' ELSE 'device_id' END, vault_keys.public_key, vault_keys.kms_key,
            vault_streams.enc, sealed.sequence, sealed.ciphertext, coalesce(sealed.sealed_token, wanted)
        INTO field, public_key, kms_key, enc, sequence, ciphertext, token
        FROM %1$I.vault_sealed AS sealed
        JOIN %1$I.vault_streams ON vault_streams.id = sealed.stream_id
        JOIN %1$I.vault_keys ON vault_keys.id = sealed.key_id
        WHERE sealed.token = wanted;
        IF FOUND THEN
            state := 'sealed';
            RETURN;
        END IF;
        token := wanted;
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

    -- Returns the fingerprint of the accepted salt, for the broker; NULL before the first batch.
    EXECUTE pg_catalog.format($create$
CREATE FUNCTION vault_salt() RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN (SELECT fingerprint FROM %1$I.salt_fingerprint);
END
$$;
    $create$, pg_catalog.current_schema());
END
$migration$;

-- Also from those to whom default privileges of the database give rights on new functions.
DO $migration$
DECLARE
    statement text;
BEGIN
    FOR statement IN
        SELECT pg_catalog.format(
            'REVOKE ALL ON FUNCTION vault_salt() FROM %s',
            CASE WHEN grantee = 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(grantee)) END
        )
        FROM pg_catalog.pg_proc
        CROSS JOIN LATERAL pg_catalog.aclexplode(coalesce(proacl, pg_catalog.acldefault('f', proowner))) AS granted
        WHERE pg_proc.oid = 'vault_salt()'::pg_catalog.regprocedure AND grantee <> proowner
    LOOP
        EXECUTE statement;
    END LOOP;
END
$migration$;
