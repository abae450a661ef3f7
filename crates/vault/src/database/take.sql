SELECT state, field, token, public_key, kms_key, enc, sequence, ciphertext FROM {schema}.vault_take($1)
