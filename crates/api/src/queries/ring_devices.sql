-- The devices that connect the users of a ring. A device of more than 50 users connects nothing.
SELECT token, users, logins, first_day, last_day
FROM {analytics}.token_period
WHERE field = 'device_id' AND period = '28d' AND users <= 50
    AND token IN (
        SELECT token
        FROM {analytics}.ring_members
        JOIN {analytics}.token_user_day USING (user_id)
        WHERE ring = $1 AND field = 'device_id'
    )
    AND users <= $2 AND (users < $2 OR token > $3)
ORDER BY users DESC, token
LIMIT $4
