-- Writes messages of which the ledger holds none yet, as in nearly every batch. One that it does hold
-- violates the ledger's key, nothing of the batch is written, and write_missing.sql does it. (That
-- one alone would do; it takes half as long again.)
WITH arrived AS (
    SELECT
        *,
        -- The day in UTC, whatever the session's time zone.
        (sent_at AT TIME ZONE 'UTC')::date AS create_date
    FROM unnest(
        $1::timestamptz[], $2::uuid[],
        $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::integer[]
    ) AS message (
        sent_at, message_id,
        user_id, device_type, masked_ip, masked_device_id, locale, app_version
    )
    -- Once, and not for each row.
    WHERE (SELECT check_salt($9))
),
ledger AS (
    INSERT INTO processed_messages (slot, sent_at, message_id)
    SELECT (create_date - DATE '1970-01-01') % 32, sent_at, message_id
    FROM arrived
)
INSERT INTO user_logins (
    user_id, device_type, masked_ip, masked_device_id, locale, app_version, create_date
)
SELECT user_id, device_type, masked_ip, masked_device_id, locale, app_version, create_date
FROM arrived
