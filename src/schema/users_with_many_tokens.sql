-- The query of docs/privacy.md, "Who must not hold what", counted: it names no user.
SELECT count(*)
FROM (
    SELECT
    FROM user_logins
    WHERE create_date >= (now() AT TIME ZONE 'UTC')::date - 1
    GROUP BY user_id, create_date
    HAVING count(DISTINCT masked_ip) > 100 OR count(DISTINCT masked_device_id) > 100
) AS user_day
