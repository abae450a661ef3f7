-- The analysts' schema, which `migrate` creates with the setting ANALYSTS=true. Everything in it is derived from
-- user_logins and the ledger: it can be dropped, and the next roll-up makes it again.
--
-- The search_path is this schema, then the schema of the logins, then temporary tables. Texts are collated "C": they
-- are compared byte by byte, which is fast and the same on each server.

CREATE TABLE state (
    only_row             boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    run                  bigint  NOT NULL DEFAULT 0,
    rolled_up_at         timestamptz,
    through              date,
    days_left            integer NOT NULL DEFAULT 0,
    logins_without_day   bigint  NOT NULL DEFAULT 0,
    -- Logins whose create_date is null or outside the years 1 to 9999. Null until the days of user_logins are known.
    logins_without_date  bigint,
    cursor_key           text    NOT NULL DEFAULT gen_random_uuid()::text
);
INSERT INTO state DEFAULT VALUES;
COMMENT ON TABLE state IS 'What the view freshness shows: one row';

CREATE VIEW freshness AS
SELECT run, rolled_up_at, through, days_left, logins_without_day, cursor_key FROM state;
COMMENT ON VIEW freshness IS 'How fresh the answers are: one row';
COMMENT ON COLUMN freshness.run IS 'Grows with each roll-up that changed something';
COMMENT ON COLUMN freshness.rolled_up_at IS 'When the last roll-up began; null before the first';
COMMENT ON COLUMN freshness.through IS 'The latest day with logins; the periods 1d, 7d and 28d end on it';
COMMENT ON COLUMN freshness.days_left IS 'Days that are not rolled up yet, or have changed since';
COMMENT ON COLUMN freshness.logins_without_day IS
    'Logins that are in no other view: without create_date, outside the years 1 to 9999, or after today';
COMMENT ON COLUMN freshness.cursor_key IS 'A random text, which the API uses to order users';

CREATE TABLE day (
    day            date    PRIMARY KEY,
    ledger_entries bigint,
    logins         bigint  NOT NULL,
    closed         boolean NOT NULL DEFAULT false,
    merged         boolean NOT NULL DEFAULT false,
    -- The pairs of a merged day are only in a sum over days: adding the day again would count it twice.
    CONSTRAINT drop_the_schema_to_redo_a_day_before_the_last_28 CHECK (NOT merged OR ledger_entries IS NOT NULL)
);
COMMENT ON TABLE day IS 'The days with logins, and whether they are rolled up';
COMMENT ON COLUMN day.ledger_entries IS
    'Entries of the ledger when the day was rolled up; null if it is not rolled up, or has to be rolled up again';
COMMENT ON COLUMN day.logins IS 'Rows of user_logins';
COMMENT ON COLUMN day.closed IS 'Whether the day is final: SQS cannot deliver its messages any more';
COMMENT ON COLUMN day.merged IS 'Whether the day is before the last 28 days, and so only in the counts of all time';

CREATE TABLE token_user_day (
    day     date               NOT NULL,
    field   text COLLATE "C"   NOT NULL,
    token   text COLLATE "C"   NOT NULL,
    user_id text COLLATE "C"   NOT NULL,
    logins  bigint             NOT NULL
);
CREATE INDEX ON token_user_day (token);
CREATE INDEX ON token_user_day (user_id);
CREATE INDEX ON token_user_day (day);
COMMENT ON TABLE token_user_day IS 'Logins by day, token and user, of the 28 days that end on freshness.through';
COMMENT ON COLUMN token_user_day.field IS 'device_id or ip';

-- A roll-up updates the row of a pair that logs in on a further day. The free part of a page takes the new version.
CREATE TABLE token_user (
    field           text COLLATE "C" NOT NULL,
    token           text COLLATE "C" NOT NULL,
    user_id         text COLLATE "C" NOT NULL,
    logins          bigint           NOT NULL,
    first_day       date             NOT NULL,
    last_day        date             NOT NULL,
    merged_logins   bigint,
    merged_last_day date,
    PRIMARY KEY (token, user_id, field)
) WITH (fillfactor = 90);
CREATE INDEX ON token_user (user_id);
COMMENT ON TABLE token_user IS 'Logins by token and user, of all days';
COMMENT ON COLUMN token_user.merged_logins IS
    'Logins on merged days, which token_user_day no longer has; null if there are none. The first is first_day';
COMMENT ON COLUMN token_user.merged_last_day IS 'The last merged day';

CREATE TABLE token_period (
    field     text COLLATE "C" NOT NULL,
    period    text COLLATE "C" NOT NULL,
    token     text COLLATE "C" NOT NULL,
    users     bigint           NOT NULL,
    logins    bigint           NOT NULL,
    first_day date             NOT NULL,
    last_day  date             NOT NULL,
    PRIMARY KEY (token, field, period)
);
CREATE INDEX ON token_period (field, period, users DESC, token);
COMMENT ON TABLE token_period IS 'Tokens with at least 2 users in a period';
COMMENT ON COLUMN token_period.period IS
    '1d, 7d or 28d: the days that end on freshness.through; or all';

CREATE VIEW duplicates_1d AS
SELECT field, token, users, logins, first_day, last_day FROM token_period WHERE period = '1d';
COMMENT ON VIEW duplicates_1d IS 'Tokens with at least 2 users on the day freshness.through';

CREATE VIEW duplicates_7d AS
SELECT field, token, users, logins, first_day, last_day FROM token_period WHERE period = '7d';
COMMENT ON VIEW duplicates_7d IS 'Tokens with at least 2 users in the 7 days that end on freshness.through';

CREATE VIEW duplicates_28d AS
SELECT field, token, users, logins, first_day, last_day FROM token_period WHERE period = '28d';
COMMENT ON VIEW duplicates_28d IS 'Tokens with at least 2 users in the 28 days that end on freshness.through';

CREATE VIEW duplicates_all AS
SELECT field, token, users, logins, first_day, last_day FROM token_period WHERE period = 'all';
COMMENT ON VIEW duplicates_all IS 'Tokens with at least 2 users on any days';

CREATE TABLE popular_token_user (
    field     text COLLATE "C" NOT NULL,
    token     text COLLATE "C" NOT NULL,
    user_id   text COLLATE "C" NOT NULL,
    logins    bigint           NOT NULL,
    first_day date             NOT NULL,
    last_day  date             NOT NULL,
    key       text COLLATE "C" NOT NULL
);
CREATE INDEX ON popular_token_user (token, logins DESC, key);
COMMENT ON TABLE popular_token_user IS
    'token_user of tokens with more than 200 users: the 1,000 users with the most logins';
COMMENT ON COLUMN popular_token_user.key IS 'The column key of token_users()';

CREATE TABLE popular_token_day (
    field  text COLLATE "C" NOT NULL,
    token  text COLLATE "C" NOT NULL,
    day    date             NOT NULL,
    logins bigint           NOT NULL,
    users  bigint           NOT NULL,
    PRIMARY KEY (token, field, day)
);
COMMENT ON TABLE popular_token_day IS
    'Logins and users by day of tokens with more than 200 users, of the 28 days that end on freshness.through';

CREATE TABLE daily (
    day       date             NOT NULL,
    dimension text COLLATE "C" NOT NULL,
    value     text COLLATE "C",
    logins    bigint           NOT NULL,
    users     bigint           NOT NULL
);
CREATE INDEX ON daily (dimension, day);
CREATE INDEX ON daily (day);
COMMENT ON TABLE daily IS 'Logins and different users of each day, in total and by device type, locale and version';
COMMENT ON COLUMN daily.dimension IS 'all, device_type, locale or app_version';
COMMENT ON COLUMN daily.value IS 'A value of the dimension, such as ios or 2.3.0; null for logins without one, and for all';
COMMENT ON COLUMN daily.users IS 'Different users. They must not be added up: a user may log in on many days';

CREATE TABLE rings (
    ring      text COLLATE "C" PRIMARY KEY,
    users     bigint           NOT NULL,
    devices   bigint           NOT NULL,
    logins    bigint           NOT NULL,
    first_day date             NOT NULL,
    last_day  date             NOT NULL
);
CREATE INDEX ON rings (users DESC, ring);
COMMENT ON TABLE rings IS
    'Groups of users that are connected by devices of 2 to 50 users, in the 28 days that end on freshness.through';
COMMENT ON COLUMN rings.ring IS 'The name of the ring: the first of its device tokens';
COMMENT ON COLUMN rings.devices IS 'Device tokens that connect the users';
COMMENT ON COLUMN rings.logins IS 'Logins of the users with these devices';

CREATE TABLE ring_members (
    ring    text COLLATE "C" NOT NULL,
    user_id text COLLATE "C" NOT NULL,
    PRIMARY KEY (ring, user_id)
);
CREATE INDEX ON ring_members (user_id);
COMMENT ON TABLE ring_members IS 'The users of each ring';

CREATE VIEW logins_readable AS
SELECT
    user_id,
    device_type,
    masked_ip,
    masked_device_id,
    locale,
    CASE
        WHEN app_version >= 0
            THEN concat_ws('.', app_version / 1000000, app_version / 1000 % 1000, app_version % 1000)
        ELSE app_version::text
    END AS app_version,
    create_date
FROM user_logins;
COMMENT ON VIEW logins_readable IS 'user_logins, with the version of the app as text';
