-- Creates the login of the analysts' API, which may do what login_reader may do. The settings protect the database from
-- a mistake of the API. They are no rights: the role may change its own settings. For a statement
-- over a day of logins, Postgres would generate machine code and start more processes: both take longer than the
-- statement itself.
DO $$
DECLARE
    alter_role constant text :=
        pg_catalog.format('ALTER ROLE login_api IN DATABASE %I SET ', pg_catalog.current_database());
BEGIN
    IF pg_catalog.to_regrole('login_api') IS NULL THEN
        CREATE ROLE login_api;
    END IF;
    IF NOT pg_catalog.pg_has_role('login_api', 'login_reader', 'MEMBER') THEN
        GRANT login_reader TO login_api;
    END IF;
    ALTER ROLE login_api LOGIN;
    EXECUTE alter_role || 'default_transaction_read_only = on';
    EXECUTE alter_role || 'statement_timeout = ''2s''';
    EXECUTE alter_role || 'idle_in_transaction_session_timeout = ''10s''';
    EXECUTE alter_role || 'jit = off';
    EXECUTE alter_role || 'max_parallel_workers_per_gather = 0';
    EXECUTE alter_role || 'search_path FROM CURRENT';
END
$$
