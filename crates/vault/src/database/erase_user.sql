SELECT erased, shared, rows FROM {schema}.vault_erase_user($1, $2, $3, $4)
