-- The logins with a token, or those of a user, on some days, the latest day first. Equal rows are one row. A table that is
-- older than the masking may hold values that are not masked: they are not returned. The key orders the logins of a day.
-- Nobody can compute a login from the key without cursor_key.
SELECT day, user_id, device_type, masked_ip, masked_device_id, locale, app_version, logins, key
FROM (
    SELECT
        create_date::date AS day,
        user_id,
        device_type,
        masked_ip,
        masked_device_id,
        locale,
        app_version,
        count(*) AS logins,
        encode(sha256(convert_to(
            (SELECT cursor_key FROM {analytics}.freshness)
                || ROW(user_id, device_type, masked_ip, masked_device_id, locale, app_version)::text, 'UTF8'
        )), 'hex') AS key
    FROM (
        SELECT
            create_date,
            user_id::text,
            device_type::text,
            CASE WHEN masked_ip ~ '^[0-9a-f]{64}\Z' THEN masked_ip::text END AS masked_ip,
            CASE WHEN masked_device_id ~ '^[0-9a-f]{64}\Z' THEN masked_device_id::text END AS masked_device_id,
            locale::text,
            app_version
        FROM {analytics}.logins_readable
        WHERE {filter}
            AND create_date >= $2 - ($3 - 1)::integer AND create_date < LEAST($2, $4) + 1
    ) AS login
    GROUP BY create_date::date, user_id, device_type, masked_ip, masked_device_id, locale, app_version
) AS grouped
WHERE day < $4 OR key > $5
ORDER BY day DESC, key
LIMIT $6
