-- Redshift Spectrum, over the table that athena.sql creates in the database `default` of the Glue catalog. The role must
-- be allowed to read the Glue catalog, the bucket and its key; write its ARN in the place of the one below.
--
-- Filter by `dt`, so that Redshift reads only the objects of these days.

CREATE EXTERNAL SCHEMA lake
FROM DATA CATALOG
DATABASE 'default'
IAM_ROLE 'arn:aws:iam::111122223333:role/redshift-reads-the-lake';

-- A table in Redshift itself, with one day. A COPY JOB would load a replaced object not again, because it goes by the
-- name of the object: load final days only, or delete the day and load it again in one transaction, as here.
CREATE TABLE IF NOT EXISTS user_logins (
    user_id          varchar(512),
    device_type      varchar(128),
    masked_ip        varchar(1024),
    masked_device_id varchar(1024),
    locale           varchar(128),
    app_version      integer,
    create_date      date
)
SORTKEY (create_date);

BEGIN;
DELETE FROM user_logins WHERE create_date = '2026-11-14';
COPY user_logins
FROM 's3://login-etl-lake/user_logins/dt=2026-11-14/'
IAM_ROLE 'arn:aws:iam::111122223333:role/redshift-reads-the-lake'
FORMAT AS PARQUET;
COMMIT;
