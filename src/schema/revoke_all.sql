-- Revokes what other roles than the owner may do with the current schema and everything in it: default privileges of the
-- database may give them rights on new tables, among them the right to create triggers, which would run as the owner.
DO $$
DECLARE
    statement text;
BEGIN
    FOR statement IN
        SELECT format(
            'REVOKE ALL ON %s FROM %s', object,
            CASE WHEN grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END
        )
        FROM (
            SELECT format('SCHEMA %I', nspname), nspowner, nspacl FROM pg_namespace WHERE nspname = current_schema()
            UNION ALL
            SELECT pg_class.oid::regclass::text, relowner, relacl
            FROM pg_class
            WHERE relkind IN ('r', 'v') AND relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = current_schema())
            UNION ALL
            SELECT format('FUNCTION %s', pg_proc.oid::regprocedure), proowner, coalesce(proacl, acldefault('f', proowner))
            FROM pg_proc
            WHERE pronamespace = (SELECT oid FROM pg_namespace WHERE nspname = current_schema())
        ) AS ours (object, owner, acl)
        CROSS JOIN LATERAL aclexplode(acl) AS granted
        WHERE grantee <> owner
        GROUP BY object, grantee
    LOOP
        EXECUTE statement;
    END LOOP;
END
$$
