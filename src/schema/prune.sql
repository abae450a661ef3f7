-- Empties the days of the ledger that SQS can no longer redeliver from. A message is kept for 14
-- days at most; 15 to 30 days back from today is old for certain, in every time zone and for a
-- clock that is a day wrong. Empty partitions are left alone: TRUNCATE locks.
DO $$
DECLARE
    today constant integer := (now() AT TIME ZONE 'UTC')::date - DATE '1970-01-01';
    partition_name text;
    holds_entries boolean;
BEGIN
    FOR age IN 16..30 LOOP
        partition_name := 'processed_messages_' || to_char((today - age) % 32, 'FM00');
        EXECUTE format('SELECT EXISTS (SELECT FROM %I)', partition_name) INTO holds_entries;
        IF holds_entries THEN
            EXECUTE format('TRUNCATE %I', partition_name);
        END IF;
    END LOOP;
END
$$;
