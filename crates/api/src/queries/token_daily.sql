-- The logins and the different users of a token on each of the last 28 days that has logins.
SELECT day, sum(logins)::bigint AS logins, count(DISTINCT user_id) AS users
FROM {analytics}.token_user_day
WHERE token = $1
GROUP BY day
ORDER BY day DESC
