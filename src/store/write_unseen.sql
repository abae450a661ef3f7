-- Writes the messages of a batch that the ledger does not have yet, and returns the number of rows inserted
-- into user_logins. The parameters are those of the function write_logins; $9 is the salt's fingerprint.
WITH batch AS (
    -- SQS can deliver a message twice in one batch.
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
    -- The subquery makes Postgres call check_salt once, not for each row.
    WHERE (SELECT check_salt($9))
    ORDER BY sent_at, message_id
),
new_messages AS (
    INSERT INTO processed_messages (slot, sent_at, message_id)
    SELECT (create_date - DATE '1970-01-01') % 32, sent_at, message_id
    FROM batch
    ON CONFLICT DO NOTHING
    RETURNING sent_at, message_id
),
inserted AS (
    INSERT INTO user_logins (
        user_id, device_type, masked_ip, masked_device_id, locale, app_version, create_date
    )
    SELECT user_id, device_type, masked_ip, masked_device_id, locale, app_version, create_date
    FROM batch
    JOIN new_messages USING (sent_at, message_id)
    RETURNING 1
)
SELECT count(*) FROM inserted
