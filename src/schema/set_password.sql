-- Sets the password of the role login_etl.role to the SCRAM verifier login_etl.verifier, two settings of this
-- transaction. Postgres quotes a statement that fails in its log, so no statement that can fail holds the verifier.
DO $$
DECLARE
    role_name constant text := pg_catalog.current_setting('login_etl.role');
BEGIN
    -- Needs the same rights and the same lock as the next statement, so it fails or waits in its place.
    EXECUTE pg_catalog.format('ALTER ROLE %I PASSWORD NULL', role_name);
    EXECUTE pg_catalog.format('ALTER ROLE %I PASSWORD %L', role_name, pg_catalog.current_setting('login_etl.verifier'));
EXCEPTION WHEN OTHERS OR query_canceled THEN
    -- Raised again, because the first error also quotes its statement, as CONTEXT.
    RAISE EXCEPTION USING ERRCODE = SQLSTATE, MESSAGE = SQLERRM;
END
$$
