SELECT slot, (sent_at AT TIME ZONE INTERVAL '0')::date AS day, count(*) AS entries
FROM processed_messages
GROUP BY slot, (sent_at AT TIME ZONE INTERVAL '0')::date
