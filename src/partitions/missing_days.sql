-- Returns a statement for each partition that is missing as of $1: those of the next 14 days, so that a run may fail
-- for two weeks, and those of the last 15 days, from which SQS can still deliver messages. A day whose rows are in
-- user_logins_other already stays there.
--
-- ATTACH, because CREATE TABLE with PARTITION OF would lock user_logins against batches. Postgres adds the owner's
-- indexes and triggers to the partition. The caller sets DateStyle to ISO.
WITH partition AS (
    SELECT
        coalesce(substring(bound FROM 'FROM \(''(.+)''\) TO')::date, '-infinity') AS first_day,
        coalesce(substring(bound FROM 'TO \(''(.+)''\)')::date, 'infinity') AS next_day
    FROM pg_inherits
    JOIN pg_class ON pg_class.oid = inhrelid
    CROSS JOIN pg_get_expr(relpartbound, pg_class.oid) AS bound
    WHERE inhparent = 'user_logins'::regclass AND relname <> 'user_logins_other'
)
SELECT format(
    'CREATE TABLE %1$I (
         LIKE user_logins INCLUDING ALL
         EXCLUDING COMMENTS EXCLUDING IDENTITY EXCLUDING INDEXES EXCLUDING STATISTICS
     );
     ALTER TABLE user_logins ATTACH PARTITION %1$I FOR VALUES FROM (%2$L) TO (%3$L)',
    to_char(day, '"user_logins_"YYYY_MM_DD'), day, day + 1
)
FROM (
    SELECT ($1 AT TIME ZONE 'UTC')::date + number AS day FROM generate_series(-15, 14) AS number
) AS needed
WHERE NOT EXISTS (SELECT FROM partition WHERE first_day <= day AND day < next_day)
    AND NOT EXISTS (SELECT FROM user_logins_other WHERE create_date = day)
ORDER BY day
