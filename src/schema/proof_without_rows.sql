-- Fails if a table, a column, a function or a privilege is missing, but never because of a row of user_logins. It
-- inserts a row into the ledger, because a policy on the ledger would refuse every row.
INSERT INTO :schema.processed_messages (slot, sent_at, message_id) VALUES (0, '1970-01-01', gen_random_uuid());
INSERT INTO :schema.processed_fifo_messages (message_id, written_on) VALUES (gen_random_uuid(), '1970-01-01');
SELECT :schema.write_fifo_logins(
    '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}',
    coalesce((SELECT fingerprint FROM :schema.salt_fingerprint), repeat('0', 16))
)
