-- Inserts rows and as many ledger entries, all of one day: the ledger has one partition per day, and
-- only the size of that partition can slow down an insert.
WITH message AS (
    SELECT
        day + (now() - day) * number / %(rows)s AS sent_at,
        number
    FROM
        generate_series(1, %(rows)s) AS number,
        (SELECT date_trunc('day', now(), 'UTC') AS day) AS today
),
ledger AS (
    INSERT INTO processed_messages (slot, sent_at, message_id)
    SELECT
        ((sent_at AT TIME ZONE 'UTC')::date - DATE '1970-01-01') %% 32,
        sent_at,
        gen_random_uuid()
    FROM message
)
INSERT INTO user_logins (
    user_id, device_type, masked_ip, masked_device_id, locale, app_version, create_date
)
SELECT
    lpad(to_hex(number), 36, '0'),
    'android',
    lpad(to_hex(number), 64, '0'),
    lpad(to_hex(number), 64, 'f'),
    'RU',
    2003000,
    (sent_at AT TIME ZONE 'UTC')::date
FROM message
