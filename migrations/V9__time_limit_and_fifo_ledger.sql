-- Three changes:
--
-- 1. A ledger for FIFO queues. A FIFO queue's message gets a new SentTimestamp when SQS moves it to the
--    dead-letter queue, so the key of processed_messages no longer finds it. Its message id stays the same.
-- 2. A write_logins_row_by_row that is faster with many refused rows, stops at a time limit, and counts the rows
--    that a trigger or a rule suppressed.
-- 3. The functions name the schema of each table and function. Otherwise the search path of their caller
--    decides which table they write to. They have no SET search_path, because the triggers of user_logins
--    would then run with it. Polymorphic functions (unnest, array_agg) are named with pg_catalog: otherwise a
--    function public.unnest(text[]) would be the better match.

-- The ids of the messages of FIFO queues that were written. They are in processed_messages too, so that an
-- older function finds them. `written_on` is a UTC date, for src/schema/prune.sql.
CREATE TABLE processed_fifo_messages (
    message_id uuid PRIMARY KEY,
    written_on date NOT NULL
);

CREATE INDEX ON processed_fifo_messages (written_on);

COMMENT ON TABLE processed_fifo_messages IS
    'Messages of FIFO queues already written to user_logins, so that a dead letter adds no row';

-- SELECT, because write_logins_row_by_row looks for messages before it writes.
GRANT INSERT, SELECT ON processed_fifo_messages TO login_writer;

DO $migration$
BEGIN
    EXECUTE format($create$
CREATE OR REPLACE FUNCTION check_salt(salt text) RETURNS boolean
LANGUAGE plpgsql AS $$
BEGIN
    IF salt IS DISTINCT FROM (SELECT fingerprint FROM %1$I.salt_fingerprint) THEN
        RETURN %1$I.decide_salt(salt);
    END IF;
    RETURN true;
END
$$;
    $create$, current_schema());

    EXECUTE format($create$
CREATE OR REPLACE FUNCTION write_logins(
    sent_ats timestamptz[],
    message_ids uuid[],
    user_ids text[],
    device_types text[],
    masked_ips text[],
    masked_device_ids text[],
    locales text[],
    app_versions integer[],
    salt text
) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    inserted bigint;
BEGIN
    -- The arrays are taken side by side, an element of each a row, which is faster in the list of what
    -- is selected than FROM unnest(..., ...).
    INSERT INTO %1$I.processed_messages (slot, sent_at, message_id)
    SELECT ((sent_at AT TIME ZONE INTERVAL '0')::date - DATE '1970-01-01') %% 32, sent_at, message_id
    FROM (
        SELECT pg_catalog.unnest(sent_ats) AS sent_at, pg_catalog.unnest(message_ids) AS message_id
    ) AS message;

    INSERT INTO %1$I.user_logins (
        user_id, device_type, masked_ip, masked_device_id, locale, app_version, create_date
    )
    SELECT
        pg_catalog.unnest(user_ids),
        pg_catalog.unnest(device_types),
        pg_catalog.unnest(masked_ips),
        pg_catalog.unnest(masked_device_ids),
        pg_catalog.unnest(locales),
        pg_catalog.unnest(app_versions),
        -- The day in UTC, whatever the session's time zone.
        (pg_catalog.unnest(sent_ats) AT TIME ZONE INTERVAL '0')::date;

    GET DIAGNOSTICS inserted = ROW_COUNT;

    -- Last, because accept-salt locks user_logins before it changes the fingerprint: a batch that has
    -- inserted its rows compares with the fingerprint that stays accepted until its commit.
    PERFORM %1$I.check_salt(salt);
    RETURN inserted;
END
$$;
    $create$, current_schema());

    EXECUTE format($create$
CREATE FUNCTION write_fifo_logins(
    sent_ats timestamptz[],
    message_ids uuid[],
    user_ids text[],
    device_types text[],
    masked_ips text[],
    masked_device_ids text[],
    locales text[],
    app_versions integer[],
    salt text
) RETURNS bigint
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO %1$I.processed_fifo_messages (message_id, written_on)
    SELECT pg_catalog.unnest(message_ids), (pg_catalog.now() AT TIME ZONE INTERVAL '0')::date;

    RETURN %1$I.write_logins(
        sent_ats, message_ids, user_ids, device_types, masked_ips, masked_device_ids, locales, app_versions, salt
    );
END
$$;
    $create$, current_schema());

    EXECUTE format($create$
CREATE FUNCTION write_logins_row_by_row(
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
    OUT inserted bigint,
    OUT suppressed bigint,
    OUT failed_rows integer[],
    OUT failed_sqlstates text[],
    OUT unreached_rows integer[]
)
LANGUAGE plpgsql AS $$
DECLARE
    stop_at constant timestamptz := pg_catalog.clock_timestamp() + pg_catalog.make_interval(secs => time_limit_s);
    -- A part that takes longer is followed by a smaller part, so that no part outlasts the time left.
    part_limit constant interval :=
        pg_catalog.make_interval(secs => LEAST(time_limit_s * double precision '0.05', double precision '0.1'));
    number_of_rows constant integer := pg_catalog.cardinality(message_ids);
    is_fifo constant boolean := pg_catalog.cardinality(fifo_groups) > 0;
    -- By FIFO group: its refused row.
    refused integer[] := pg_catalog.array_fill(NULL::integer, ARRAY[number_of_rows]);
    -- The rows that are still to be written, from `first_due`, and the part of them that is written next.
    due_rows integer[];
    first_due integer;
    last_of_part integer;
    part_size integer := 1;
    -- The last row that was written or refused.
    done_row integer := 0;
    part_started_at timestamptz;
    part_took interval;
    part_rows bigint;
    part_inserted bigint;
    part_entries bigint;
    -- Whether the part's rows are inserted, and whether another transaction wrote one of its messages first.
    in_ledger boolean;
    is_overtaken boolean := true;
    error_code text;
BEGIN
    inserted := 0;
    suppressed := 0;
    failed_rows := '{}';
    failed_sqlstates := '{}';

    -- Without rows, these fail only if the statement itself is refused: a table, a column or a privilege is
    -- missing. They also lock user_logins before the salt is checked, because accept-salt locks it too.
    -- NULL, because Postgres converts a given value already while it plans: a value of the first row that is
    -- too long for its column would fail the whole batch.
    INSERT INTO %1$I.processed_messages (slot, sent_at, message_id)
    SELECT 0, sent_ats[1], message_ids[1] WHERE false;
    INSERT INTO %1$I.processed_fifo_messages (message_id, written_on)
    SELECT message_ids[1], sent_ats[1]::date WHERE false;
    INSERT INTO %1$I.user_logins (
        user_id, device_type, masked_ip, masked_device_id, locale, app_version, create_date
    )
    SELECT NULL::text, NULL::text, NULL::text, NULL::text, NULL::text, NULL::integer, NULL::date
    WHERE false;

    -- The sequence of a serial column is read for each row, so the statements above do not notice that the
    -- privilege is missing.
    IF EXISTS (
        SELECT FROM pg_catalog.pg_attrdef
        JOIN pg_catalog.pg_depend ON pg_depend.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass
            AND pg_depend.objid = pg_attrdef.oid
        JOIN pg_catalog.pg_class ON pg_depend.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
            AND pg_class.oid = pg_depend.refobjid
        WHERE pg_attrdef.adrelid = %2$L::pg_catalog.regclass
            AND CASE WHEN pg_class.relkind = 'S'
                THEN NOT pg_catalog.has_sequence_privilege(pg_class.oid, 'USAGE, UPDATE')
            END
    ) THEN
        RAISE insufficient_privilege USING MESSAGE = 'permission denied for a sequence of user_logins';
    END IF;

    PERFORM %1$I.check_salt(salt);
    -- A deferred constraint would fail the commit, whose error does not say which row it refuses.
    SET CONSTRAINTS ALL IMMEDIATE;

    LOOP
        IF is_overtaken THEN
            -- The rows whose message no ledger has. SQS can deliver a message twice in one batch: only the
            -- first is due. The ledgers are read in subqueries, so that Postgres looks each message up in an
            -- index.
            SELECT COALESCE(pg_catalog.array_agg(number ORDER BY number), '{}')
            INTO due_rows
            FROM (
                SELECT
                    number,
                    sent_at,
                    message_id,
                    (((sent_at AT TIME ZONE INTERVAL '0')::date - DATE '1970-01-01') %% 32)::smallint AS slot,
                    pg_catalog.row_number() OVER (
                        PARTITION BY message_id, CASE WHEN is_fifo THEN NULL ELSE sent_at END ORDER BY number
                    ) AS occurrence
                FROM (
                    SELECT
                        pg_catalog.generate_subscripts(message_ids, 1) AS number,
                        pg_catalog.unnest(sent_ats) AS sent_at,
                        pg_catalog.unnest(message_ids) AS message_id
                ) AS given
            ) AS message
            WHERE number > done_row
                AND occurrence = 1
                AND (
                    SELECT true FROM %1$I.processed_messages AS entry
                    WHERE entry.slot = message.slot
                        AND entry.sent_at = message.sent_at
                        AND entry.message_id = message.message_id
                    LIMIT 1
                ) IS NULL
                AND (
                    SELECT true FROM %1$I.processed_fifo_messages AS entry
                    WHERE is_fifo AND entry.message_id = message.message_id
                    LIMIT 1
                ) IS NULL;
            first_due := 1;
            is_overtaken := false;
        END IF;

        EXIT WHEN first_due > pg_catalog.cardinality(due_rows) OR pg_catalog.clock_timestamp() >= stop_at;
        part_started_at := pg_catalog.clock_timestamp();
        last_of_part := LEAST(first_due + part_size - 1, pg_catalog.cardinality(due_rows));
        part_rows := last_of_part - first_due + 1;
        IF is_fifo THEN
            SELECT pg_catalog.count(*) INTO part_rows
            FROM pg_catalog.generate_series(first_due, last_of_part) AS place
            WHERE refused[fifo_groups[due_rows[place]]] IS NULL;
        END IF;
        in_ledger := false;

        BEGIN
            INSERT INTO %1$I.user_logins (
                user_id, device_type, masked_ip, masked_device_id, locale, app_version, create_date
            )
            SELECT
                user_ids[number],
                device_types[number],
                masked_ips[number],
                masked_device_ids[number],
                locales[number],
                app_versions[number],
                (sent_ats[number] AT TIME ZONE INTERVAL '0')::date
            FROM (
                SELECT due_rows[place] AS number
                FROM pg_catalog.generate_series(first_due, last_of_part) AS place
            ) AS part
            -- On a FIFO queue a refused row holds back the later rows of its group.
            WHERE refused[fifo_groups[number]] IS NULL;
            GET DIAGNOSTICS part_inserted = ROW_COUNT;

            -- The ledgers come last, so that a refused row leaves no entry behind that vacuum has to remove.
            in_ledger := true;
            -- In the order of write_fifo_logins, so that two batches with the same messages cannot deadlock.
            IF is_fifo THEN
                INSERT INTO %1$I.processed_fifo_messages (message_id, written_on)
                SELECT message_ids[number], (pg_catalog.now() AT TIME ZONE INTERVAL '0')::date
                FROM (
                    SELECT due_rows[place] AS number
                    FROM pg_catalog.generate_series(first_due, last_of_part) AS place
                ) AS part
                WHERE refused[fifo_groups[number]] IS NULL
                ON CONFLICT DO NOTHING;
                GET DIAGNOSTICS part_entries = ROW_COUNT;
                is_overtaken := part_entries < part_rows;
            END IF;
            INSERT INTO %1$I.processed_messages (slot, sent_at, message_id)
            SELECT
                ((sent_ats[number] AT TIME ZONE INTERVAL '0')::date - DATE '1970-01-01') %% 32,
                sent_ats[number],
                message_ids[number]
            FROM (
                SELECT due_rows[place] AS number
                FROM pg_catalog.generate_series(first_due, last_of_part) AS place
            ) AS part
            WHERE refused[fifo_groups[number]] IS NULL
            ON CONFLICT DO NOTHING;
            GET DIAGNOSTICS part_entries = ROW_COUNT;
            is_overtaken := is_overtaken OR part_entries < part_rows;
            IF is_overtaken THEN
                RAISE 'another transaction wrote a message of this part';
            END IF;

            inserted := inserted + part_inserted;
            -- A rule can insert more rows than it is given.
            suppressed := suppressed + GREATEST(part_rows - part_inserted, 0);
            done_row := due_rows[last_of_part];
            first_due := last_of_part + 1;
            part_took := pg_catalog.clock_timestamp() - part_started_at;
            IF part_took + part_took < part_limit THEN
                part_size := LEAST(part_size * 2, number_of_rows);
            ELSIF part_took > part_limit THEN
                part_size := GREATEST(part_size / 2, 1);
            END IF;
        EXCEPTION WHEN assert_failure OR others THEN
            GET STACKED DIAGNOSTICS error_code = RETURNED_SQLSTATE;
            -- These errors concern the server, not the row: the connection, the state of the transaction, a
            -- conflict with another transaction, missing resources, an operator, the system, a bug.
            IF pg_catalog.left(error_code, 2) IN ('08', '25', '40', '53', '57', '58', 'XX')
                OR error_code = '55P03'
                OR in_ledger AND NOT is_overtaken
            THEN
                RAISE;
            END IF;
            IF in_ledger THEN
                -- The next round leaves out the message of the other transaction.
                NULL;
            ELSIF last_of_part > first_due THEN
                part_size := GREATEST((last_of_part - first_due + 1) / 4, 1);
            ELSIF error_code IN ('23505', '23P01') AND EXISTS (
                SELECT FROM %1$I.processed_messages AS entry
                WHERE entry.slot = (
                        ((sent_ats[due_rows[first_due]] AT TIME ZONE INTERVAL '0')::date - DATE '1970-01-01') %% 32
                    )::smallint
                    AND entry.sent_at = sent_ats[due_rows[first_due]]
                    AND entry.message_id = message_ids[due_rows[first_due]]
            ) THEN
                -- Another transaction wrote this very message while this one waited at a key of user_logins.
                is_overtaken := true;
            ELSE
                done_row := due_rows[first_due];
                failed_rows := pg_catalog.array_append(failed_rows, done_row);
                failed_sqlstates := pg_catalog.array_append(failed_sqlstates, error_code);
                IF fifo_groups[done_row] IS NOT NULL THEN
                    refused[fifo_groups[done_row]] := done_row;
                END IF;
                first_due := first_due + 1;
            END IF;
        END;
    END LOOP;

    SELECT COALESCE(pg_catalog.array_agg(due_rows[place] ORDER BY place), '{}')
    INTO unreached_rows
    FROM pg_catalog.generate_series(first_due, pg_catalog.cardinality(due_rows)) AS place
    WHERE refused[fifo_groups[due_rows[place]]] IS NULL;

    -- The rows that are held back. Their SQLSTATE is NULL.
    SELECT pg_catalog.array_cat(failed_rows, pg_catalog.array_agg(number ORDER BY number))
    INTO failed_rows
    FROM pg_catalog.generate_subscripts(fifo_groups, 1) AS number
    WHERE refused[fifo_groups[number]] < number;
    failed_sqlstates := pg_catalog.array_cat(
        failed_sqlstates,
        pg_catalog.array_fill(
            NULL::text, ARRAY[pg_catalog.cardinality(failed_rows) - pg_catalog.cardinality(failed_sqlstates)]
        )
    );
END
$$;
    $create$, current_schema(), format('%I.user_logins', current_schema()));

    EXECUTE format($create$
CREATE OR REPLACE FUNCTION write_logins_row_by_row(
    sent_ats timestamptz[],
    message_ids uuid[],
    user_ids text[],
    device_types text[],
    masked_ips text[],
    masked_device_ids text[],
    locales text[],
    app_versions integer[],
    salt text,
    fifo_groups text[],
    OUT inserted bigint,
    OUT failed_rows integer[],
    OUT failed_sqlstates text[]
)
LANGUAGE plpgsql AS $$
DECLARE
    numbered_groups integer[];
BEGIN
    SELECT pg_catalog.array_agg(CASE WHEN fifo_group IS NOT NULL THEN first_row::integer END ORDER BY number)
    INTO numbered_groups
    FROM (
        SELECT fifo_group, number, pg_catalog.min(number) OVER (PARTITION BY fifo_group) AS first_row
        FROM pg_catalog.unnest(fifo_groups) WITH ORDINALITY AS given (fifo_group, number)
    ) AS grouped;

    -- An older function sends no time limit, and cancels the statement when its time has run out.
    SELECT outcome.inserted, outcome.failed_rows, outcome.failed_sqlstates
    INTO inserted, failed_rows, failed_sqlstates
    FROM %1$I.write_logins_row_by_row(
        sent_ats, message_ids, user_ids, device_types, masked_ips, masked_device_ids, locales, app_versions, salt,
        COALESCE(numbered_groups, '{}'), 3600
    ) AS outcome;
END
$$;
    $create$, current_schema());
END
$migration$;

REVOKE ALL ON FUNCTION write_fifo_logins(
    timestamptz[], uuid[], text[], text[], text[], text[], text[], integer[], text
) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION write_fifo_logins(
    timestamptz[], uuid[], text[], text[], text[], text[], text[], integer[], text
) TO login_writer;

REVOKE ALL ON FUNCTION write_logins_row_by_row(
    timestamptz[], uuid[], text[], text[], text[], text[], text[], integer[], text, integer[], double precision
) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION write_logins_row_by_row(
    timestamptz[], uuid[], text[], text[], text[], text[], text[], integer[], text, integer[], double precision
) TO login_writer;
