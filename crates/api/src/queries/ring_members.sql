-- The users of a ring with their logins on its devices, those with the most logins first. The key orders users with
-- equally many logins, and says nothing about a user to somebody who cannot read cursor_key.
SELECT user_id, devices, logins, first_day, last_day, key
FROM (
    SELECT
        user_id,
        count(DISTINCT token) AS devices,
        sum(login.logins)::bigint AS logins,
        min(day) AS first_day,
        max(day) AS last_day,
        encode(sha256(convert_to((SELECT cursor_key FROM {analytics}.freshness) || user_id, 'UTF8')), 'hex') AS key
    FROM {analytics}.ring_members
    JOIN {analytics}.token_user_day AS login USING (user_id)
    JOIN {analytics}.token_period AS shared USING (field, token)
    WHERE ring = $1 AND field = 'device_id' AND period = '28d' AND users <= 50
    GROUP BY user_id
) AS member
WHERE logins <= $2 AND (logins < $2 OR key > $3)
ORDER BY logins DESC, key
LIMIT $4
