-- Picks the days that this step rolls up, the newest first. pg_temp.limits has one row: `now`, `today`, `final`, the
-- newest day whose messages SQS cannot deliver any more, and `max_logins`. pg_temp.ledger_day has the number of the
-- ledger's entries of each day.
--
-- A day has to be rolled up if the ledger has another number of entries of it than before.
INSERT INTO day (day, logins)
SELECT day, entries FROM pg_temp.ledger_day WHERE day BETWEEN DATE '0001-01-01' AND DATE '9999-12-31'
ON CONFLICT DO NOTHING;

-- If no roll-up ran for days, `migrate` may have emptied the ledger of days that no roll-up has seen.
INSERT INTO day (day, logins)
SELECT missed::date, 0
FROM state, pg_temp.limits, generate_series(
    (rolled_up_at AT TIME ZONE INTERVAL '0')::date - 15, today - 16, INTERVAL '1 day'
) AS missed
ON CONFLICT DO NOTHING;

-- Of a day that is 16 days old, `migrate` may have emptied the ledger already. If such a day is not closed yet, it is
-- rolled up once more.
UPDATE day
SET ledger_entries = NULL, logins = greatest(day.logins, counted.entries), closed = false
FROM (SELECT day.day, coalesce(entries, 0) AS entries FROM day LEFT JOIN pg_temp.ledger_day USING (day)) AS counted,
    pg_temp.limits
WHERE day.day = counted.day
    AND NOT merged
    -- A clock that was ahead has closed days too early.
    AND (NOT closed OR day.day > final)
    AND (ledger_entries IS DISTINCT FROM entries OR day.day <= today - 16);

CREATE TEMPORARY TABLE picked ON COMMIT DROP AS
SELECT day
FROM (
    SELECT day, sum(logins) OVER (ORDER BY day DESC) - logins AS logins_of_newer_days
    FROM day, pg_temp.limits
    WHERE ledger_entries IS NULL AND day <= today
) AS pending, pg_temp.limits
WHERE logins_of_newer_days < max_logins;

-- Without statistics, Postgres expects many days and reads whole tables.
ANALYZE pg_temp.picked;
