-- A partition has the entries of one slot, and almost always of one day: the ring comes back to a slot after 32 days. Then
-- its first and its last entry have the same day, and Postgres computes the day of these two only.
WITH bounds AS MATERIALIZED (
    SELECT
        slot::smallint,
        (
            SELECT (min(sent_at) AT TIME ZONE INTERVAL '0')::date
            FROM processed_messages WHERE processed_messages.slot = slots.slot
        ) AS first_day,
        (
            SELECT (max(sent_at) AT TIME ZONE INTERVAL '0')::date
            FROM processed_messages WHERE processed_messages.slot = slots.slot
        ) AS last_day
    FROM generate_series(0, 31) AS slots (slot)
)
SELECT
    slot,
    first_day AS day,
    (SELECT count(*) FROM processed_messages WHERE processed_messages.slot = bounds.slot) AS entries
FROM bounds
WHERE first_day = last_day
UNION ALL
SELECT slot, day, entries
FROM bounds
CROSS JOIN LATERAL (
    SELECT (sent_at AT TIME ZONE INTERVAL '0')::date AS day, count(*) AS entries
    FROM processed_messages
    WHERE processed_messages.slot = bounds.slot
    GROUP BY 1
) AS counted
WHERE first_day < last_day
