-- Spark. The files are those that the export writes: docs/lake.md. Write your bucket in the place of `login-etl-lake`, and
-- s3a:// in the place of s3:// where Spark does not run on EMR.
--
-- `dt` is in the path only, and `create_date` in the files only: both have the same day. Filter by `dt`, so that Spark
-- reads only the objects of these days.

-- Spark 3 refuses dates before 1582 otherwise, because Spark 2 wrote them by another calendar. Spark 4 needs no setting.
SET spark.sql.parquet.datetimeRebaseModeInRead = CORRECTED;

CREATE TABLE user_logins (
    user_id          STRING,
    device_type      STRING,
    masked_ip        STRING,
    masked_device_id STRING,
    locale           STRING,
    app_version      INT,
    create_date      DATE,
    dt               STRING
)
USING parquet
PARTITIONED BY (dt)
LOCATION 's3://login-etl-lake/user_logins/';

-- Again for each new day; a day that is replaced needs only REFRESH TABLE, in a session that has read it before.
MSCK REPAIR TABLE user_logins;
