-- Empties the partitions of the ledger that are older than any message in SQS. SQS keeps a message for at
-- most 14 days, and 31 days ago has the same partition as tomorrow. Emptying days 16 to 30 is safe even if a
-- clock is one day wrong. Empty partitions are skipped, because TRUNCATE locks the partition.
--
-- A dump reads all partitions for as long as it takes. While TRUNCATE waits for it, each batch with a redelivered or
-- refused message waits for TRUNCATE, because it looks for its messages in the ledger. So TRUNCATE waits at
-- most 1 s. A partition in use is left to the next daily run: 15 runs can empty it before the ring uses it again. So is
-- the other ledger.
--
-- A message of a FIFO queue may be delivered for 14 days from the queue and, with a new SentTimestamp, for 14
-- days from the dead-letter queue.
DO $$
DECLARE
    today constant integer := (now() AT TIME ZONE 'UTC')::date - DATE '1970-01-01';
    partition_name text;
    holds_entries boolean;
BEGIN
    SET LOCAL lock_timeout = '1s';
    FOR age IN 16..30 LOOP
        partition_name := 'processed_messages_' || to_char((today - age) % 32, 'FM00');
        BEGIN
            EXECUTE format('SELECT EXISTS (SELECT FROM %I)', partition_name) INTO holds_entries;
            IF holds_entries THEN
                EXECUTE format('TRUNCATE %I', partition_name);
            END IF;
        EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
            NULL;
        END;
    END LOOP;

    BEGIN
        DELETE FROM processed_fifo_messages WHERE written_on < DATE '1970-01-01' + (today - 30);
    EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
        NULL;
    END;
END
$$;
