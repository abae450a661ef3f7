-- On RDS a member of rds_iam is asked for a token and for nothing else. A password, which nobody would
-- look after any more, does not stay behind.
GRANT rds_iam TO login_writer;
ALTER ROLE login_writer PASSWORD NULL
