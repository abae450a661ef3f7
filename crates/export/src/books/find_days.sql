-- Finds the days of the logins that are there already, and returns the number of rows that are in no day. It reads the
-- whole table, so it runs once. A day with more than $1 rows has 16 objects.
WITH found AS MATERIALIZED (
    SELECT create_date::date AS day, count(*) AS rows FROM user_logins GROUP BY 1
),
noted AS (
    INSERT INTO exports (day, objects)
    SELECT day, CASE WHEN rows > $1 THEN 16 ELSE 1 END
    FROM found
    WHERE day BETWEEN DATE '0001-01-01' AND DATE '9999-12-31'
    ON CONFLICT DO NOTHING
)
UPDATE state
SET rows_without_date = (
    SELECT coalesce(sum(rows), 0)
    FROM found
    WHERE (day BETWEEN DATE '0001-01-01' AND DATE '9999-12-31') IS NOT TRUE
)
RETURNING rows_without_date
