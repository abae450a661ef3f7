-- The tokens that several users share, the most shared first.
SELECT token, users, logins, first_day, last_day
FROM {analytics}.token_period
WHERE field = $1 AND period = $2 AND users >= $3
    AND users <= $4 AND (users < $4 OR token > $5)
ORDER BY users DESC, token
LIMIT $6
