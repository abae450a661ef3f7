-- Writes a batch of which the ledger holds nothing yet, which is nearly every batch. One statement
-- is one transaction: a message that the ledger does hold violates its key, nothing is written, and
-- write_missing.sql does it. (That one alone would do; it takes half as long again.)
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
