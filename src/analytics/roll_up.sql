-- Rolls up the days in pg_temp.picked. All of it is one transaction, so that no reader sees a part of it.

-- ANALYZE samples 3,000 rows of a temporary table: 30,000 would take a third of the time of a changed day.
SET LOCAL default_statistics_target = 10;

-- The rows of the days: user_logins is read once.
CREATE TEMPORARY TABLE login ON COMMIT DROP AS
SELECT
    create_date::date AS day,
    user_id::text COLLATE "C" AS user_id,
    masked_device_id::text COLLATE "C" AS masked_device_id,
    masked_ip::text COLLATE "C" AS masked_ip,
    device_type::text COLLATE "C" AS device_type,
    locale::text COLLATE "C" AS locale,
    app_version
FROM user_logins
-- The range lets Postgres use an index of the owner.
WHERE create_date::date BETWEEN (SELECT min(day) FROM pg_temp.picked) AND (SELECT max(day) FROM pg_temp.picked)
    AND create_date::date IN (SELECT day FROM pg_temp.picked);
ANALYZE pg_temp.login;

-- A table that is older than login-etl may hold values that are not masked.
CREATE TEMPORARY TABLE pair ON COMMIT DROP AS
SELECT day, field, token, user_id, count(*) AS logins
FROM pg_temp.login
CROSS JOIN LATERAL (VALUES ('device_id', masked_device_id), ('ip', masked_ip)) AS tokens (field, token)
-- Faster than one regular expression for the whole.
WHERE length(token) = 64 AND token !~ '[^0-9a-f]' AND length(user_id) <= 128
GROUP BY day, field, token, user_id;
ANALYZE pg_temp.pair;

-- What is different from the last roll-up of these days. In most runs this is little of a day.
CREATE TEMPORARY TABLE change ON COMMIT DROP AS
SELECT before.ctid AS row_before, day, field, token, user_id, pair.logins
FROM pg_temp.pair
FULL JOIN (
    SELECT ctid, * FROM token_user_day WHERE day IN (SELECT day FROM pg_temp.picked)
) AS before USING (day, field, token, user_id)
WHERE pair.logins IS DISTINCT FROM before.logins;
ANALYZE pg_temp.change;

DELETE FROM token_user_day
USING pg_temp.change
WHERE token_user_day.ctid = row_before AND change.logins IS NULL;

UPDATE token_user_day
SET logins = change.logins
FROM pg_temp.change
WHERE token_user_day.ctid = row_before AND change.logins IS NOT NULL;

INSERT INTO token_user_day (day, field, token, user_id, logins)
SELECT day, field, token, user_id, logins FROM pg_temp.change WHERE row_before IS NULL;

DELETE FROM daily WHERE day IN (SELECT day FROM pg_temp.picked);

INSERT INTO daily (day, dimension, value, logins, users)
SELECT day, dimension,
    CASE dimension
        WHEN 'device_type' THEN device_type
        WHEN 'locale' THEN locale
        WHEN 'app_version' THEN CASE
            WHEN app_version >= 0
                THEN concat_ws('.', app_version / 1000000, app_version / 1000 % 1000, app_version % 1000)
            ELSE app_version::text
        END
    END,
    logins, users
FROM (
    -- A bit of `grouping` is 1 for each column that the row is not grouped by.
    SELECT day, grouping(device_type, locale, app_version) AS not_grouped_by, device_type, locale, app_version,
        count(*) AS logins, count(DISTINCT user_id) AS users
    FROM pg_temp.login
    GROUP BY day, GROUPING SETS ((), (device_type), (locale), (app_version))
) AS counted
JOIN (VALUES (7, 'all'), (3, 'device_type'), (5, 'locale'), (6, 'app_version')) AS dimensions (not_grouped_by, dimension)
    USING (not_grouped_by);

UPDATE day
SET
    ledger_entries = coalesce((SELECT entries FROM pg_temp.ledger_day WHERE ledger_day.day = day.day), 0),
    logins = (SELECT count(*) FROM pg_temp.login WHERE login.day = day.day)
WHERE day IN (SELECT day FROM pg_temp.picked);

CREATE TEMPORARY TABLE through_before ON COMMIT DROP AS SELECT through FROM state;

-- The period never moves back: the days before it are merged.
UPDATE state
SET through = greatest(through, (
    SELECT max(day) FROM day, pg_temp.limits WHERE ledger_entries IS NOT NULL AND logins > 0 AND day <= today
));

-- Days that have left the last 28 days are merged into the row of their token and user.
CREATE TEMPORARY TABLE leaving ON COMMIT DROP AS
SELECT day FROM day, state WHERE NOT merged AND ledger_entries IS NOT NULL AND day < through - 27;

INSERT INTO token_user AS pair (field, token, user_id, logins, first_day, last_day, merged_logins, merged_last_day)
SELECT field, token, user_id, sum(logins), min(day), max(day), sum(logins), max(day)
FROM token_user_day
WHERE day IN (SELECT day FROM pg_temp.leaving)
GROUP BY field, token, user_id
ON CONFLICT (token, user_id, field) DO UPDATE
SET
    first_day = least(pair.first_day, excluded.first_day),
    merged_logins = coalesce(pair.merged_logins, 0) + excluded.merged_logins,
    merged_last_day = greatest(pair.merged_last_day, excluded.merged_last_day);

DELETE FROM token_user_day WHERE day IN (SELECT day FROM pg_temp.leaving);

UPDATE day SET merged = true WHERE day IN (SELECT day FROM pg_temp.leaving);

-- The tokens whose counts may have changed, by a login or because a period has moved.
CREATE TEMPORARY TABLE first_day_of ON COMMIT DROP AS
SELECT period, through - days + 1 AS first_day
FROM state, (VALUES ('1d', 1), ('7d', 7), ('28d', 28)) AS periods (period, days);

CREATE TEMPORARY TABLE touched ON COMMIT DROP AS
SELECT field, token FROM pg_temp.change
UNION
SELECT field, token
FROM token_period
JOIN pg_temp.first_day_of USING (period)
WHERE token_period.first_day < first_day_of.first_day
    AND (SELECT through FROM pg_temp.through_before) < (SELECT through FROM state);
ANALYZE pg_temp.touched;

CREATE TEMPORARY TABLE part ON COMMIT DROP AS
SELECT field, token, user_id, logins, day AS first_day, day AS last_day
FROM token_user_day JOIN pg_temp.touched USING (field, token)
UNION ALL
SELECT field, token, user_id, merged_logins, first_day, merged_last_day
FROM token_user JOIN pg_temp.touched USING (field, token)
WHERE merged_logins IS NOT NULL;
ANALYZE pg_temp.part;

CREATE TEMPORARY TABLE changed_pair ON COMMIT DROP AS
SELECT field, token, user_id, sum(logins)::bigint AS logins, min(first_day) AS first_day, max(last_day) AS last_day
FROM (SELECT DISTINCT field, token, user_id FROM pg_temp.change) AS changed
LEFT JOIN pg_temp.part USING (field, token, user_id)
GROUP BY field, token, user_id;
ANALYZE pg_temp.changed_pair;

DELETE FROM token_user
USING pg_temp.changed_pair
WHERE changed_pair.logins IS NULL AND token_user.token = changed_pair.token
    AND token_user.user_id = changed_pair.user_id AND token_user.field = changed_pair.field;

INSERT INTO token_user AS pair (field, token, user_id, logins, first_day, last_day)
SELECT field, token, user_id, logins, first_day, last_day FROM pg_temp.changed_pair WHERE logins IS NOT NULL
ON CONFLICT (token, user_id, field) DO UPDATE
SET logins = excluded.logins, first_day = excluded.first_day, last_day = excluded.last_day
WHERE (pair.logins, pair.first_day, pair.last_day)
    IS DISTINCT FROM (excluded.logins, excluded.first_day, excluded.last_day);

-- Most tokens have one user: they are in no period, and need no further count.
--
-- COUNT(DISTINCT user_id) does not add up over days, so the periods of a token are counted anew.
CREATE TEMPORARY TABLE counted ON COMMIT DROP AS
SELECT field, period, token, count(*) AS users, sum(logins)::bigint AS logins,
    min(first_day) AS first_day, max(last_day) AS last_day
FROM (
    SELECT field, token, user_id, period, sum(part.logins) AS logins,
        min(part.first_day) AS first_day, max(part.last_day) AS last_day
    FROM pg_temp.part
    JOIN (
        SELECT field, token FROM pg_temp.part GROUP BY field, token HAVING min(user_id) < max(user_id)
    ) AS shared USING (field, token)
    JOIN (SELECT * FROM pg_temp.first_day_of UNION ALL SELECT 'all', '-infinity') AS periods (period, from_day)
        ON part.first_day >= from_day
    GROUP BY field, token, user_id, period
) AS pair
GROUP BY field, period, token
HAVING count(*) >= 2;

DELETE FROM token_period
USING pg_temp.touched
WHERE token_period.token = touched.token AND token_period.field = touched.field
    AND NOT EXISTS (
        SELECT FROM pg_temp.counted
        WHERE counted.token = token_period.token AND counted.field = token_period.field
            AND counted.period = token_period.period
    );

INSERT INTO token_period AS before (field, period, token, users, logins, first_day, last_day)
SELECT field, period, token, users, logins, first_day, last_day FROM pg_temp.counted
ON CONFLICT (token, field, period) DO UPDATE
SET users = excluded.users, logins = excluded.logins, first_day = excluded.first_day, last_day = excluded.last_day
WHERE (before.users, before.logins, before.first_day, before.last_day)
    IS DISTINCT FROM (excluded.users, excluded.logins, excluded.first_day, excluded.last_day);

-- A popular token has so many users that no request should wait until they are counted and ordered.
CREATE TEMPORARY TABLE popular_part ON COMMIT DROP AS
SELECT field, token, user_id, part.logins, part.first_day, part.last_day
FROM pg_temp.part
JOIN (SELECT field, token FROM pg_temp.counted WHERE period = 'all' AND users > 200) AS popular USING (field, token);

DELETE FROM popular_token_user AS before
USING pg_temp.touched
WHERE before.token = touched.token AND before.field = touched.field;

INSERT INTO popular_token_user (field, token, user_id, logins, first_day, last_day, key)
SELECT field, token, user_id, logins, first_day, last_day,
    encode(sha256(convert_to((SELECT cursor_key FROM state) || user_id, 'UTF8')), 'hex')
FROM (
    SELECT field, token, user_id, sum(logins) AS logins, min(first_day) AS first_day, max(last_day) AS last_day,
        row_number() OVER (PARTITION BY field, token ORDER BY sum(logins) DESC, user_id) AS place
    FROM pg_temp.popular_part
    GROUP BY field, token, user_id
) AS placed
WHERE place <= 1000;

DELETE FROM popular_token_day AS before
USING pg_temp.touched
WHERE before.token = touched.token AND before.field = touched.field;

INSERT INTO popular_token_day (field, token, day, logins, users)
SELECT field, token, first_day, sum(logins), count(*)
FROM pg_temp.popular_part, state
WHERE first_day > through - 28
GROUP BY field, token, first_day;
