SELECT {schema}.vault_salt()
