-- Two roles, each with no more than its job needs. Roles belong to the whole cluster: they may be
-- there already, and another database's migration may be creating them at this moment.
DO $$
BEGIN
    -- The function logs in as this one; it cannot until an operator gives it a password.
    CREATE ROLE login_writer LOGIN;
EXCEPTION
    WHEN duplicate_object OR unique_violation THEN NULL;
END
$$;

DO $$
BEGIN
    -- Analysts are made members of this one.
    CREATE ROLE login_reader NOLOGIN;
EXCEPTION
    WHEN duplicate_object OR unique_violation THEN NULL;
END
$$;

GRANT INSERT ON user_logins TO login_writer;
-- ON CONFLICT … RETURNING reads the columns that it returns.
GRANT INSERT, SELECT ON processed_messages TO login_writer;

GRANT SELECT ON user_logins TO login_reader;
