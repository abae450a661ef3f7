SELECT object_key, erased_at, salt_fingerprint FROM {schema}.vault_list($1, $2)
