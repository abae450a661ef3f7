-- Returns a row if the partitions of user_logins are ours: what prevents this role from creating and dropping them, or
-- NULL, and the remedy.
SELECT
    CASE
        WHEN NOT pg_has_role(logins.relowner, 'USAGE')
            THEN format('%I may not create partitions of user_logins, which %I owns', current_user, owner)
        WHEN NOT has_schema_privilege(logins.relnamespace, 'CREATE')
            THEN format('%I may not create partitions in the schema %I', current_user, current_schema())
    END,
    CASE
        WHEN NOT pg_has_role(logins.relowner, 'USAGE') THEN format('GRANT %I TO %I', owner, current_user)
        ELSE format('GRANT CREATE ON SCHEMA %I TO %I', current_schema(), current_user)
    END
FROM pg_class AS logins
CROSS JOIN pg_get_userbyid(logins.relowner) AS owner
JOIN pg_inherits ON inhparent = logins.oid
JOIN pg_class AS other ON other.oid = inhrelid
WHERE logins.oid = to_regclass('user_logins')
    AND logins.relkind = 'p'
    AND other.relname = 'user_logins_other'
    AND obj_description(other.oid, 'pg_class') = 'login-etl day partitions, version 1'
