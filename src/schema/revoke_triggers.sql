-- Revokes the right to create triggers on our tables from all roles except their owner. Default privileges of the
-- database give this right on new tables, and the next run would refuse it.
DO $$
DECLARE
    statement text;
BEGIN
    FOR statement IN
        SELECT format(
            'REVOKE TRIGGER ON %s FROM %s', pg_class.oid::regclass,
            CASE WHEN grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END
        )
        FROM pg_class
        CROSS JOIN LATERAL aclexplode(relacl) AS granted
        WHERE relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = current_schema())
            AND (
                relname IN ('user_logins', 'salt_fingerprint', 'processed_fifo_messages', 'login_etl_migrations')
                OR starts_with(relname, 'processed_messages')
            )
            AND pg_has_role(relowner, 'USAGE')
            AND privilege_type = 'TRIGGER'
            AND grantee <> relowner
    LOOP
        EXECUTE statement;
    END LOOP;
END
$$
