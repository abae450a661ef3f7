-- RDS accepts only a token from a member of rds_iam. If an administrator has granted the role already, this grants
-- nothing, so that a role without rights on rds_iam can switch to IAM too.
DO $$
BEGIN
    IF NOT pg_has_role('login_writer'::name, 'rds_iam'::name, 'MEMBER') THEN
        GRANT rds_iam TO login_writer;
    END IF;
END
$$
