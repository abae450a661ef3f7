-- The logins with a token on some days, the latest day first. Equal rows are one row. The key orders the logins of a
-- day, and says nothing about them to somebody who cannot read cursor_key.
SELECT day, user_id, device_type, masked_ip, masked_device_id, locale, app_version, logins, key
FROM (
    SELECT
        create_date::date AS day,
        user_id::text,
        device_type::text,
        masked_ip::text,
        masked_device_id::text,
        locale::text,
        app_version,
        count(*) AS logins,
        encode(sha256(convert_to(
            (SELECT cursor_key FROM {analytics}.freshness)
                || ROW(user_id, device_type, masked_ip, masked_device_id, locale, app_version)::text, 'UTF8'
        )), 'hex') AS key
    FROM {analytics}.logins_readable
    WHERE (masked_device_id = $1 OR masked_ip = $1)
        AND create_date >= $2 - ($3 - 1)::integer AND create_date < LEAST($2, $4) + 1
    GROUP BY create_date::date, user_id, device_type, masked_ip, masked_device_id, locale, app_version
) AS grouped
WHERE day < $4 OR key > $5
ORDER BY day DESC, key
LIMIT $6
