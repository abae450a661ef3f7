-- The schema of the export, which `migrate` creates with the setting EXPORT=true. The search_path is this schema, then
-- the schema of the logins. If the schema is dropped, the next runs export all days anew, to the same objects.

CREATE TABLE state (
    only_row          boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    ledger_since      date    NOT NULL,
    rows_without_date bigint
);
COMMENT ON TABLE state IS 'What is known about all days: one row. A run of the export locks the table';
COMMENT ON COLUMN state.ledger_since IS
    'The day on which the ledger was created. Rows of this day and of the days before may be older than the ledger';
COMMENT ON COLUMN state.rows_without_date IS
    'Rows that are not exported: create_date was null or outside the years 1 to 9999 when the first run read all days; '
    'null before';

INSERT INTO state (ledger_since)
SELECT coalesce(
    (SELECT (applied_on::timestamptz AT TIME ZONE 'UTC')::date FROM login_etl_migrations WHERE version = 2),
    (now() AT TIME ZONE 'UTC')::date
);

CREATE TABLE exports (
    day            date     PRIMARY KEY CHECK (day BETWEEN DATE '0001-01-01' AND DATE '9999-12-31'),
    objects        smallint,
    key            text,
    rows           bigint,
    ledger_entries bigint,
    ledger_seen    bigint,
    deleted_rows   bigint   NOT NULL DEFAULT 0,
    bytes          bigint,
    sha256         text,
    etag           text,
    exported_at    timestamptz,
    closed         boolean  NOT NULL DEFAULT false,
    changed        boolean  NOT NULL DEFAULT false,
    final          boolean  GENERATED ALWAYS AS (closed AND NOT changed) STORED
);
COMMENT ON TABLE exports IS 'The days of the lake. A day is written here after its objects';
COMMENT ON COLUMN exports.objects IS 'Number of objects of the day, which stays as it is; null if it is not known yet';
COMMENT ON COLUMN exports.key IS 'The key of the first object';
COMMENT ON COLUMN exports.rows IS 'Rows in the objects';
COMMENT ON COLUMN exports.ledger_entries IS
    'Entries of the ledger, with which rows and deleted_rows agree; null if the ledger had no count of the day';
COMMENT ON COLUMN exports.ledger_seen IS 'Entries of the ledger when the day was exported, whether or not they agree with the rows';
COMMENT ON COLUMN exports.deleted_rows IS
    'Rows that were deleted since ledger_entries were written or, if that is null, since the export';
COMMENT ON COLUMN exports.bytes IS 'Bytes of the objects';
COMMENT ON COLUMN exports.sha256 IS
    'SHA-256 of the object, in hexadecimal digits; of several objects, SHA-256 of their digits one after the other';
COMMENT ON COLUMN exports.etag IS 'The ETag of each object, with a blank between';
COMMENT ON COLUMN exports.exported_at IS 'When the transaction that read the rows began; null if nothing is exported yet';
COMMENT ON COLUMN exports.closed IS 'Whether the day was exported after SQS could deliver its messages for the last time';
COMMENT ON COLUMN exports.changed IS 'Whether mark_changed was called since the export';
COMMENT ON COLUMN exports.final IS 'Whether the objects stay as they are';

CREATE FUNCTION mark_changed(day date, deleted_rows bigint DEFAULT 0) RETURNS void
LANGUAGE sql
SET search_path FROM CURRENT
AS $$
INSERT INTO exports AS before (day, deleted_rows, changed)
VALUES ($1, $2, true)
ON CONFLICT (day) DO UPDATE SET deleted_rows = before.deleted_rows + excluded.deleted_rows, changed = true
$$;
COMMENT ON FUNCTION mark_changed IS
    'Has a day exported anew. Call it in the transaction that deletes or changes rows of the day, with the number of '
    'deleted rows; for rows that were inserted without the ledger, the number is negative';
