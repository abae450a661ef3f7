-- Creates user_logins, partitioned by day, unless it exists. The first migration then leaves it as it is.
--
-- src/partitions/missing_days.sql adds the partitions of the days. Rows of all other days, and rows without a day, are in
-- user_logins_other. Only this partition has an index on the day: each of the others holds a single day. migrate
-- recognises its own table by the comment on this partition.
DO $$
BEGIN
    IF to_regclass('user_logins') IS NULL THEN
        CREATE TABLE user_logins (
            user_id          varchar(128),
            device_type      varchar(32),
            masked_ip        varchar(256),
            masked_device_id varchar(256),
            locale           varchar(32),
            app_version      integer,
            create_date      date
        ) PARTITION BY RANGE (create_date);

        CREATE TABLE user_logins_other PARTITION OF user_logins DEFAULT;
        CREATE INDEX ON user_logins_other USING brin (create_date);
        COMMENT ON TABLE user_logins_other IS 'login-etl day partitions, version 1';
    END IF;
END
$$
