SELECT erased, rows FROM {schema}.vault_erase($1, $2, $3)
