-- Finds the days of the logins that are there already. It reads the whole table, so it runs once.
CREATE TEMPORARY TABLE login_day ON COMMIT DROP AS
SELECT create_date::date AS day, count(*) AS logins FROM user_logins GROUP BY 1;

INSERT INTO day (day, logins)
SELECT day, logins FROM pg_temp.login_day WHERE day BETWEEN DATE '0001-01-01' AND DATE '9999-12-31';

UPDATE state
SET logins_without_date = (
    SELECT coalesce(sum(logins), 0)
    FROM pg_temp.login_day
    WHERE (day BETWEEN DATE '0001-01-01' AND DATE '9999-12-31') IS NOT TRUE
);
