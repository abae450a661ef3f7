"""Logins that `make demo` does not make: odd values, and logins that arrive after a roll-up."""

# No rollup counts the first three. The next two are in daily counts only.
ODD_LOGINS = """
WITH masked AS (
    SELECT repeat('ab', 32) AS ip, repeat('cd', 32) AS device_id, max(create_date) AS through
    FROM user_logins
)
INSERT INTO user_logins (
    user_id, device_type, masked_ip, masked_device_id, app_version, create_date
)
SELECT user_id, 'ios', ip, COALESCE(not_masked, device_id), 1002003, COALESCE(day::date, through)
FROM masked, (VALUES
    ('infinity', NULL, 'infinity'),
    ('-infinity', NULL, '-infinity'),
    ('in the future', NULL, '2999-12-31'),
    (NULL, NULL, NULL),
    ('not masked', '593-47-5928', NULL),
    ('=1+1', NULL, '0001-01-01'),
    ('<script>''"', NULL, '1999-12-31')
) AS odd (user_id, not_masked, day)
"""

# Logins with tokens that exist, on a day that was rolled up, and their entries in the ledger. No
# planted ring has the locale RU.
LATE_LOGINS = """
WITH late AS (
    INSERT INTO user_logins
    SELECT
        upper(user_id), device_type, masked_ip, masked_device_id, locale, app_version, create_date
    FROM user_logins
    WHERE locale = 'RU'
        AND create_date = (SELECT through - 3 FROM analytics.freshness)
    ORDER BY user_id
    LIMIT 50
    RETURNING create_date::timestamp AT TIME ZONE 'UTC' + INTERVAL '1 hour' AS sent_at
)
INSERT INTO processed_messages (slot, sent_at, message_id)
SELECT ((sent_at AT TIME ZONE 'UTC')::date - DATE '1970-01-01') % 32, sent_at, gen_random_uuid()
FROM late
"""
