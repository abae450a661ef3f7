-- The ledger: one entry a message that has been written, in the transaction that wrote it.
--
-- SQS keeps a message for 14 days at most, so an entry is of use for 14 days after `sent_at`.
-- The table is a ring of 32 daily partitions: `slot` is the number of the day modulo 32, every
-- day has its partition for ever, and old entries go by TRUNCATE (see ../prune.sql), which costs
-- the same whatever they count. Nothing has to be prepared for tomorrow, and a ring that nobody
-- prunes still takes entries.
--
-- The key leads with the time, so a batch touches the few pages at the right edge of one index.
CREATE TABLE processed_messages (
    slot       smallint    NOT NULL,
    sent_at    timestamptz NOT NULL,
    message_id uuid        NOT NULL,
    PRIMARY KEY (slot, sent_at, message_id)
) PARTITION BY LIST (slot);

COMMENT ON TABLE processed_messages IS
    'SQS messages already written to user_logins, so that a redelivery adds no row';

DO $$
BEGIN
    FOR slot IN 0..31 LOOP
        EXECUTE format(
            'CREATE TABLE processed_messages_%s PARTITION OF processed_messages FOR VALUES IN (%s)',
            to_char(slot, 'FM00'), slot);
    END LOOP;
END
$$;
