-- Schema as of V7__salt_in_place
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

-- SELECT, because ON CONFLICT … RETURNING in src/store/write_unseen.sql reads the returned columns.
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
-- If the ledger already has one of the messages, a unique index rejects the whole batch, and the writer
-- sends src/store/write_unseen.sql instead. That statement alone would be enough, but it takes 1.5 times
-- as long, and nearly every batch has only new messages.
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
