-- The query of docs/privacy.md, "Who must not hold what", counted: it names no user.
SELECT pg_catalog.count(*)
FROM (
    SELECT
    FROM user_logins
    WHERE create_date >= (pg_catalog.now() AT TIME ZONE 'UTC')::date - 1
    GROUP BY user_id, create_date
    HAVING pg_catalog.count(DISTINCT masked_ip) > 100 OR pg_catalog.count(DISTINCT masked_device_id) > 100
) AS user_day
