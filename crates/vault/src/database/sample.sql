SELECT entries, tokens, keys FROM {schema}.vault_sample($1, $2)
