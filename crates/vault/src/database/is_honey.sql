SELECT {schema}.vault_is_honey($1)
