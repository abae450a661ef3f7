-- How many users and logins a token has in each period, and the ring that it belongs to.
WITH shared AS (
    SELECT field, period, users, logins, first_day, last_day
    FROM {analytics}.token_period
    WHERE token = $1
),
-- token_period has only tokens with several users.
unshared AS (
    SELECT field, 'all' AS period, count(*) AS users, sum(logins)::bigint AS logins, min(first_day) AS first_day,
        max(last_day) AS last_day
    FROM {analytics}.token_user
    WHERE token = $1 AND NOT EXISTS (SELECT FROM shared WHERE period = 'all')
    GROUP BY field
    UNION ALL
    SELECT field, days || 'd', count(DISTINCT user_id), sum(logins)::bigint, min(day), max(day)
    FROM {analytics}.token_user_day
    JOIN (VALUES (1), (7), (28)) AS period (days)
        ON day > (SELECT through FROM {analytics}.freshness) - days
    WHERE token = $1 AND NOT EXISTS (SELECT FROM shared WHERE period = days || 'd')
    GROUP BY field, days
)
SELECT field, period, users, logins, first_day, last_day,
    (
        SELECT ring
        FROM {analytics}.ring_members
        WHERE field = 'device_id'
            AND user_id = (SELECT min(user_id) FROM {analytics}.token_user_day WHERE token = $1)
            AND EXISTS (SELECT FROM shared WHERE period = '28d' AND users <= 50)
    ) AS ring
FROM (SELECT * FROM shared UNION ALL SELECT * FROM unshared) AS counted
ORDER BY field, array_position(ARRAY['1d', '7d', '28d', 'all'], period)
