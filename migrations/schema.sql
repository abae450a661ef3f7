-- Schema as of V8__write_logins_row_by_row
--
-- The whole schema, as all migrations together leave it. This file is for reading: `migrate` does not
-- run it. A test compares it with the migrations, so it cannot go stale; README.md says how to update it.
--
-- The comments inside function bodies are part of the functions in the database. They must stay as the
-- migrations wrote them. `../accept_salt.sql` in them is src/schema/accept_salt.sql today.


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
-- Users have this table already, without a key: the first migration leaves an existing table as it is.
-- `create_date` is the UTC date on which the message was sent.

CREATE TABLE user_logins (
    user_id          varchar(128),
    device_type      varchar(32),
    masked_ip        varchar(256),
    masked_device_id varchar(256),
    locale           varchar(32),
    app_version      integer,
    create_date      date
);

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
    IF salt IS DISTINCT FROM (SELECT fingerprint FROM salt_fingerprint) THEN
        RETURN decide_salt(salt);
    END IF;
    RETURN true;
END
$$;

REVOKE ALL ON FUNCTION check_salt(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION check_salt(text) TO login_writer;

-- Stores the fingerprint of the first batch, and raises LE001 for any other fingerprint.
--
-- It runs with the owner's rights, because login_writer may not write to salt_fingerprint. The search path
-- is fixed, with temporary tables last: otherwise a caller's temporary table could take the place of
-- salt_fingerprint. The migration puts its current schema where this file has `public`.
CREATE FUNCTION decide_salt(salt text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
AS $$
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
    -- is selected than FROM unnest(…, …).
    INSERT INTO processed_messages (slot, sent_at, message_id)
    SELECT ((sent_at AT TIME ZONE INTERVAL '0')::date - DATE '1970-01-01') % 32, sent_at, message_id
    FROM (SELECT unnest(sent_ats) AS sent_at, unnest(message_ids) AS message_id) AS message;

    INSERT INTO user_logins (
        user_id, device_type, masked_ip, masked_device_id, locale, app_version, create_date
    )
    SELECT
        unnest(user_ids),
        unnest(device_types),
        unnest(masked_ips),
        unnest(masked_device_ids),
        unnest(locales),
        unnest(app_versions),
        -- The day in UTC, whatever the session's time zone.
        (unnest(sent_ats) AT TIME ZONE INTERVAL '0')::date;

    GET DIAGNOSTICS inserted = ROW_COUNT;

    -- Last, because whoever accepts another salt locks user_logins (see ../accept_salt.sql): only who has
    -- been let into the table sees the salt that it has from then on.
    PERFORM check_salt(salt);
    RETURN inserted;
END
$$;

REVOKE ALL ON FUNCTION write_logins(
    timestamptz[], uuid[], text[], text[], text[], text[], text[], integer[], text
) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION write_logins(
    timestamptz[], uuid[], text[], text[], text[], text[], text[], integer[], text
) TO login_writer;

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
