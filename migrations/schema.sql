-- Schema as of V14__erasure_list
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


-- Vault
--
-- The originals of masked values, sealed to a public key. It is empty unless it is turned on.
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

-- What the batches seal: rows with bodies of one stream and one length. A row for each value, or an index on random
-- tokens, would make a batch three times slower. vault_fold() empties the table, so a vacuum for its inserts would be
-- useless. A body of at most 8,000 bytes stays in its row: in the TOAST table each 2 KB would be a row and an entry of
-- an index.
CREATE TABLE vault_inbox (
    key_id       smallint    NOT NULL,
    entry_length integer     NOT NULL CHECK (entry_length >= 99),
    written_at   timestamptz NOT NULL DEFAULT now(),
    enc          bytea       NOT NULL CHECK (octet_length(enc) = 65),
    body         bytea       NOT NULL,
    CHECK (octet_length(body) > 0 AND octet_length(body) % entry_length = 0)
) WITH (
    autovacuum_vacuum_insert_threshold = -1, toast.autovacuum_vacuum_insert_threshold = -1, toast_tuple_target = 8160
);
-- With the bodies in it, the table is too large to be read for each step of the fold. New entries are always the last.
CREATE INDEX ON vault_inbox (written_at);
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
    stream_id    bigint   NOT NULL,
    key_id       smallint NOT NULL,
    sequence     smallint NOT NULL,
    field        "char"   NOT NULL,
    token        bytea    PRIMARY KEY,
    ciphertext   bytea    NOT NULL,
    sealed_token bytea
);
ALTER TABLE vault_sealed ALTER COLUMN ciphertext SET STORAGE EXTERNAL;
COMMENT ON TABLE vault_sealed IS 'The sealed value of each token';
COMMENT ON COLUMN vault_sealed.field IS 'i: ip, d: device_id';
COMMENT ON COLUMN vault_sealed.sealed_token IS
    'The token beside which the value was sealed, if the salt has changed since; otherwise null';

CREATE TABLE vault_erased (
    token       bytea       PRIMARY KEY,
    erased_at   timestamptz NOT NULL,
    never_again boolean     NOT NULL
);
COMMENT ON TABLE vault_erased IS
    'Tokens whose sealed value was erased. What was written before stays out of vault_sealed';
COMMENT ON COLUMN vault_erased.never_again IS 'Whether later values are kept out too';

-- In the order of S3, which compares bytes. No row is ever deleted: the list keeps its objects, too.
CREATE TABLE vault_listed (
    object_key text COLLATE "C" PRIMARY KEY
);
COMMENT ON TABLE vault_listed IS 'The objects of the erasure list whose erasures this database has';

-- No free text: it would become a copy of what it describes.
CREATE TABLE vault_audit (
    id             bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at             timestamptz NOT NULL DEFAULT clock_timestamp(),
    xid            xid8        NOT NULL DEFAULT pg_current_xact_id(),
    db_user        name        NOT NULL DEFAULT session_user,
    caller         text        NOT NULL CHECK (length(caller) BETWEEN 1 AND 2048),
    verb           text        NOT NULL CHECK (
        verb IN ('token', 'reveal', 'erase', 'erase-user', 'audit', 'verify', 'honey')
    ),
    field          text        CHECK (field IN ('ip', 'device_id')),
    token          bytea       CHECK (octet_length(token) = 32),
    subject        bytea       CHECK (octet_length(subject) = 32),
    reason         text        CHECK (reason IN ('incident', 'fraud', 'legal', 'data-subject', 'support', 'test')),
    ticket         text        CHECK (ticket ~ '^[A-Z][A-Z0-9]{1,9}-[0-9]{1,9}$'),
    taken_at       timestamptz,
    outcome        text        CHECK (outcome IN ('done', 'unknown', 'erased', 'unopenable', 'kms-failed', 'failed')),
    kms_request_id text        CHECK (kms_request_id ~ '^[A-Za-z0-9-]{1,64}$'),
    told_at        timestamptz,
    -- A schedule reads the audit and tries the values. It has no ticket.
    CHECK (verb IN ('token', 'audit', 'verify') OR (reason IS NOT NULL AND ticket IS NOT NULL)),
    CHECK ((token IS NOT NULL) = (verb IN ('token', 'reveal', 'erase', 'verify'))),
    CHECK ((subject IS NOT NULL) = (verb = 'erase-user')),
    CHECK ((outcome IS NULL) = (told_at IS NULL))
);
COMMENT ON TABLE vault_audit IS 'Who asked the vault for what, and why. Written and committed before the answer';
COMMENT ON COLUMN vault_audit.subject IS 'Keyed hash of the user id whose values were to be erased';
COMMENT ON COLUMN vault_audit.taken_at IS 'When the ciphertext was handed out, or the erasure began';

CREATE TABLE vault_honey (
    token      bytea       PRIMARY KEY CHECK (octet_length(token) = 32),
    entry      bigint      NOT NULL,
    planted_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE vault_honey IS 'Tokens that belong to no value. Whoever asks for one has found it where it was planted';
COMMENT ON COLUMN vault_honey.entry IS 'The entry of the audit with which the token was made';

-- The writer's functions have no SET search_path, because the triggers of user_logins would then run with it.
CREATE FUNCTION check_vault_key(key_sha256 bytea) RETURNS smallint
LANGUAGE plpgsql AS $$
DECLARE
    current_key smallint;
BEGIN
    SELECT id INTO current_key FROM public.vault_keys WHERE is_current AND sha256 = key_sha256;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the public key is not the current key of the vault' USING ERRCODE = 'LE003';
    END IF;
    RETURN current_key;
END
$$;

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
    current_key constant smallint := public.check_vault_key(key_sha256);
    inserted bigint;
BEGIN
    inserted := public.write_logins(
        sent_ats, message_ids, user_ids, device_types, masked_ips, masked_device_ids, locales, app_versions, salt
    );
    IF pg_catalog.cardinality(bodies) > 0 THEN
        INSERT INTO public.vault_inbox (key_id, enc, entry_length, body)
        SELECT current_key, pg_catalog.unnest(encs), pg_catalog.unnest(entry_lengths), pg_catalog.unnest(bodies);
    END IF;
    RETURN inserted;
END
$$;

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
    current_key constant smallint := public.check_vault_key(key_sha256);
    inserted bigint;
BEGIN
    inserted := public.write_fifo_logins(
        sent_ats, message_ids, user_ids, device_types, masked_ips, masked_device_ids, locales, app_versions, salt
    );
    IF pg_catalog.cardinality(bodies) > 0 THEN
        INSERT INTO public.vault_inbox (key_id, enc, entry_length, body)
        SELECT current_key, pg_catalog.unnest(encs), pg_catalog.unnest(entry_lengths), pg_catalog.unnest(bodies);
    END IF;
    RETURN inserted;
END
$$;

-- A row that is not written leaves no value in the vault, unless a row that is written has the same value.
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
    current_key constant smallint := public.check_vault_key(key_sha256);
    -- The numbers of the rows that are in a ledger already. Their values must not come back after an erasure.
    earlier_rows constant integer[] := ARRAY(
        SELECT number
        FROM pg_catalog.generate_subscripts(message_ids, 1) AS number
        WHERE EXISTS (
                SELECT FROM public.processed_messages AS entry
                WHERE entry.slot = (
                        ((sent_ats[number] AT TIME ZONE INTERVAL '0')::date - DATE '1970-01-01') % 32
                    )::smallint
                    AND entry.sent_at = sent_ats[number]
                    AND entry.message_id = message_ids[number]
            )
            OR fifo_groups[number] IS NOT NULL AND EXISTS (
                SELECT FROM public.processed_fifo_messages AS entry WHERE entry.message_id = message_ids[number]
            )
    );
BEGIN
    -- Without rows, this fails only if a table, a column or a privilege is missing.
    INSERT INTO public.vault_inbox (key_id, enc, entry_length, body)
    SELECT current_key, NULL::bytea, NULL::integer, NULL::bytea WHERE false;

    SELECT written.inserted, written.suppressed, written.failed_rows, written.failed_sqlstates, written.unreached_rows
    INTO inserted, suppressed, failed_rows, failed_sqlstates, unreached_rows
    FROM public.write_logins_row_by_row(
        sent_ats, message_ids, user_ids, device_types, masked_ips, masked_device_ids, locales, app_versions, salt,
        fifo_groups, time_limit_s
    ) AS written;

    INSERT INTO public.vault_inbox (key_id, enc, entry_length, body)
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


-- The functions of the owner and of the broker. The broker logs in as login_vault. It has no right on any table, and
-- may execute vault_ask, vault_take, vault_tell, vault_erase and vault_erase_user: src/schema/vault/grants.sql grants
-- this.
-- Lets one fold or erasure run at a time. Each of their statements must see what the transactions before have
-- committed, also if the caller has chosen another isolation.
CREATE FUNCTION vault_lock() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'the transaction must be READ COMMITTED' USING ERRCODE = 'invalid_transaction_state';
    END IF;
    LOCK TABLE public.vault_erased IN SHARE ROW EXCLUSIVE MODE;
END
$$;

-- Returns where the entry of a token begins in a body, from 0; NULL if there is none.
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
        IF (searched - 1) % entry_length = 3 THEN
            RETURN searched - 4;
        END IF;
    END LOOP;
END
$$;

-- Moves the oldest rows of vault_inbox into vault_sealed, and returns their number. A body of more than 8,000 bytes
-- counts as several rows. At most `most_rows` are moved, or more if the last row counts as several. Nothing is
-- opened. Of several values of a token, the value of the newest key stays, and of these the first.
CREATE FUNCTION vault_fold(most_rows integer) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET work_mem = '64MB' SET jit = off AS $$
DECLARE
    picked tid[];
    picked_rows bigint;
BEGIN
    PERFORM public.vault_lock();
    SELECT coalesce(array_agg(place), '{}'), coalesce(sum(rows), 0)
    INTO picked, picked_rows
    FROM (
        SELECT ctid AS place, rows, sum(rows) OVER (ORDER BY written_at, ctid) - rows AS rows_before
        FROM (
            SELECT ctid, written_at, (octet_length(body) + 7999) / 8000 AS rows
            FROM public.vault_inbox
            ORDER BY written_at
            LIMIT most_rows
        ) AS oldest
    ) AS counted
    WHERE rows_before < most_rows;

    INSERT INTO public.vault_streams (key_id, enc)
    SELECT DISTINCT ON (enc) key_id, enc
    FROM public.vault_inbox
    JOIN public.vault_keys ON vault_keys.id = key_id
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
                FROM public.vault_inbox
                JOIN public.vault_keys ON vault_keys.id = vault_inbox.key_id
                JOIN public.vault_streams ON vault_streams.enc = vault_inbox.enc
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
            SELECT before.key_id FROM public.vault_sealed AS before WHERE before.token = entry.token LIMIT 1
        ) AS key_before
        FROM (
            SELECT DISTINCT ON (token) *
            FROM cut
            WHERE NOT EXISTS (SELECT FROM public.vault_erased) OR (
                SELECT erasure.never_again OR cut.written_at <= erasure.erased_at
                FROM public.vault_erased AS erasure
                WHERE erasure.token = cut.token
                LIMIT 1
            ) IS NOT TRUE
            ORDER BY token, accepted_at DESC, written_at
        ) AS entry
    ),
    replaced AS (
        UPDATE public.vault_sealed AS sealed
        SET stream_id = newer.stream_id, key_id = newer.key_id, sequence = newer.sequence, field = newer.field,
            ciphertext = newer.ciphertext, sealed_token = NULL
        FROM (
            SELECT chosen.*
            FROM chosen
            JOIN public.vault_keys ON vault_keys.id = key_before
            WHERE key_before IS NOT NULL AND vault_keys.accepted_at < chosen.accepted_at
        ) AS newer
        WHERE sealed.token = newer.token
    )
    INSERT INTO public.vault_sealed (stream_id, key_id, sequence, field, token, ciphertext)
    SELECT stream_id, key_id, sequence, field, token, ciphertext FROM chosen WHERE key_before IS NULL;

    DELETE FROM public.vault_inbox WHERE ctid = ANY (picked);
    RETURN picked_rows;
END
$$;

-- Writes an entry of the audit, which vault_take, vault_erase and vault_erase_user require, and returns its
-- number. The caller must commit it first. An error quotes no argument.
CREATE FUNCTION vault_ask(
    caller text, verb text, field text, token bytea, subject bytea, reason text, ticket text
) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    entry bigint;
BEGIN
    INSERT INTO public.vault_audit (caller, verb, field, token, subject, reason, ticket)
    VALUES (caller, verb, field, token, subject, reason, ticket)
    RETURNING id INTO entry;
    RETURN entry;
EXCEPTION WHEN check_violation OR not_null_violation THEN
    RAISE EXCEPTION 'the entry of the audit is not complete or not in the right form'
        USING ERRCODE = 'invalid_parameter_value';
END
$$;

-- Uses up an entry of the audit, and returns it. The entry must be committed: whoever asked in this transaction
-- could roll it back after the answer. A value is handed out for a reveal, and to try whether it opens.
CREATE FUNCTION vault_use(entry bigint, for_verb text) RETURNS public.vault_audit
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    used public.vault_audit;
BEGIN
    UPDATE public.vault_audit AS audit
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

-- Writes everything that was committed before to the disk of the server. With synchronous_commit = off, which
-- every role may set, a committed entry of the audit would otherwise be lost in a crash.
--
-- Postgres does this before it truncates a table that was created in the same transaction, because no rollback can
-- restore what is in the file. The rows give the table a free space map: older minor versions do it only then.
CREATE FUNCTION vault_flush(entry bigint) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    name constant text := format('%I.%I', 'public', 'vault_flush_' || entry);
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

-- Hands out the sealed value of an entry's token, once. `state` is sealed, unknown or erased. The token that it
-- returns is the token beside which the value was sealed.
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
    wanted constant bytea := (public.vault_use(entry, 'reveal')).token;
BEGIN
    PERFORM public.vault_flush(entry);
    -- The first table twice, because a fold may move the value from the second table to the first table meanwhile.
    FOR attempt IN 1..2 LOOP
        SELECT CASE sealed.field WHEN 'i' THEN 'ip' ELSE 'device_id' END, vault_keys.public_key, vault_keys.kms_key,
            vault_streams.enc, sealed.sequence, sealed.ciphertext, coalesce(sealed.sealed_token, wanted)
        INTO field, public_key, kms_key, enc, sequence, ciphertext, token
        FROM public.vault_sealed AS sealed
        JOIN public.vault_streams ON vault_streams.id = sealed.stream_id
        JOIN public.vault_keys ON vault_keys.id = sealed.key_id
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
            SELECT inbox.*, public.vault_find(body, entry_length, wanted) AS start
            FROM public.vault_inbox AS inbox
            WHERE NOT EXISTS (
                SELECT FROM public.vault_erased AS erasure
                WHERE erasure.token = wanted AND (never_again OR inbox.written_at <= erased_at)
            )
            OFFSET 0
        ) AS found
        JOIN public.vault_keys ON vault_keys.id = found.key_id
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
        WHEN EXISTS (SELECT FROM public.vault_erased AS erasure WHERE erasure.token = wanted) THEN 'erased'
        ELSE 'unknown'
    END;
END
$$;

-- Notes once how an entry of the audit ended.
CREATE FUNCTION vault_tell(entry bigint, outcome text, kms_request_id text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    told_outcome constant text := outcome;
    told_request constant text := kms_request_id;
BEGIN
    IF told_outcome IS NULL THEN
        RAISE not_null_violation;
    END IF;
    UPDATE public.vault_audit AS audit
    SET outcome = told_outcome, kms_request_id = told_request, told_at = clock_timestamp()
    WHERE audit.id = entry AND audit.db_user = session_user AND audit.outcome IS NULL;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no such entry in the audit' USING ERRCODE = 'LE004';
    END IF;
EXCEPTION WHEN check_violation OR not_null_violation THEN
    RAISE EXCEPTION 'the outcome is not in the right form' USING ERRCODE = 'invalid_parameter_value';
END
$$;

-- Removes a token's sealed values, and notes the erasure, so that a batch that commits later cannot bring them
-- back. Returns whether there was a value.
CREATE FUNCTION vault_forget(forgotten bytea, for_ever boolean) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    was_sealed boolean;
    written record;
    start integer;
BEGIN
    INSERT INTO public.vault_erased AS before (token, erased_at, never_again)
    VALUES (forgotten, clock_timestamp(), for_ever)
    ON CONFLICT (token) DO UPDATE SET
        erased_at = excluded.erased_at,
        never_again = before.never_again OR excluded.never_again;

    DELETE FROM public.vault_sealed WHERE token = forgotten;
    was_sealed := FOUND;

    FOR written IN
        SELECT inbox.ctid AS place, body, entry_length
        FROM public.vault_inbox AS inbox
        WHERE public.vault_find(body, entry_length, forgotten) IS NOT NULL
    LOOP
        was_sealed := true;
        LOOP
            start := public.vault_find(written.body, written.entry_length, forgotten);
            EXIT WHEN start IS NULL;
            written.body := overlay(written.body PLACING ''::bytea FROM start + 1 FOR written.entry_length);
        END LOOP;
        IF written.body = ''::bytea THEN
            DELETE FROM public.vault_inbox WHERE ctid = written.place;
        ELSE
            UPDATE public.vault_inbox SET body = written.body WHERE ctid = written.place;
        END IF;
    END LOOP;
    RETURN was_sealed;
END
$$;

-- As vault_clear_rows(text[]), without the rows of the days after `until`: they were written after the erasure.
CREATE FUNCTION vault_clear_rows(tokens text[], until date) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET row_security = off AS $$
DECLARE
    prefix constant text := CASE WHEN 'public' = 'public' THEN '' ELSE 'public' || '_' END;
    -- The comments by which src/analytics.rs and src/lake.rs recognise their schemas. This function
    -- clears rollups of every version.
    analytics constant text := (
        SELECT quote_ident(nspname)
        FROM pg_namespace
        WHERE nspname = prefix || 'analytics'
            AND pg_get_userbyid(nspowner) = current_user
            AND obj_description(oid, 'pg_namespace') LIKE 'login-etl rollups, version %'
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
        EXECUTE format('LOCK TABLE %s.state IN SHARE ROW EXCLUSIVE MODE', analytics);
    END IF;

    -- For the triggers of the table, which may have bare names. The function's own setting returns at its end.
    PERFORM set_config('search_path', format('%I, pg_temp', 'public'), true);
    WITH changed AS (
        UPDATE public.user_logins
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
        EXECUTE format('SELECT %s.mark_changed(day) FROM unnest($1) AS day', lake) USING changed_days;
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
            EXECUTE format('DELETE FROM %s.%I WHERE %I = ANY ($1)', analytics, rollup.relname, rollup.attname)
            USING tokens;
        END LOOP;
        -- Later days may have rows of the tokens, whose counts were just deleted.
        EXECUTE format(
            'UPDATE %s.day SET ledger_entries = NULL, closed = false '
            'WHERE (day = ANY ($1) OR day > $2) AND NOT merged',
            analytics
        ) USING changed_days, until;
        EXECUTE format('UPDATE %s.state SET run = run + 1', analytics);
    END IF;
    RETURN changed_rows;
END
$$;

-- Removes tokens from user_logins and from what is derived from it, and returns the number of rows that had one.
CREATE FUNCTION vault_clear_rows(tokens text[]) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN public.vault_clear_rows(tokens, 'infinity');
END
$$;

-- Erases the sealed value of an entry's token and, if asked for, the token in user_logins.
CREATE FUNCTION vault_erase(
    entry bigint, never_again boolean, with_rows boolean, OUT erased boolean, OUT rows bigint
)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    wanted constant bytea := (public.vault_use(entry, 'erase')).token;
    was_erased boolean;
BEGIN
    PERFORM public.vault_lock();
    was_erased := EXISTS (SELECT FROM public.vault_erased WHERE token = wanted);
    erased := public.vault_forget(wanted, coalesce(never_again, false));
    rows := CASE WHEN with_rows THEN public.vault_clear_rows(ARRAY[encode(wanted, 'hex')]) ELSE 0 END;
    PERFORM public.vault_tell(
        entry, CASE WHEN erased OR rows > 0 THEN 'done' WHEN was_erased THEN 'erased' ELSE 'unknown' END, NULL
    );
END
$$;

-- Erases the sealed values of the tokens that only this user's rows have, and returns these tokens. Tokens that
-- rows of other users have too stay, and are returned as shared.
CREATE FUNCTION vault_erase_user(
    entry bigint, user_id text, never_again boolean, with_rows boolean,
    OUT erased text[], OUT shared text[], OUT rows bigint
)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET row_security = off AS $$
DECLARE
    erased_user constant text := user_id;
    erased_token text;
BEGIN
    PERFORM public.vault_use(entry, 'erase-user');
    PERFORM public.vault_lock();

    WITH own AS MATERIALIZED (
        SELECT DISTINCT token
        FROM public.user_logins AS logins
        CROSS JOIN LATERAL (VALUES (masked_ip::text), (masked_device_id::text)) AS tokens (token)
        WHERE logins.user_id = erased_user AND token ~ '^[0-9a-f]{64}$'
    ),
    others AS MATERIALIZED (
        SELECT DISTINCT token
        FROM public.user_logins AS logins
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
        PERFORM public.vault_forget(decode(erased_token, 'hex'), coalesce(never_again, false));
    END LOOP;
    rows := CASE WHEN with_rows THEN public.vault_clear_rows(erased) ELSE 0 END;
    PERFORM public.vault_tell(entry, CASE WHEN erased = '{}' THEN 'unknown' ELSE 'done' END, NULL);
END
$$;

-- Returns the fingerprint of the accepted salt, for the broker; NULL before the first batch.
CREATE FUNCTION vault_salt() RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN (SELECT fingerprint FROM public.salt_fingerprint);
END
$$;

-- Returns entries of a time, in the order of their numbers, without their tokens. Reading the audit takes an entry
-- of its own.
CREATE FUNCTION vault_entries(entry bigint, from_at timestamptz, to_at timestamptz, after bigint, most integer)
RETURNS TABLE (
    id bigint, at timestamptz, caller text, verb text, field text, reason text, ticket text, outcome text,
    kms_request_id text, taken boolean
)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM public.vault_use(entry, 'audit');
    PERFORM public.vault_flush(entry);
    RETURN QUERY
    SELECT audit.id, audit.at, audit.caller, audit.verb, audit.field, audit.reason, audit.ticket, audit.outcome,
        audit.kms_request_id, audit.taken_at IS NOT NULL
    FROM public.vault_audit AS audit
    WHERE audit.id > after AND audit.at >= from_at AND audit.at < to_at
    ORDER BY audit.id
    LIMIT least(most, 1000);
END
$$;

-- Returns the keys, the newest first, and the number of values that are sealed to each, if asked for: to count
-- reads the whole table. Values that are not folded yet are not counted.
CREATE FUNCTION vault_key_states(counted boolean)
RETURNS TABLE (
    id smallint, sha256 bytea, kms_key text, accepted_at timestamptz, is_current boolean, sealed bigint
)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN QUERY
    WITH numbers AS (
        SELECT value.key_id, count(*) AS sealed FROM public.vault_sealed AS value WHERE counted GROUP BY value.key_id
    )
    SELECT each.id, each.sha256, each.kms_key, each.accepted_at, each.is_current,
        CASE WHEN counted THEN coalesce(numbers.sealed, 0) END
    FROM public.vault_keys AS each
    LEFT JOIN numbers ON numbers.key_id = each.id
    ORDER BY each.is_current DESC, each.accepted_at DESC, each.id;
END
$$;

-- Chooses values at random, and writes an entry of the audit for each, with the verb verify. There is a value of
-- each key, and at most half of the values are not folded yet. The caller must commit the entries first.
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
    FROM public.vault_sealed AS value
    WHERE value.ctid = ANY (ARRAY(SELECT max(each.ctid) FROM public.vault_sealed AS each GROUP BY each.key_id));

    from_inbox := greatest(least(most - cardinality(tokens), (most + 1) / 2), 0);
    FOR picked_token, picked_key IN
        SELECT substr(batch.body, drawn.place * batch.entry_length + 4, 32), batch.key_id
        FROM (
            SELECT inbox.key_id, inbox.entry_length, inbox.body, inbox.written_at
            FROM public.vault_inbox AS inbox
            ORDER BY random()
            LIMIT from_inbox
        ) AS batch
        CROSS JOIN LATERAL (
            SELECT floor(random() * (octet_length(batch.body) / batch.entry_length))::integer AS place
            FROM generate_series(1, from_inbox)
        ) AS drawn
        WHERE NOT EXISTS (
            SELECT FROM public.vault_erased AS erasure
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
            FROM public.vault_sealed AS value
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
        entries := entries || public.vault_ask(caller, 'verify', NULL, picked_token, NULL, NULL, NULL);
    END LOOP;
END
$$;

-- Keeps honey tokens, for an entry of the audit.
CREATE FUNCTION vault_plant(entry bigint, tokens bytea[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM public.vault_use(entry, 'honey');
    IF (cardinality(tokens) BETWEEN 1 AND 100) IS NOT TRUE THEN
        RAISE EXCEPTION 'the number of tokens is not 1 to 100' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    INSERT INTO public.vault_honey (token, entry) SELECT unnest(tokens), vault_plant.entry;
    PERFORM public.vault_tell(entry, 'done', NULL);
EXCEPTION WHEN check_violation OR not_null_violation OR unique_violation THEN
    RAISE EXCEPTION 'a token has not 32 bytes, or exists already' USING ERRCODE = 'invalid_parameter_value';
END
$$;

-- Whether the token of an entry that was used is a honey token.
CREATE FUNCTION vault_is_honey(entry bigint) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN EXISTS (
        SELECT
        FROM public.vault_audit AS audit
        JOIN public.vault_honey AS honey ON honey.token = audit.token
        WHERE audit.id = vault_is_honey.entry AND audit.db_user = session_user AND audit.taken_at IS NOT NULL
    );
END
$$;

-- Refuses tokens that this transaction has not erased for this entry of the audit.
CREATE FUNCTION vault_check_erasing(entry bigint, tokens text[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT EXISTS (
            SELECT FROM public.vault_audit AS audit
            WHERE audit.id = entry
                AND audit.verb IN ('erase', 'erase-user')
                AND audit.db_user = session_user
                AND audit.taken_at >= now()
        )
        OR EXISTS (
            SELECT FROM unnest(tokens) AS wanted
            WHERE NOT EXISTS (
                SELECT FROM public.vault_erased AS erasure
                WHERE erasure.token = decode(wanted, 'hex') AND erasure.erased_at >= now()
            )
        )
    THEN
        RAISE EXCEPTION 'there is no such entry in the audit' USING ERRCODE = 'LE004';
    END IF;
END
$$;

-- Notes that the erasure of an entry, in this transaction, is in the erasure list, and returns the key and the
-- content of its object. The caller writes the object before it commits: the list then has each erasure of the
-- database. An erasure that is only in the list is replayed.
CREATE FUNCTION vault_list(
    entry bigint, tokens text[], OUT object_key text, OUT erased_at text, OUT salt_fingerprint text
)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM public.vault_check_erasing(entry, tokens);
    erased_at := to_char(
        (
            SELECT max(erasure.erased_at)
            FROM public.vault_erased AS erasure
            WHERE erasure.token IN (SELECT decode(listed, 'hex') FROM unnest(tokens) AS listed)
        ) AT TIME ZONE 'UTC',
        'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'
    );
    object_key := format('erasures/%s-%s-%s.json', erased_at, entry, gen_random_uuid());
    salt_fingerprint := (SELECT fingerprint FROM public.salt_fingerprint);
    INSERT INTO public.vault_listed VALUES (object_key);
END
$$;

-- Removes tokens that this transaction has erased from user_logins, too, and returns the number of rows. It is a
-- step of its own, because it may take longer than the caller waits: the object is in the list before.
CREATE FUNCTION vault_erase_rows(entry bigint, tokens text[]) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET row_security = off AS $$
DECLARE
    cleared bigint;
BEGIN
    PERFORM public.vault_check_erasing(entry, tokens);
    cleared := public.vault_clear_rows(tokens);
    UPDATE public.vault_audit AS audit SET outcome = 'done' WHERE audit.id = entry AND cleared > 0;
    RETURN cleared;
END
$$;

-- Repeats erasures of the erasure list, each as of its own time, and notes their objects. `listed` is an array of
-- objects with the keys object_key, erased_at, tokens, never_again, rows and salt_fingerprint. Erasures that the
-- database has are left out. The objects of another salt are returned instead: their tokens say nothing here.
CREATE FUNCTION vault_replay(
    listed jsonb, OUT erasures bigint, OUT tokens bigint, OUT rows bigint, OUT of_other_salts text[]
)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET row_security = off AS $$
DECLARE
    accepted constant text := (SELECT fingerprint FROM public.salt_fingerprint);
    missing jsonb;
    forgotten bytea[];
    cleared record;
BEGIN
    PERFORM public.vault_lock();

    SELECT
        coalesce(jsonb_agg(object) FILTER (WHERE NOT is_other), '[]'),
        coalesce(array_agg(object ->> 'object_key') FILTER (WHERE is_other), '{}')
    INTO missing, of_other_salts
    FROM (
        SELECT object, coalesce(object ->> 'salt_fingerprint' <> accepted, false) AS is_other
        FROM jsonb_array_elements(listed) AS object
        WHERE NOT EXISTS (
            SELECT FROM public.vault_listed AS known WHERE known.object_key = object ->> 'object_key'
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
        INSERT INTO public.vault_erased AS before (token, erased_at, never_again)
        SELECT token, erased_at, never_again FROM erasure ORDER BY token
        ON CONFLICT (token) DO UPDATE SET
            erased_at = greatest(before.erased_at, excluded.erased_at),
            never_again = before.never_again OR excluded.never_again
        WHERE before.erased_at < excluded.erased_at OR excluded.never_again > before.never_again
        RETURNING token
    )
    SELECT coalesce(array_agg(token), '{}') INTO forgotten FROM noted;
    tokens := cardinality(forgotten);

    DELETE FROM public.vault_sealed WHERE token = ANY (forgotten);

    IF tokens > 0 THEN
        WITH scrubbed AS MATERIALIZED (
            SELECT place, string_agg(entry, '' ORDER BY start) FILTER (WHERE NOT is_erased) AS body
            FROM (
                SELECT place, start, substr(body, start + 1, entry_length) AS entry, EXISTS (
                    SELECT FROM public.vault_erased AS erasure
                    WHERE erasure.token = substr(body, start + 4, 32)
                        AND (never_again OR written_at <= erasure.erased_at)
                ) AS is_erased
                FROM (
                    -- The concatenation reads the body once.
                    SELECT ctid AS place, entry_length, written_at, body || ''::bytea AS body
                    FROM public.vault_inbox
                    OFFSET 0
                ) AS whole
                CROSS JOIN LATERAL generate_series(0, octet_length(body) - 1, entry_length) AS start
            ) AS entries
            GROUP BY place
            HAVING bool_or(is_erased)
        ),
        emptied AS (
            DELETE FROM public.vault_inbox USING scrubbed WHERE ctid = place AND scrubbed.body IS NULL
        )
        UPDATE public.vault_inbox SET body = scrubbed.body
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
        rows := rows + public.vault_clear_rows(cleared.of_rows, cleared.until);
    END LOOP;

    INSERT INTO public.vault_listed (object_key)
    SELECT object ->> 'object_key' FROM jsonb_array_elements(missing) AS object
    ON CONFLICT DO NOTHING;
END
$$;


-- Nobody but the owner and the functions may touch these tables and functions. The migration also revokes what default
-- privileges of the database give others.
REVOKE ALL ON FUNCTION check_vault_key(bytea) FROM PUBLIC;
REVOKE ALL ON FUNCTION vault_write_logins(
    timestamptz[], uuid[], text[], text[], text[], text[], text[], integer[], text, bytea, bytea[], integer[],
    bytea[]
) FROM PUBLIC;
REVOKE ALL ON FUNCTION vault_write_fifo_logins(
    timestamptz[], uuid[], text[], text[], text[], text[], text[], integer[], text, bytea, bytea[], integer[],
    bytea[]
) FROM PUBLIC;
REVOKE ALL ON FUNCTION vault_write_logins_row_by_row(
    timestamptz[], uuid[], text[], text[], text[], text[], text[], integer[], text, integer[], double precision,
    bytea, bytea[], integer[], bytea[]
) FROM PUBLIC;
REVOKE ALL ON FUNCTION vault_lock() FROM PUBLIC;
REVOKE ALL ON FUNCTION vault_find(bytea, integer, bytea) FROM PUBLIC;
REVOKE ALL ON FUNCTION vault_fold(integer) FROM PUBLIC;
REVOKE ALL ON FUNCTION vault_ask(text, text, text, bytea, bytea, text, text) FROM PUBLIC;
REVOKE ALL ON FUNCTION vault_use(bigint, text) FROM PUBLIC;
REVOKE ALL ON FUNCTION vault_flush(bigint) FROM PUBLIC;
REVOKE ALL ON FUNCTION vault_take(bigint) FROM PUBLIC;
REVOKE ALL ON FUNCTION vault_tell(bigint, text, text) FROM PUBLIC;
REVOKE ALL ON FUNCTION vault_forget(bytea, boolean) FROM PUBLIC;
REVOKE ALL ON FUNCTION vault_clear_rows(text[]) FROM PUBLIC;
REVOKE ALL ON FUNCTION vault_erase(bigint, boolean, boolean) FROM PUBLIC;
REVOKE ALL ON FUNCTION vault_erase_user(bigint, text, boolean, boolean) FROM PUBLIC;
REVOKE ALL ON FUNCTION vault_salt() FROM PUBLIC;
REVOKE ALL ON FUNCTION vault_entries(bigint, timestamptz, timestamptz, bigint, integer) FROM PUBLIC;
REVOKE ALL ON FUNCTION vault_key_states(boolean) FROM PUBLIC;
REVOKE ALL ON FUNCTION vault_sample(text, integer) FROM PUBLIC;
REVOKE ALL ON FUNCTION vault_plant(bigint, bytea[]) FROM PUBLIC;
REVOKE ALL ON FUNCTION vault_is_honey(bigint) FROM PUBLIC;
REVOKE ALL ON FUNCTION vault_check_erasing(bigint, text[]) FROM PUBLIC;
REVOKE ALL ON FUNCTION vault_list(bigint, text[]) FROM PUBLIC;
REVOKE ALL ON FUNCTION vault_erase_rows(bigint, text[]) FROM PUBLIC;
REVOKE ALL ON FUNCTION vault_clear_rows(text[], date) FROM PUBLIC;
REVOKE ALL ON FUNCTION vault_replay(jsonb) FROM PUBLIC;

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
