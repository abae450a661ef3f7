-- A member of rds_iam cannot log in with a password. If the role does not exist or login_writer is not a
-- member, this does nothing, so that a role without rights on rds_iam can set a password.
DO $$
DECLARE
    iam_role constant oid := to_regrole('rds_iam');
BEGIN
    IF pg_has_role('login_writer'::name, iam_role, 'MEMBER') THEN
        REVOKE rds_iam FROM login_writer;
    END IF;
    -- REVOKE only warns if another role granted the membership. Then the password would not work.
    IF pg_has_role('login_writer'::name, iam_role, 'MEMBER') THEN
        RAISE EXCEPTION 'login_writer stays in rds_iam, which this role did not grant to it';
    END IF;
END
$$
