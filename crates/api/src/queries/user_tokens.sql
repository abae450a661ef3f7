-- The tokens of a user, the most shared first.
SELECT field, token, users, logins, first_day, last_day
FROM (
    SELECT field, token, COALESCE(shared.users, 1) AS users, used.logins, used.first_day, used.last_day
    FROM {analytics}.token_user AS used
    LEFT JOIN (SELECT * FROM {analytics}.token_period WHERE period = 'all') AS shared USING (field, token)
    WHERE user_id = $1
) AS counted
WHERE users <= $2 AND (users < $2 OR token > $3)
ORDER BY users DESC, token
LIMIT $4
