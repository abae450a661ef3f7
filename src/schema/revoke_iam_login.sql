-- A member of rds_iam cannot log in with a password. Where there is no such role, or nothing to revoke,
-- nothing is tried: whoever gives a password need not have power over rds_iam.
DO $$
DECLARE
    by_iam constant oid := to_regrole('rds_iam');
BEGIN
    IF pg_has_role('login_writer'::name, by_iam, 'MEMBER') THEN
        REVOKE rds_iam FROM login_writer;
    END IF;
    -- What somebody else granted stays, and Postgres no more than warns of it.
    IF pg_has_role('login_writer'::name, by_iam, 'MEMBER') THEN
        RAISE EXCEPTION 'login_writer stays in rds_iam, which this role did not grant to it';
    END IF;
END
$$
