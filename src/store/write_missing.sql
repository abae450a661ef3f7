-- Writes what is missing of a batch: the ledger takes every message that it does not hold yet, and
-- those alone become rows. Takes and returns what the function write_logins does.
WITH arrived AS (
    -- A message may be in its batch twice.
    SELECT DISTINCT ON (sent_at, message_id)
        *,
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
    ORDER BY sent_at, message_id
),
fresh AS (
    INSERT INTO processed_messages (slot, sent_at, message_id)
    SELECT (create_date - DATE '1970-01-01') % 32, sent_at, message_id
    FROM arrived
    ON CONFLICT DO NOTHING
    RETURNING sent_at, message_id
),
inserted AS (
    INSERT INTO user_logins (
        user_id, device_type, masked_ip, masked_device_id, locale, app_version, create_date
    )
    SELECT user_id, device_type, masked_ip, masked_device_id, locale, app_version, create_date
    FROM arrived
    JOIN fresh USING (sent_at, message_id)
    RETURNING 1
)
SELECT count(*) FROM inserted
