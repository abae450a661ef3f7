-- Revokes all rights on the partitions of user_logins from other roles: the rights on user_logins count, with its row
-- security. Default privileges of the database may give rights on new tables.
DO $$
DECLARE
    statement text;
BEGIN
    FOR statement IN
        SELECT format(
            'REVOKE ALL ON %s FROM %s', pg_class.oid::regclass,
            CASE WHEN grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END
        )
        FROM pg_inherits
        JOIN pg_class ON pg_class.oid = inhrelid
        CROSS JOIN LATERAL aclexplode(relacl) AS granted
        WHERE inhparent = to_regclass('user_logins')
            AND relname ~ '^user_logins_(other|[0-9]{4}_[0-9]{2}_[0-9]{2})$'
            AND pg_has_role(relowner, 'USAGE')
            AND grantee <> relowner
        GROUP BY pg_class.oid, grantee
    LOOP
        EXECUTE statement;
    END LOOP;
END
$$
