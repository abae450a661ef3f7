SELECT {schema}.vault_tell($1, $2, $3)
