-- The users of a token, their tokens, and the users of those tokens. A row is a token and a user who logged in with it.
-- A token of more than 50 users is a hub, which is shown without what is behind it; a row of depth 0 is such a hub, if
-- it is the first token. At most 200 tokens and users, 50 tokens of each user, and 2,000 rows. OFFSET 0 keeps Postgres
-- from joining the view token_user as a whole, which would read all tokens.
WITH root AS (
    SELECT field, token, users FROM {analytics}.token_period WHERE token = $1 AND period = 'all'
    UNION ALL
    -- A token with one user is not in token_period.
    (
        SELECT field, token, 1
        FROM {analytics}.token_user
        WHERE token = $1
            AND NOT EXISTS (SELECT FROM {analytics}.token_period WHERE token = $1 AND period = 'all')
        LIMIT 1
    )
    LIMIT 1
),
hop_1 AS (
    SELECT root.users AS token_users, used.*
    FROM root
    CROSS JOIN LATERAL (
        SELECT * FROM {analytics}.token_user WHERE token = root.token AND field = root.field OFFSET 0
    ) AS used
    WHERE root.users <= 50
),
user_tokens AS (
    SELECT used.*
    FROM hop_1
    CROSS JOIN LATERAL (
        SELECT *, count(*) OVER () AS tokens
        FROM {analytics}.token_user
        WHERE user_id = hop_1.user_id AND token <> $1
        ORDER BY logins DESC, field, token
        LIMIT 50
    ) AS used
    WHERE $2 >= 2
),
tokens AS (
    SELECT counted.*, COALESCE(shared.users, 1) AS users
    FROM (
        SELECT field, token, row_number() OVER (ORDER BY count(*) DESC, sum(logins) DESC, field, token) AS place
        FROM user_tokens
        GROUP BY field, token
    ) AS counted
    LEFT JOIN {analytics}.token_period AS shared
        ON shared.field = counted.field AND shared.token = counted.token AND shared.period = 'all'
),
kept_tokens AS (
    SELECT * FROM tokens WHERE place <= 199 - (SELECT count(*) FROM hop_1)
),
hop_2 AS (
    SELECT kept_tokens.users AS token_users, used.*
    FROM kept_tokens
    JOIN user_tokens AS used USING (field, token)
),
token_users AS (
    SELECT kept_tokens.users AS token_users, used.*
    FROM kept_tokens
    CROSS JOIN LATERAL (
        SELECT * FROM {analytics}.token_user
        WHERE token = kept_tokens.token AND field = kept_tokens.field
        OFFSET 0
    ) AS used
    WHERE $2 >= 3
        AND users BETWEEN 2 AND 50
        AND NOT EXISTS (SELECT FROM hop_2 WHERE hop_2.token = used.token AND hop_2.user_id = used.user_id)
),
users AS (
    SELECT user_id, row_number() OVER (ORDER BY count(*) DESC, sum(logins) DESC, user_id) AS place
    FROM token_users
    WHERE NOT EXISTS (SELECT FROM hop_1 WHERE hop_1.user_id = token_users.user_id)
    GROUP BY user_id
),
cut_users AS (
    SELECT user_id
    FROM users
    WHERE place > 199 - (SELECT count(*) FROM hop_1) - (SELECT count(*) FROM kept_tokens)
),
hop_3 AS (
    SELECT *
    FROM token_users
    WHERE NOT EXISTS (SELECT FROM cut_users WHERE cut_users.user_id = token_users.user_id)
),
found AS (
    SELECT 0 AS depth, field, token, users AS token_users, NULL AS user_id, NULL::bigint AS logins,
        NULL::date AS first_day, NULL::date AS last_day
    FROM root
    WHERE users > 50
    UNION ALL
    SELECT 1, field, token, token_users, user_id, logins, first_day, last_day FROM hop_1
    UNION ALL
    SELECT 2, field, token, token_users, user_id, logins, first_day, last_day FROM hop_2
    UNION ALL
    SELECT 3, field, token, token_users, user_id, logins, first_day, last_day FROM hop_3
)
SELECT
    depth, field, token, token_users, user_id, logins, first_day, last_day,
    count(*) OVER () > 2000
        OR EXISTS (SELECT FROM user_tokens WHERE tokens > 50)
        OR (SELECT count(*) FROM tokens) > (SELECT count(*) FROM kept_tokens)
        OR EXISTS (SELECT FROM cut_users) AS truncated
FROM found
ORDER BY depth, logins DESC, field, token, user_id
LIMIT 2000
