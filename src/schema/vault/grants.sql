-- Grants login_vault the rights that it lacks: to connect, and to execute the functions of the broker. It has no right
-- on any table.
DO $$
DECLARE
    statement text;
BEGIN
    FOR statement IN
        SELECT pg_catalog.format('GRANT CONNECT ON DATABASE %I TO login_vault', pg_catalog.current_database())
        WHERE NOT pg_catalog.has_database_privilege('login_vault', pg_catalog.current_database(), 'CONNECT')
        UNION ALL
        SELECT pg_catalog.format('GRANT USAGE ON SCHEMA %I TO login_vault', pg_catalog.current_schema())
        WHERE NOT pg_catalog.has_schema_privilege('login_vault', pg_catalog.current_schema(), 'USAGE')
        UNION ALL
        SELECT pg_catalog.format('GRANT EXECUTE ON FUNCTION %s TO login_vault', pg_proc.oid::pg_catalog.regprocedure)
        FROM pg_catalog.pg_proc
        WHERE pronamespace = pg_catalog.to_regnamespace(pg_catalog.quote_ident(pg_catalog.current_schema()))
            AND proname IN (
                'vault_ask', 'vault_take', 'vault_tell', 'vault_erase', 'vault_erase_user', 'vault_salt', 'vault_entries',
                'vault_key_states', 'vault_sample', 'vault_plant', 'vault_is_honey', 'vault_list', 'vault_erase_rows'
            )
            AND NOT pg_catalog.has_function_privilege('login_vault', pg_proc.oid, 'EXECUTE')
    LOOP
        EXECUTE statement;
    END LOOP;
END
$$
