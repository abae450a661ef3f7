-- Writes messages of which the ledger holds none yet, as in nearly every batch, and returns how many
-- rows user_logins has more. One that the ledger does hold violates its key, nothing is written, and
-- ../write_missing.sql does it. (That one alone would do; it takes half as long again.)
--
-- It is a function because Postgres keeps the plans of one for as long as a connection lasts: sent as a
-- statement, a batch of ten messages took more than twice as long. A named prepared statement would do
-- that too, and would break behind a pooler.
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
    SELECT ((sent_at AT TIME ZONE 'UTC')::date - DATE '1970-01-01') % 32, sent_at, message_id
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
        (unnest(sent_ats) AT TIME ZONE 'UTC')::date;

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
