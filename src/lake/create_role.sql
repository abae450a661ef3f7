-- The migration of another database may create the role at this moment: hence the exceptions.
DO $$
BEGIN
    IF pg_catalog.to_regrole('login_export') IS NULL THEN
        CREATE ROLE login_export NOLOGIN;
    END IF;
EXCEPTION
    WHEN duplicate_object OR unique_violation THEN NULL;
END
$$
