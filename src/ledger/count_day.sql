SELECT $1 AS day, count(*) AS entries
FROM processed_messages
WHERE slot = ($1 - DATE '1970-01-01') % 32
    AND sent_at >= $1::timestamp AT TIME ZONE INTERVAL '0'
    AND sent_at < ($1 + 1)::timestamp AT TIME ZONE INTERVAL '0'
