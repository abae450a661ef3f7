-- The erasure list: the vault writes each erasure to a bucket, too. A restored backup does not know the erasures after
-- it; `migrate` replays them.

-- In the order of S3, which compares bytes. No row is ever deleted: the list keeps its objects, too.
CREATE TABLE vault_listed (
    object_key text COLLATE "C" PRIMARY KEY
);
COMMENT ON TABLE vault_listed IS 'The objects of the erasure list whose erasures this database has';

DO $migration$
BEGIN
    -- Refuses tokens that this transaction has not erased for this entry of the audit.
    EXECUTE pg_catalog.format($create$
CREATE FUNCTION vault_check_erasing(entry bigint, tokens text[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT EXISTS (
            SELECT FROM %1$I.vault_audit AS audit
            WHERE audit.id = entry
                AND audit.verb IN ('erase', 'erase-user')
                AND audit.db_user = session_user
                AND audit.taken_at >= now()
        )
        OR EXISTS (
            SELECT FROM unnest(tokens) AS wanted
            WHERE NOT EXISTS (
                SELECT FROM %1$I.vault_erased AS erasure
                WHERE erasure.token = decode(wanted, 'hex') AND erasure.erased_at >= now()
            )
        )
    THEN
        RAISE EXCEPTION 'there is no such entry in the audit' USING ERRCODE = 'LE004';
    END IF;
END
$$;
    $create$, pg_catalog.current_schema());

    -- Notes that the erasure of an entry, in this transaction, is in the erasure list, and returns the key and the
    -- content of its object. The caller writes the object before it commits: the list then has each erasure of the
    -- database. An erasure that is only in the list is replayed.
    EXECUTE pg_catalog.format($create$
CREATE FUNCTION vault_list(
    entry bigint, tokens text[], OUT object_key text, OUT erased_at text, OUT salt_fingerprint text
)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM %1$I.vault_check_erasing(entry, tokens);
    erased_at := to_char(
        (
            SELECT max(erasure.erased_at)
            FROM %1$I.vault_erased AS erasure
            WHERE erasure.token IN (SELECT decode(listed, 'hex') FROM unnest(tokens) AS listed)
        ) AT TIME ZONE 'UTC',
        'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'
    );
    object_key := format('erasures/%%s-%%s-%%s.json', erased_at, entry, gen_random_uuid());
    salt_fingerprint := (SELECT fingerprint FROM %1$I.salt_fingerprint);
    INSERT INTO %1$I.vault_listed VALUES (object_key);
END
$$;
    $create$, pg_catalog.current_schema());

    -- Removes tokens that this transaction has erased from user_logins, too, and returns the number of rows. It is a
    -- step of its own, because it may take longer than the caller waits: the object is in the list before.
    EXECUTE pg_catalog.format($create$
CREATE FUNCTION vault_erase_rows(entry bigint, tokens text[]) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET row_security = off AS $$
DECLARE
    cleared bigint;
BEGIN
    PERFORM %1$I.vault_check_erasing(entry, tokens);
    cleared := %1$I.vault_clear_rows(tokens);
    UPDATE %1$I.vault_audit AS audit SET outcome = 'done' WHERE audit.id = entry AND cleared > 0;
    RETURN cleared;
END
$$;
    $create$, pg_catalog.current_schema());

    -- As vault_clear_rows(text[]), without the rows of the days after `until`: they were written after the erasure.
    EXECUTE pg_catalog.format($create$
CREATE FUNCTION vault_clear_rows(tokens text[], until date) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET row_security = off AS $$
DECLARE
    prefix constant text := CASE WHEN %1$L = 'public' THEN '' ELSE %1$L || '_' END;
    -- The comments by which src/analytics.rs and src/lake.rs recognise their schemas. This function
    -- clears rollups of every version.
    analytics constant text := (
        SELECT quote_ident(nspname)
        FROM pg_namespace
        WHERE nspname = prefix || 'analytics'
            AND pg_get_userbyid(nspowner) = current_user
            AND obj_description(oid, 'pg_namespace') LIKE 'login-etl rollups, version %%'
    );
    lake constant text := (
        SELECT quote_ident(nspname)
        FROM pg_namespace
        WHERE nspname = prefix || 'lake'
            AND pg_get_userbyid(nspowner) = current_user
            AND obj_description(oid, 'pg_namespace') = 'login-etl lake, version 1'
    );
    rollup record;
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
        WHERE (masked_ip = ANY (tokens) OR masked_device_id = ANY (tokens)) AND (create_date::date > until) IS NOT TRUE
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
        -- A ring has the name of one of its devices. The next roll-up finds the rings anew.
        FOR rollup IN
            SELECT relname, attname
            FROM pg_class
            JOIN pg_attribute ON attrelid = pg_class.oid
            WHERE relnamespace = to_regnamespace(analytics) AND relkind = 'r' AND attnum > 0 AND NOT attisdropped
                AND attname IN ('token', 'ring')
        LOOP
            EXECUTE format('DELETE FROM %%s.%%I WHERE %%I = ANY ($1)', analytics, rollup.relname, rollup.attname)
            USING tokens;
        END LOOP;
        -- Later days may have rows of the tokens, whose counts were just deleted.
        EXECUTE format(
            'UPDATE %%s.day SET ledger_entries = NULL, closed = false '
            'WHERE (day = ANY ($1) OR day > $2) AND NOT merged',
            analytics
        ) USING changed_days, until;
        EXECUTE format('UPDATE %%s.state SET run = run + 1', analytics);
    END IF;
    RETURN changed_rows;
END
$$;
    $create$, pg_catalog.current_schema());

    -- Removes tokens from user_logins and from what is derived from it, and returns the number of rows that had one.
    EXECUTE pg_catalog.format($create$
CREATE OR REPLACE FUNCTION vault_clear_rows(tokens text[]) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN %1$I.vault_clear_rows(tokens, 'infinity');
END
$$;
    $create$, pg_catalog.current_schema());

    -- Repeats erasures of the erasure list, each as of its own time, and notes their objects. `listed` is an array of
    -- objects with the keys object_key, erased_at, tokens, never_again, rows and salt_fingerprint. Erasures that the
    -- database has are left out. The objects of another salt are returned instead: their tokens say nothing here.
    EXECUTE pg_catalog.format($create$
CREATE FUNCTION vault_replay(
    listed jsonb, OUT erasures bigint, OUT tokens bigint, OUT rows bigint, OUT of_other_salts text[]
)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET row_security = off AS $$
DECLARE
    accepted constant text := (SELECT fingerprint FROM %1$I.salt_fingerprint);
    missing jsonb;
    forgotten bytea[];
    cleared record;
BEGIN
    PERFORM %1$I.vault_lock();

    SELECT
        coalesce(jsonb_agg(object) FILTER (WHERE NOT is_other), '[]'),
        coalesce(array_agg(object ->> 'object_key') FILTER (WHERE is_other), '{}')
    INTO missing, of_other_salts
    FROM (
        SELECT object, coalesce(object ->> 'salt_fingerprint' <> accepted, false) AS is_other
        FROM jsonb_array_elements(listed) AS object
        WHERE NOT EXISTS (
            SELECT FROM %1$I.vault_listed AS known WHERE known.object_key = object ->> 'object_key'
        )
    ) AS objects;
    erasures := jsonb_array_length(missing);

    -- A later erasure has removed the values already. What was sealed after it stays.
    WITH erasure AS MATERIALIZED (
        SELECT decode(token, 'hex') AS token, max((object ->> 'erased_at')::timestamptz) AS erased_at,
            bool_or((object ->> 'never_again')::boolean) AS never_again
        FROM jsonb_array_elements(missing) AS object
        CROSS JOIN LATERAL jsonb_array_elements_text(object -> 'tokens') AS token
        GROUP BY token
    ),
    noted AS (
        INSERT INTO %1$I.vault_erased AS before (token, erased_at, never_again)
        SELECT token, erased_at, never_again FROM erasure ORDER BY token
        ON CONFLICT (token) DO UPDATE SET
            erased_at = greatest(before.erased_at, excluded.erased_at),
            never_again = before.never_again OR excluded.never_again
        WHERE before.erased_at < excluded.erased_at OR excluded.never_again > before.never_again
        RETURNING token
    )
    SELECT coalesce(array_agg(token), '{}') INTO forgotten FROM noted;
    tokens := cardinality(forgotten);

    DELETE FROM %1$I.vault_sealed WHERE token = ANY (forgotten);

    IF tokens > 0 THEN
        WITH scrubbed AS MATERIALIZED (
            SELECT place, string_agg(entry, '' ORDER BY start) FILTER (WHERE NOT is_erased) AS body
            FROM (
                SELECT place, start, substr(body, start + 1, entry_length) AS entry, EXISTS (
                    SELECT FROM %1$I.vault_erased AS erasure
                    WHERE erasure.token = substr(body, start + 4, 32)
                        AND (never_again OR written_at <= erasure.erased_at)
                ) AS is_erased
                FROM (
                    -- The concatenation reads the body once.
                    SELECT ctid AS place, entry_length, written_at, body || ''::bytea AS body
                    FROM %1$I.vault_inbox
                    OFFSET 0
                ) AS whole
                CROSS JOIN LATERAL generate_series(0, octet_length(body) - 1, entry_length) AS start
            ) AS entries
            GROUP BY place
            HAVING bool_or(is_erased)
        ),
        emptied AS (
            DELETE FROM %1$I.vault_inbox USING scrubbed WHERE ctid = place AND scrubbed.body IS NULL
        )
        UPDATE %1$I.vault_inbox SET body = scrubbed.body
        FROM scrubbed
        WHERE ctid = place AND scrubbed.body IS NOT NULL;
    END IF;

    rows := 0;
    FOR cleared IN
        -- The clocks of SQS, which dates a login, and of Postgres may differ a little.
        SELECT (((object ->> 'erased_at')::timestamptz + INTERVAL '15 minutes') AT TIME ZONE 'UTC')::date AS until,
            array_agg(DISTINCT token) AS of_rows
        FROM jsonb_array_elements(missing) AS object
        CROSS JOIN LATERAL jsonb_array_elements_text(object -> 'tokens') AS token
        WHERE (object ->> 'rows')::boolean
        GROUP BY until
    LOOP
        rows := rows + %1$I.vault_clear_rows(cleared.of_rows, cleared.until);
    END LOOP;

    INSERT INTO %1$I.vault_listed (object_key)
    SELECT object ->> 'object_key' FROM jsonb_array_elements(missing) AS object
    ON CONFLICT DO NOTHING;
END
$$;
    $create$, pg_catalog.current_schema());
END
$migration$;

-- Nobody but the owner and the functions, also if default privileges of the database give others rights on new objects.
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
            WHERE relname = 'vault_listed'
                AND relnamespace = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = pg_catalog.current_schema())
            UNION ALL
            SELECT 'FUNCTION ' || pg_proc.oid::regprocedure::text, proowner,
                coalesce(proacl, pg_catalog.acldefault('f', proowner))
            FROM pg_catalog.pg_proc
            WHERE proname IN (
                    'vault_check_erasing', 'vault_list', 'vault_erase_rows', 'vault_clear_rows', 'vault_replay'
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
