-- RDS accepts only a token from a member of rds_iam. The password is removed too: nothing would rotate it
-- any more, and it would work again if the role were revoked.
GRANT rds_iam TO login_writer;
ALTER ROLE login_writer PASSWORD NULL
