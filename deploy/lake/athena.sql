-- Athena. Write your bucket in the place of `login-etl-lake`, and your first day in the place of 2026-01-01.
--
-- Athena computes the days from the range (partition projection), so no crawler and no MSCK REPAIR TABLE has to find them.
-- Filter by `dt`, so that Athena reads only the objects of these days: WHERE dt >= '2026-11-01'.

CREATE EXTERNAL TABLE user_logins (
    user_id          string,
    device_type      string,
    masked_ip        string,
    masked_device_id string,
    locale           string,
    app_version      int,
    create_date      date
)
PARTITIONED BY (dt string)
STORED AS PARQUET
LOCATION 's3://login-etl-lake/user_logins/'
TBLPROPERTIES (
    'projection.enabled' = 'true',
    'projection.dt.type' = 'date',
    'projection.dt.format' = 'yyyy-MM-dd',
    'projection.dt.range' = '2026-01-01,NOW',
    'projection.dt.interval' = '1',
    'projection.dt.interval.unit' = 'DAYS',
    'storage.location.template' = 's3://login-etl-lake/user_logins/dt=${dt}/'
);
