-- A login for programs that cannot log in by IAM, such as the Data API. It may do what login_reader may do.
DO $$
BEGIN
    IF pg_catalog.to_regrole('login_analyst') IS NULL THEN
        CREATE ROLE login_analyst;
    END IF;
    IF NOT pg_catalog.pg_has_role('login_analyst', 'login_reader', 'MEMBER') THEN
        GRANT login_reader TO login_analyst;
    END IF;
    ALTER ROLE login_analyst LOGIN;
END
$$
