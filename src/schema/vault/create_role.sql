-- The migration of another database may create the role at this moment: hence the exceptions.
DO $$
BEGIN
    IF pg_catalog.to_regrole('login_vault') IS NULL THEN
        CREATE ROLE login_vault NOLOGIN;
    END IF;
EXCEPTION
    WHEN duplicate_object OR unique_violation THEN NULL;
END
$$
