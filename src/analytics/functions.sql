-- Functions that answer questions about a token, a user, a ring or days. Postgres needs longer to plan such a statement
-- than to run it. A function keeps its plan for the whole session, also behind a connection pooler.
--
-- With `use_column`, a name such as `logins`, which is a column and a result, means the column.

CREATE FUNCTION token_periods(of_token text)
RETURNS TABLE (field text, period text, users bigint, logins bigint, first_day date, last_day date, ring text)
LANGUAGE plpgsql STABLE ROWS 8
SET search_path FROM CURRENT SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    WITH shared AS (
        SELECT field, period, users, logins, first_day, last_day FROM token_period WHERE token = of_token
    ),
    -- token_period has only tokens with several users.
    unshared AS (
        SELECT field, 'all' AS period, count(*) AS users, sum(logins)::bigint AS logins, min(first_day) AS first_day,
            max(last_day) AS last_day
        FROM token_user
        WHERE token = of_token AND NOT EXISTS (SELECT FROM shared WHERE period = 'all')
        GROUP BY field
        UNION ALL
        SELECT used.field, days || 'd', used.users, used.logins, used.first_day, used.last_day
        FROM (VALUES (1), (7), (28)) AS period (days)
        CROSS JOIN LATERAL (
            SELECT field, count(DISTINCT user_id) AS users, sum(logins)::bigint AS logins, min(day) AS first_day,
                max(day) AS last_day
            FROM token_user_day
            WHERE token = of_token AND day > (SELECT through FROM state) - days
            GROUP BY field
        ) AS used
        WHERE NOT EXISTS (SELECT FROM shared WHERE shared.period = days || 'd')
    )
    SELECT field, period, users, logins, first_day, last_day,
        CASE WHEN field = 'device_id' AND EXISTS (
            SELECT FROM shared WHERE field = 'device_id' AND period = '28d' AND users <= 50
        ) THEN (
            -- All users of such a device are in one ring.
            SELECT ring
            FROM ring_members
            WHERE user_id = (SELECT user_id FROM token_user_day WHERE token = of_token AND field = 'device_id' LIMIT 1)
        ) END
    FROM (SELECT * FROM shared UNION ALL SELECT * FROM unshared) AS counted
    ORDER BY field, array_position(ARRAY['1d', '7d', '28d', 'all'], period);
END
$$;
COMMENT ON FUNCTION token_periods IS 'Users and logins of a token in each period, and the ring that it belongs to';

CREATE FUNCTION token_days(of_token text)
RETURNS TABLE (day date, logins bigint, users bigint)
LANGUAGE plpgsql STABLE ROWS 28
SET search_path FROM CURRENT SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT day, logins, users FROM popular_token_day WHERE token = of_token
    UNION ALL
    SELECT day, sum(logins)::bigint, count(DISTINCT user_id)
    FROM token_user_day
    WHERE token = of_token AND NOT EXISTS (SELECT FROM popular_token_user WHERE token = of_token)
    GROUP BY day
    ORDER BY day DESC;
END
$$;
COMMENT ON FUNCTION token_days IS
    'Logins and users of a token on each of the last 28 days that has logins, the last day first';

-- The key orders users with equally many logins, and says nothing about a user to somebody who cannot read cursor_key.
CREATE FUNCTION token_users(
    of_token text, from_logins bigint DEFAULT 9223372036854775807, after_key text DEFAULT '', max_rows bigint DEFAULT NULL
)
RETURNS TABLE (user_id text, logins bigint, first_day date, last_day date, key text)
LANGUAGE plpgsql STABLE ROWS 100
SET search_path FROM CURRENT SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
BEGIN
    -- Two statements: a plan for both cases may read the whole table of popular tokens and find nothing.
    IF EXISTS (SELECT FROM popular_token_user WHERE token = of_token) THEN
        RETURN QUERY
        SELECT user_id, logins, first_day, last_day, key
        FROM popular_token_user
        WHERE token = of_token AND logins <= from_logins AND (logins < from_logins OR key > after_key)
        ORDER BY logins DESC, key
        LIMIT max_rows;
    ELSE
        RETURN QUERY
        SELECT user_id, logins, first_day, last_day, key
        FROM (
            SELECT user_id, sum(logins)::bigint AS logins, min(first_day) AS first_day, max(last_day) AS last_day,
                encode(sha256(convert_to((SELECT cursor_key FROM state) || user_id, 'UTF8')), 'hex') AS key
            FROM token_user
            WHERE token = of_token
            GROUP BY user_id
        ) AS counted
        WHERE logins <= from_logins AND (logins < from_logins OR key > after_key)
        ORDER BY logins DESC, key
        LIMIT max_rows;
    END IF;
END
$$;
COMMENT ON FUNCTION token_users IS
    'The users of a token, at most 1,000 of them, those with the most logins first';

-- The rank orders the values of a day.
CREATE FUNCTION daily_values(
    of_dimension text, last_day date, days bigint DEFAULT 28, from_day date DEFAULT 'infinity',
    after_rank bigint DEFAULT 0, max_rows bigint DEFAULT NULL
)
RETURNS TABLE (day date, rank bigint, value text, logins bigint, users bigint)
LANGUAGE plpgsql STABLE ROWS 100
SET search_path FROM CURRENT SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT day, rank, value, logins, users
    FROM (
        SELECT day, row_number() OVER (PARTITION BY day ORDER BY logins DESC, value) AS rank, value, logins, users
        FROM daily
        WHERE dimension = of_dimension AND day >= last_day - (days - 1)::integer AND day <= least(last_day, from_day)
    ) AS ranked
    WHERE day < from_day OR rank > after_rank
    ORDER BY day DESC, rank
    LIMIT max_rows;
END
$$;
COMMENT ON FUNCTION daily_values IS
    'Logins and users of each day by the values of a dimension: the latest day and its most frequent value first';

CREATE FUNCTION user_tokens(
    of_user text, from_users bigint DEFAULT 9223372036854775807, after_token text DEFAULT '',
    max_rows bigint DEFAULT NULL
)
RETURNS TABLE (field text, token text, users bigint, logins bigint, first_day date, last_day date)
LANGUAGE plpgsql STABLE ROWS 10
SET search_path FROM CURRENT SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT field, token, users, logins, first_day, last_day
    FROM (
        SELECT field, token, COALESCE(shared.users, 1) AS users, used.logins, used.first_day, used.last_day
        FROM token_user AS used
        LEFT JOIN (SELECT * FROM token_period WHERE period = 'all') AS shared USING (field, token)
        WHERE user_id = of_user
    ) AS counted
    WHERE users <= from_users AND (users < from_users OR token > after_token)
    ORDER BY users DESC, token
    LIMIT max_rows;
END
$$;
COMMENT ON FUNCTION user_tokens IS 'The tokens of a user, the most shared first';

CREATE FUNCTION ring_devices(
    of_ring text, from_users bigint DEFAULT 9223372036854775807, after_token text DEFAULT '',
    max_rows bigint DEFAULT NULL
)
RETURNS TABLE (token text, users bigint, logins bigint, first_day date, last_day date)
LANGUAGE plpgsql STABLE ROWS 10
SET search_path FROM CURRENT SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT token, users, logins, first_day, last_day
    FROM token_period
    WHERE field = 'device_id' AND period = '28d' AND users <= 50
        AND token IN (
            SELECT token
            FROM ring_members
            JOIN token_user_day USING (user_id)
            WHERE ring = of_ring AND field = 'device_id'
        )
        AND users <= from_users AND (users < from_users OR token > after_token)
    ORDER BY users DESC, token
    LIMIT max_rows;
END
$$;
COMMENT ON FUNCTION ring_devices IS 'The devices that connect the users of a ring, the most shared first';

CREATE FUNCTION ring_users(
    of_ring text, from_logins bigint DEFAULT 9223372036854775807, after_key text DEFAULT '', max_rows bigint DEFAULT NULL
)
RETURNS TABLE (user_id text, devices bigint, logins bigint, first_day date, last_day date, key text)
LANGUAGE plpgsql STABLE ROWS 10
SET search_path FROM CURRENT SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    WITH used AS (
        SELECT user_id, token, sum(logins) AS logins, min(day) AS first_day, max(day) AS last_day
        FROM ring_members
        JOIN token_user_day USING (user_id)
        WHERE ring = of_ring AND field = 'device_id'
        GROUP BY user_id, token
    )
    SELECT user_id, devices, logins, first_day, last_day, key
    FROM (
        SELECT user_id, count(*) AS devices, sum(used.logins)::bigint AS logins, min(used.first_day) AS first_day,
            max(used.last_day) AS last_day,
            encode(sha256(convert_to((SELECT cursor_key FROM state) || user_id, 'UTF8')), 'hex') AS key
        FROM used
        JOIN token_period AS shared USING (token)
        WHERE field = 'device_id' AND period = '28d' AND users <= 50
        GROUP BY user_id
    ) AS counted
    WHERE logins <= from_logins AND (logins < from_logins OR key > after_key)
    ORDER BY logins DESC, key
    LIMIT max_rows;
END
$$;
COMMENT ON FUNCTION ring_users IS
    'The users of a ring with their logins on its devices, those with the most logins first';

-- A row is a token and a user who logged in with it. A token of more than 50 users is a hub, which is shown without its
-- users; a row of depth 0 is such a hub, if it is the first token. At most 200 tokens and users, 50 tokens of each user,
-- and 2,000 rows. Bitmap scans are off: for the few rows of a token or a user, a bitmap costs more time than it saves.
CREATE FUNCTION token_neighbours(of_token text, max_depth bigint DEFAULT 2)
RETURNS TABLE (
    depth integer, field text, token text, token_users bigint, user_id text, logins bigint, first_day date,
    last_day date, truncated boolean
)
LANGUAGE plpgsql STABLE ROWS 100
SET search_path FROM CURRENT SET plan_cache_mode = force_generic_plan SET enable_bitmapscan = off
AS $$
#variable_conflict use_column
DECLARE
    of_field text;
    of_users bigint;
BEGIN
    SELECT field, users INTO of_field, of_users FROM token_period WHERE token = of_token AND period = 'all';
    IF NOT FOUND THEN
        -- A token with one user is not in token_period.
        SELECT field, 1 INTO of_field, of_users FROM token_user WHERE token = of_token LIMIT 1;
    END IF;
    IF of_users > 50 THEN
        RETURN QUERY
        SELECT 0, of_field, of_token, of_users, NULL::text, NULL::bigint, NULL::date, NULL::date, false;
        RETURN;
    END IF;

    RETURN QUERY
    WITH hop_1 AS (
        SELECT user_id, logins, first_day, last_day FROM token_user WHERE token = of_token AND field = of_field
    ),
    all_user_tokens AS (
        SELECT field, token, user_id, logins, first_day, last_day,
            row_number() OVER (PARTITION BY user_id ORDER BY logins DESC, field, token) AS place
        FROM token_user
        WHERE max_depth >= 2 AND user_id = ANY (ARRAY(SELECT user_id FROM hop_1)) AND token <> of_token
    ),
    user_tokens AS (
        SELECT field, token, user_id, logins, first_day, last_day FROM all_user_tokens WHERE place <= 50
    ),
    tokens AS (
        SELECT field, token, count(*) AS hop_1_users, sum(logins) AS logins FROM user_tokens GROUP BY field, token
    ),
    kept_tokens AS (
        SELECT field, token, COALESCE(users, 1) AS users
        FROM (
            SELECT * FROM tokens ORDER BY hop_1_users DESC, logins DESC, field, token LIMIT 199 - of_users
        ) AS kept
        LEFT JOIN (SELECT field, token, users FROM token_period WHERE period = 'all') AS shared USING (field, token)
    ),
    token_users AS (
        SELECT field, token, users AS token_users, user_id, logins, first_day, last_day
        FROM kept_tokens
        JOIN token_user USING (field, token)
        WHERE max_depth >= 3
            AND users BETWEEN 2 AND 50
            AND user_id <> ALL (ARRAY(SELECT user_id FROM hop_1))
    ),
    cut_users AS (
        SELECT user_id
        FROM token_users
        GROUP BY user_id
        ORDER BY count(*) DESC, sum(logins) DESC, user_id
        OFFSET 199 - of_users - (SELECT count(*) FROM kept_tokens)
    ),
    found AS (
        SELECT 1 AS depth, of_field AS field, of_token AS token, of_users AS token_users, user_id, logins, first_day,
            last_day
        FROM hop_1
        UNION ALL
        SELECT 2, field, token, users, user_id, logins, first_day, last_day
        FROM kept_tokens
        JOIN user_tokens USING (field, token)
        UNION ALL
        SELECT 3, field, token, token_users, user_id, logins, first_day, last_day
        FROM token_users
        WHERE user_id <> ALL (ARRAY(SELECT user_id FROM cut_users))
    )
    SELECT
        depth, field, token, token_users, user_id, logins, first_day, last_day,
        count(*) OVER () > 2000
            OR EXISTS (SELECT FROM all_user_tokens WHERE place > 50)
            OR (SELECT count(*) FROM tokens) > 199 - of_users
            OR EXISTS (SELECT FROM cut_users) AS truncated
    FROM found
    ORDER BY depth, logins DESC, field, token, user_id
    LIMIT 2000;
END
$$;
COMMENT ON FUNCTION token_neighbours IS
    'The users of a token (depth 1), their other tokens (2), and the users of those tokens (3)';
