-- Writes a batch that write_logins could not write: the ledger already has some of its messages, or Postgres
-- refuses some of its rows. The function writes the other rows in one call. It halves a part that fails until
-- the refused row is alone. So a row is refused because it fails on its own, whatever its error code.
--
-- Returns the number of rows inserted, the numbers of the rows that failed (from 1), and for each of these the
-- SQLSTATE, or NULL for a row that is held back: on a FIFO queue a refused row holds back the later rows of
-- its group. Rows of a FIFO queue must come in the order of the batch.
--
-- An error of the function concerns the whole batch: the server failed, or Postgres refuses the statement
-- itself.
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
    fifo_groups text[],
    OUT inserted bigint,
    OUT failed_rows integer[],
    OUT failed_sqlstates text[]
)
LANGUAGE plpgsql AS $$
DECLARE
    -- The parts that are not written yet, as their first and last rows. The next part is the last one.
    first_rows integer[] := ARRAY[1];
    last_rows integer[] := ARRAY[cardinality(message_ids)];
    parts integer := 1;
    first_row integer;
    last_row integer;
    middle integer;
    failed_groups text[] := '{}';
    tried integer[];
    held_back integer[];
    new_rows integer[];
    row_count bigint;
    error_code text;
BEGIN
    inserted := 0;
    failed_rows := '{}';
    failed_sqlstates := '{}';

    -- Without rows, these two fail only if the statement itself is refused: a table, a column or a privilege
    -- is missing. They also lock user_logins before the salt is checked, because accept-salt locks it too.
    INSERT INTO processed_messages (slot, sent_at, message_id)
    SELECT 0, sent_ats[1], message_ids[1] WHERE false;
    INSERT INTO user_logins (
        user_id, device_type, masked_ip, masked_device_id, locale, app_version, create_date
    )
    SELECT user_ids[1], device_types[1], masked_ips[1], masked_device_ids[1], locales[1], app_versions[1],
        sent_ats[1]::date
    WHERE false;

    -- The sequence of a serial column is read for each row, so the statements above do not notice that the
    -- privilege is missing.
    IF EXISTS (
        SELECT FROM pg_attrdef
        JOIN pg_depend ON pg_depend.classid = 'pg_attrdef'::regclass AND pg_depend.objid = pg_attrdef.oid
        JOIN pg_class ON pg_depend.refclassid = 'pg_class'::regclass AND pg_class.oid = pg_depend.refobjid
        WHERE pg_attrdef.adrelid = 'user_logins'::regclass
            AND pg_class.relkind = 'S'
            AND NOT has_sequence_privilege(pg_class.oid, 'USAGE, UPDATE')
    ) THEN
        RAISE insufficient_privilege USING MESSAGE = 'permission denied for a sequence of user_logins';
    END IF;

    PERFORM check_salt(salt);
    -- A deferred constraint would fail the commit, whose error does not say which row it refuses.
    SET CONSTRAINTS ALL IMMEDIATE;

    WHILE parts > 0 LOOP
        first_row := first_rows[parts];
        last_row := last_rows[parts];
        parts := parts - 1;

        SELECT array_agg(number) FILTER (WHERE NOT is_held_back), array_agg(number) FILTER (WHERE is_held_back)
        INTO tried, held_back
        FROM (
            SELECT number, coalesce(fifo_groups[number] = ANY (failed_groups), false) AS is_held_back
            FROM generate_series(first_row, last_row) AS number
        ) AS part;

        IF tried IS NOT NULL THEN
            BEGIN
                WITH new_messages AS (
                    INSERT INTO processed_messages (slot, sent_at, message_id)
                    SELECT DISTINCT
                        ((sent_ats[number] AT TIME ZONE INTERVAL '0')::date - DATE '1970-01-01') % 32,
                        sent_ats[number],
                        message_ids[number]
                    FROM unnest(tried) AS number
                    -- The order of the ledger's key: overlapping batches cannot deadlock.
                    ORDER BY 2, 3
                    ON CONFLICT DO NOTHING
                    RETURNING sent_at, message_id
                )
                SELECT array_agg(first_number) INTO new_rows
                FROM (
                    -- SQS can deliver a message twice in one batch.
                    SELECT min(number) AS first_number
                    FROM unnest(tried) AS number
                    JOIN new_messages
                        ON sent_at = sent_ats[number] AND message_id = message_ids[number]
                    GROUP BY sent_at, message_id
                ) AS new_message;

                -- A statement of its own: a rule on user_logins is not allowed inside WITH.
                INSERT INTO user_logins (
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
                FROM unnest(new_rows) AS number;
                GET DIAGNOSTICS row_count = ROW_COUNT;
                inserted := inserted + row_count;
            EXCEPTION WHEN assert_failure OR others THEN
                GET STACKED DIAGNOSTICS error_code = RETURNED_SQLSTATE;
                -- These errors concern the server, not the row: the connection, the state of the transaction, a
                -- conflict with another transaction, missing resources, an operator, the system, a bug.
                IF left(error_code, 2) IN ('08', '25', '40', '53', '57', '58', 'XX') OR error_code = '55P03' THEN
                    RAISE;
                END IF;
                IF first_row < last_row THEN
                    -- The earlier half is next, so that a refused row is found before the later rows of its
                    -- group.
                    middle := (first_row + last_row) / 2;
                    first_rows[parts + 1] := middle + 1;
                    last_rows[parts + 1] := last_row;
                    first_rows[parts + 2] := first_row;
                    last_rows[parts + 2] := middle;
                    parts := parts + 2;
                    -- The two halves report what is held back.
                    held_back := NULL;
                ELSE
                    failed_rows := failed_rows || first_row;
                    failed_sqlstates := failed_sqlstates || error_code;
                    failed_groups := failed_groups || fifo_groups[first_row];
                END IF;
            END;
        END IF;

        IF held_back IS NOT NULL THEN
            failed_rows := failed_rows || held_back;
            failed_sqlstates := failed_sqlstates || array_fill(NULL::text, ARRAY[cardinality(held_back)]);
        END IF;
    END LOOP;
END
$$;

REVOKE ALL ON FUNCTION write_logins_row_by_row(
    timestamptz[], uuid[], text[], text[], text[], text[], text[], integer[], text, text[]
) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION write_logins_row_by_row(
    timestamptz[], uuid[], text[], text[], text[], text[], text[], integer[], text, text[]
) TO login_writer;
