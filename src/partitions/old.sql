-- Returns each partition of user_logins with days that are older than $2 days before $1 and today: its name, whether
-- all its days are, and a query that returns these days, if there are rows of them. Both clocks count, so that one
-- clock that is ahead drops nothing. The caller sets DateStyle to ISO.
SELECT
    quote_ident(relname),
    NOT is_other,
    CASE
        WHEN is_other THEN format(
            'SELECT array_agg(DISTINCT create_date)::text FROM %I WHERE create_date < %L', relname, limit_day
        )
        -- All rows of a partition of one day have this day.
        WHEN next_day - first_day = 1 THEN format(
            'SELECT array_agg(create_date)::text FROM (SELECT create_date FROM %I LIMIT 1) AS login', relname
        )
        ELSE format('SELECT array_agg(DISTINCT create_date)::text FROM %I', relname)
    END
FROM (
    SELECT
        relname,
        relname = 'user_logins_other' AS is_other,
        substring(bound FROM 'FROM \(''(.+)''\) TO')::date AS first_day,
        substring(bound FROM 'TO \(''(.+)''\)')::date AS next_day,
        (least($1, now()) AT TIME ZONE 'UTC')::date - $2 AS limit_day
    FROM pg_inherits
    JOIN pg_class ON pg_class.oid = inhrelid
    CROSS JOIN pg_get_expr(relpartbound, pg_class.oid) AS bound
    WHERE inhparent = 'user_logins'::regclass
) AS partition
WHERE is_other OR next_day <= limit_day
ORDER BY is_other, next_day
