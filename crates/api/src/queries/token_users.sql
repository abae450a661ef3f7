-- The users of a token, those with the most logins first. The key orders users with equally many logins, and says
-- nothing about a user to somebody who cannot read cursor_key.
SELECT user_id, logins, first_day, last_day, key
FROM (
    SELECT
        user_id,
        sum(logins)::bigint AS logins,
        min(first_day) AS first_day,
        max(last_day) AS last_day,
        encode(sha256(convert_to((SELECT cursor_key FROM {analytics}.freshness) || user_id, 'UTF8')), 'hex') AS key
    FROM {analytics}.token_user
    WHERE token = $1
    GROUP BY user_id
) AS counted
WHERE logins <= $2 AND (logins < $2 OR key > $3)
ORDER BY logins DESC, key
LIMIT $4
