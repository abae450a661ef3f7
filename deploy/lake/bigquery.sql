-- BigQuery, over objects that Storage Transfer Service has copied to a bucket of Google Cloud Storage. Write its name in
-- the place of `login-etl-lake`. The data set `lake` must exist.
--
-- A table over S3 itself needs BigQuery Omni: add WITH CONNECTION, and s3:// in the place of gs://.
-- Filter by `dt`, so that BigQuery reads only the objects of these days; it refuses a query without such a filter.

CREATE EXTERNAL TABLE lake.user_logins (
    user_id          STRING,
    device_type      STRING,
    masked_ip        STRING,
    masked_device_id STRING,
    locale           STRING,
    app_version      INT64,
    create_date      DATE
)
WITH PARTITION COLUMNS (dt DATE)
OPTIONS (
    format = 'PARQUET',
    uris = ['gs://login-etl-lake/user_logins/*'],
    hive_partition_uri_prefix = 'gs://login-etl-lake/user_logins',
    require_hive_partition_filter = TRUE
);
