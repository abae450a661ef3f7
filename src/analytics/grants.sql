-- Lets login_reader read the new schema, and nobody else do anything: default privileges of the database may give other
-- roles rights on new tables, among them the right to create triggers, which would run as the owner.
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
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO login_reader', current_schema());
    EXECUTE format('GRANT SELECT ON ALL TABLES IN SCHEMA %I TO login_reader', current_schema());
    EXECUTE format('GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA %I TO login_reader', current_schema());
END
$$
