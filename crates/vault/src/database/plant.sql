SELECT {schema}.vault_plant($1, $2)
