-- Groups of users that share devices, the largest first.
SELECT ring, users, devices, logins, first_day, last_day
FROM {analytics}.rings
WHERE users <= $1 AND (users < $1 OR ring > $2)
ORDER BY users DESC, ring
LIMIT $3
