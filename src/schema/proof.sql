-- Writes one generated login with the rights of the role that runs it. The caller rolls it back.
SELECT :schema.write_logins(
    ARRAY[now()],
    ARRAY[gen_random_uuid()],
    ARRAY['login-etl-migrate'],
    ARRAY['android'],
    ARRAY[repeat('0', 64)],
    ARRAY[repeat('0', 64)],
    ARRAY['EN'],
    ARRAY[2003000],
    coalesce((SELECT fingerprint FROM :schema.salt_fingerprint), repeat('0', 16))
)
