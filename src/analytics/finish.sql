-- Closes the final days, and stores how fresh the answers are. pg_temp.limits has the day.
UPDATE day
SET closed = true
FROM pg_temp.limits
WHERE NOT closed AND ledger_entries IS NOT NULL AND day <= final;

UPDATE state
SET
    run = run + (
        rolled_up_at IS NULL
        OR EXISTS (SELECT FROM pg_temp.picked)
        OR (state.days_left, state.logins_without_day) IS DISTINCT FROM (now_left.days, now_left.logins_without_day)
    )::integer,
    rolled_up_at = now_left.now,
    days_left = now_left.days,
    logins_without_day = now_left.logins_without_day
FROM (
    SELECT
        now,
        (SELECT count(*) FROM day WHERE ledger_entries IS NULL AND day <= today) AS days,
        (SELECT coalesce(sum(logins), 0) FROM day WHERE ledger_entries IS NULL AND day > today)
            + (SELECT logins_without_date FROM state) AS logins_without_day
    FROM pg_temp.limits
) AS now_left;

SET LOCAL default_statistics_target TO DEFAULT;

-- Autovacuum would update the statistics a minute later. Until then Postgres would read whole tables for one token.
DO $$
BEGIN
    IF (SELECT sum(logins) FROM day JOIN pg_temp.picked USING (day))
        >= (SELECT sum(logins) FROM day WHERE ledger_entries IS NOT NULL) / 10
    THEN
        ANALYZE token_user_day, token_user, token_period, popular_token_user, popular_token_day, daily, rings,
            ring_members;
    END IF;
END
$$;
