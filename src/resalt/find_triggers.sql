-- Returns the statements that disable the triggers of user_logins and its partitions, and those that enable them as
-- before: the rows are not new.
SELECT
    format('ALTER TABLE ONLY %s DISABLE TRIGGER %I', tgrelid::regclass, tgname),
    format(
        'ALTER TABLE ONLY %s ENABLE %s TRIGGER %I', tgrelid::regclass,
        CASE tgenabled WHEN 'A' THEN 'ALWAYS' WHEN 'R' THEN 'REPLICA' ELSE '' END, tgname
    )
FROM pg_trigger
WHERE NOT tgisinternal
    AND tgenabled <> 'D'
    AND tgrelid IN (SELECT 'user_logins'::regclass UNION SELECT relid FROM pg_partition_tree('user_logins'))
