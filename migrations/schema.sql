-- Schema as of V10__null_fingerprint
--
-- The whole schema, as all migrations together leave it. This file is for reading: `migrate` does not
-- run it. A test compares it with the migrations, so it cannot go stale; README.md says how to update it.
--
-- The comments inside function bodies are part of the functions in the database. They must stay as the
-- migrations wrote them. Functions name the schema of each table and function, because otherwise the search
-- path of their caller decides which table they write to. The migration puts its current schema where this
-- file has `public`. They have no SET search_path, because the triggers of `user_logins` would then run with
-- it. Polymorphic functions (unnest, array_agg) are named with pg_catalog: otherwise a function
-- public.unnest(text[]) would be the better match.


-- Roles
--
-- Roles belong to the whole cluster. Another database's migration may have created them already, or may
-- be creating them at this moment: hence the exceptions.

DO $$
BEGIN
    -- The function logs in as login_writer. A password or IAM login is given to it later.
    CREATE ROLE login_writer LOGIN;
EXCEPTION
    WHEN duplicate_object OR unique_violation THEN NULL;
END
$$;

DO $$
BEGIN
    -- Analysts become members of login_reader.
    CREATE ROLE login_reader NOLOGIN;
EXCEPTION
    WHEN duplicate_object OR unique_violation THEN NULL;
END
$$;


-- Logins
--
-- Users have this table already, without a key: `migrate` leaves an existing table as it is. Otherwise
-- src/schema/create_logins.sql creates it before the first migration, as it is here. src/partitions/missing_days.sql
-- adds the partitions of the days. `create_date` is the UTC date on which the message was sent.

CREATE TABLE user_logins (
    user_id          varchar(128),
    device_type      varchar(32),
    masked_ip        varchar(256),
    masked_device_id varchar(256),
    locale           varchar(32),
    app_version      integer,
    create_date      date
) PARTITION BY RANGE (create_date);

CREATE TABLE user_logins_other PARTITION OF user_logins DEFAULT;

CREATE INDEX ON user_logins_other USING brin (create_date);

COMMENT ON TABLE user_logins_other IS 'login-etl day partitions, version 1';

GRANT INSERT ON user_logins TO login_writer;
GRANT SELECT ON user_logins TO login_reader;


-- Ledger
--
-- SQS delivers a message at least once, and `user_logins` has no key that would reject the second row.
-- So the transaction that writes a row also writes the message to the ledger.
--
-- SQS keeps a message for at most 14 days, so an older entry is useless. The ledger is a ring of 32 daily
-- partitions: `slot` is the number of days from 1970-01-01 to `sent_at`, modulo 32, in UTC. All partitions
-- exist from the start, so no job has to create tomorrow's. src/schema/prune.sql empties old partitions
-- with TRUNCATE, whose cost does not depend on the number of rows. If the ring is not pruned, it still
-- takes entries.
--
-- The unique indexes begin with the time, so a batch touches only the few pages at the right edge of an
-- index. `slot` is not in the indexes: it follows from `sent_at`, so equal messages always meet in the
-- same partition.

CREATE TABLE processed_messages (
    slot       smallint    NOT NULL,
    sent_at    timestamptz NOT NULL,
    message_id uuid        NOT NULL
) PARTITION BY LIST (slot);

COMMENT ON TABLE processed_messages IS
    'SQS messages already written to user_logins, so that a redelivery adds no row';

DO $$
BEGIN
    FOR slot IN 0..31 LOOP
        EXECUTE format(
            'CREATE TABLE processed_messages_%s PARTITION OF processed_messages FOR VALUES IN (%s)',
            to_char(slot, 'FM00'), slot);
        EXECUTE format(
            'CREATE UNIQUE INDEX ON processed_messages_%s (sent_at, message_id)', to_char(slot, 'FM00'));
    END LOOP;
END
$$;

-- SELECT, because ON CONFLICT … RETURNING in write_logins_row_by_row reads the returned columns.
GRANT INSERT, SELECT ON processed_messages TO login_writer;

-- The ledger of FIFO queues
--
-- A FIFO queue's message gets a new SentTimestamp when SQS moves it to the dead-letter queue, so the key of
-- `processed_messages` no longer finds it. Its id stays the same. So the messages of FIFO queues are in this
-- table too. It is not a ring of partitions, because a unique index covers one partition only.
-- src/schema/prune.sql deletes old entries, by the UTC date `written_on`.

CREATE TABLE processed_fifo_messages (
    message_id uuid PRIMARY KEY,
    written_on date NOT NULL
);

CREATE INDEX ON processed_fifo_messages (written_on);

COMMENT ON TABLE processed_fifo_messages IS
    'Messages of FIFO queues already written to user_logins, so that a dead letter adds no row';

-- SELECT, because write_logins_row_by_row looks for messages before it writes.
GRANT INSERT, SELECT ON processed_fifo_messages TO login_writer;


-- Salt fingerprint
--
-- The fingerprint of the salt that `user_logins` is masked with. The table has one row, or none before the
-- first batch. With another salt, equal addresses get different tokens, and joins with older rows find
-- nothing. So a batch with another salt fails, until an operator accepts the new salt with
-- src/schema/accept_salt.sql.

CREATE TABLE salt_fingerprint (
    only_row    boolean     PRIMARY KEY DEFAULT true CHECK (only_row),
    fingerprint text        NOT NULL,
    accepted_at timestamptz NOT NULL DEFAULT now()
);

COMMENT ON TABLE salt_fingerprint IS 'The salt that the tokens in user_logins are made with';

GRANT SELECT (fingerprint) ON salt_fingerprint TO login_writer;

-- Compares a fingerprint with the accepted fingerprint, and raises LE001 if they differ. The argument
-- `salt` is the fingerprint; the database never receives the salt.
--
-- Both statements that write rows call this function, so the check belongs to the transaction that writes.
-- It runs with the caller's rights, because a SECURITY DEFINER call that sets a search path takes as long
-- as writing 5 rows. Only the first batch and a batch with another salt call decide_salt.
CREATE FUNCTION check_salt(salt text) RETURNS boolean
LANGUAGE plpgsql AS $$
BEGIN
    IF salt IS NULL OR salt IS DISTINCT FROM (SELECT fingerprint FROM public.salt_fingerprint) THEN
        RETURN public.decide_salt(salt);
    END IF;
    RETURN true;
END
$$;

REVOKE ALL ON FUNCTION check_salt(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION check_salt(text) TO login_writer;

-- Stores the fingerprint of the first batch, and raises LE001 for any other fingerprint and for NULL.
--
-- It runs with the owner's rights, because login_writer may not write to salt_fingerprint. The search path
-- is fixed, with temporary tables last: otherwise a caller's temporary table could take the place of
-- salt_fingerprint. The migration puts its current schema where this file has `public`.
CREATE FUNCTION decide_salt(salt text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    accepted text;
BEGIN
    SELECT fingerprint INTO accepted FROM public.salt_fingerprint;
    IF NOT FOUND AND salt IS NOT NULL THEN
        -- The first batch decides. Another batch at the same time waits here for it.
        INSERT INTO public.salt_fingerprint (fingerprint) VALUES (salt) ON CONFLICT DO NOTHING;
        SELECT fingerprint INTO accepted FROM public.salt_fingerprint;
    END IF;
    IF salt IS NULL OR accepted IS DISTINCT FROM salt THEN
        RAISE EXCEPTION 'the salt is not the one that user_logins is masked with' USING ERRCODE = 'LE001';
    END IF;
    RETURN true;
END
$$;

REVOKE ALL ON FUNCTION decide_salt(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION decide_salt(text) TO login_writer;


-- Writing a batch
--
-- Writes messages to `user_logins` and to the ledger, and returns the number of rows inserted into
-- `user_logins`. Each array has one element per message. `salt` is the fingerprint of the salt.
--
-- If the ledger already has one of the messages, a unique index rejects the whole batch, and the writer calls
-- write_logins_row_by_row. That function alone would be enough, but it is slower, and nearly every batch has
-- only new messages.
--
-- This is a function because Postgres keeps a function's plans for as long as the connection lives: the same
-- SQL, sent as a statement, takes more than twice as long for ten messages. A named prepared statement
-- would keep its plan too, but it breaks behind a connection pooler.
--
-- UTC is given as an interval, because Postgres looks up the name of a time zone for each row. This and the
-- index without `slot` made a ledger entry 10 % faster.
--
-- check_salt comes last. `migrate accept-salt` locks `user_logins` before it changes the fingerprint, so a
-- batch that has already inserted its rows compares with the fingerprint that stays accepted until its
-- commit.

CREATE FUNCTION write_logins(
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
    INSERT INTO public.processed_messages (slot, sent_at, message_id)
    SELECT ((sent_at AT TIME ZONE INTERVAL '0')::date - DATE '1970-01-01') % 32, sent_at, message_id
    FROM (
        SELECT pg_catalog.unnest(sent_ats) AS sent_at, pg_catalog.unnest(message_ids) AS message_id
    ) AS message;

    INSERT INTO public.user_logins (
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
    PERFORM public.check_salt(salt);
    RETURN inserted;
END
$$;

REVOKE ALL ON FUNCTION write_logins(
    timestamptz[], uuid[], text[], text[], text[], text[], text[], integer[], text
) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION write_logins(
    timestamptz[], uuid[], text[], text[], text[], text[], text[], integer[], text
) TO login_writer;

-- Writes a batch of a FIFO queue: the same, and the messages' ids to the ledger of FIFO queues.
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
    INSERT INTO public.processed_fifo_messages (message_id, written_on)
    SELECT pg_catalog.unnest(message_ids), (pg_catalog.now() AT TIME ZONE INTERVAL '0')::date;

    RETURN public.write_logins(
        sent_ats, message_ids, user_ids, device_types, masked_ips, masked_device_ids, locales, app_versions, salt
    );
END
$$;

REVOKE ALL ON FUNCTION write_fifo_logins(
    timestamptz[], uuid[], text[], text[], text[], text[], text[], integer[], text
) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION write_fifo_logins(
    timestamptz[], uuid[], text[], text[], text[], text[], text[], integer[], text
) TO login_writer;

-- Writes a batch that write_logins could not write: a ledger already has some of its messages, or Postgres
-- refuses some of its rows. The function writes the other rows in one call.
--
-- It inserts the rows in parts. A part is a subtransaction. A part that succeeds is followed by one of twice
-- the size, a part that fails by one of a quarter, until the refused row is alone. So a row is refused because
-- it fails by itself, whatever its error code. The first part is one row: a batch in which all rows are refused
-- needs one try for each row. The rows come before the ledger, so the ledgers are read first.
--
-- `fifo_groups` has a number for each row of a FIFO queue, from 1, equal for the rows of a group; it is empty
-- for a standard queue. Rows of a FIFO queue must come in the order of the batch. After `time_limit_s` seconds
-- the function stops, so that the rows written so far can be committed.
--
-- Returns the number of rows inserted, and the number of rows suppressed: Postgres accepted them, but a trigger
-- or a rule inserted none. Then the numbers of the rows that failed (from 1), and for each of these the
-- SQLSTATE, or NULL for a row that is held back: on a FIFO queue a refused row holds back the later rows of
-- its group. Last, the numbers of the rows that were not tried before the time limit.
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
    INSERT INTO public.processed_messages (slot, sent_at, message_id)
    SELECT 0, sent_ats[1], message_ids[1] WHERE false;
    INSERT INTO public.processed_fifo_messages (message_id, written_on)
    SELECT message_ids[1], sent_ats[1]::date WHERE false;
    INSERT INTO public.user_logins (
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
        WHERE pg_attrdef.adrelid = 'public.user_logins'::pg_catalog.regclass
            AND CASE WHEN pg_class.relkind = 'S'
                THEN NOT pg_catalog.has_sequence_privilege(pg_class.oid, 'USAGE, UPDATE')
            END
    ) THEN
        RAISE insufficient_privilege USING MESSAGE = 'permission denied for a sequence of user_logins';
    END IF;

    PERFORM public.check_salt(salt);
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
                    (((sent_at AT TIME ZONE INTERVAL '0')::date - DATE '1970-01-01') % 32)::smallint AS slot,
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
                    SELECT true FROM public.processed_messages AS entry
                    WHERE entry.slot = message.slot
                        AND entry.sent_at = message.sent_at
                        AND entry.message_id = message.message_id
                    LIMIT 1
                ) IS NULL
                AND (
                    SELECT true FROM public.processed_fifo_messages AS entry
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
            INSERT INTO public.user_logins (
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
                INSERT INTO public.processed_fifo_messages (message_id, written_on)
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
            INSERT INTO public.processed_messages (slot, sent_at, message_id)
            SELECT
                ((sent_ats[number] AT TIME ZONE INTERVAL '0')::date - DATE '1970-01-01') % 32,
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
                SELECT FROM public.processed_messages AS entry
                WHERE entry.slot = (
                        ((sent_ats[due_rows[first_due]] AT TIME ZONE INTERVAL '0')::date - DATE '1970-01-01') % 32
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

REVOKE ALL ON FUNCTION write_logins_row_by_row(
    timestamptz[], uuid[], text[], text[], text[], text[], text[], integer[], text, integer[], double precision
) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION write_logins_row_by_row(
    timestamptz[], uuid[], text[], text[], text[], text[], text[], integer[], text, integer[], double precision
) TO login_writer;

-- The same for ingest functions from before the time limit. `fifo_groups` has the names of the groups.
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
    FROM public.write_logins_row_by_row(
        sent_ats, message_ids, user_ids, device_types, masked_ips, masked_device_ids, locales, app_versions, salt,
        COALESCE(numbered_groups, '{}'), 3600
    ) AS outcome;
END
$$;

REVOKE ALL ON FUNCTION write_logins_row_by_row(
    timestamptz[], uuid[], text[], text[], text[], text[], text[], integer[], text, text[]
) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION write_logins_row_by_row(
    timestamptz[], uuid[], text[], text[], text[], text[], text[], integer[], text, text[]
) TO login_writer;
