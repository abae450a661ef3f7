-- Grants login_export the rights that it lacks: to read the columns that it exports and the dates in the ledger, and to
-- keep the books. It can read neither other columns of the user's table nor ids of messages.
DO $$
DECLARE
    logins_schema constant text := pg_catalog.current_setting('login_etl.logins_schema');
    statement text;
BEGIN
    FOR statement IN
        SELECT pg_catalog.format('GRANT CONNECT ON DATABASE %I TO login_export', pg_catalog.current_database())
        WHERE NOT pg_catalog.has_database_privilege('login_export', pg_catalog.current_database(), 'CONNECT')
        UNION ALL
        SELECT pg_catalog.format('GRANT USAGE ON SCHEMA %I TO login_export', name)
        FROM (VALUES (logins_schema), (pg_catalog.current_schema()::text)) AS schemas (name)
        WHERE NOT pg_catalog.has_schema_privilege('login_export', name, 'USAGE')
        UNION ALL
        SELECT pg_catalog.format(
            'GRANT SELECT (%I) ON %I.%I TO login_export', column_name, logins_schema, table_name
        )
        FROM (VALUES
            ('user_logins', 'user_id'),
            ('user_logins', 'device_type'),
            ('user_logins', 'masked_ip'),
            ('user_logins', 'masked_device_id'),
            ('user_logins', 'locale'),
            ('user_logins', 'app_version'),
            ('user_logins', 'create_date'),
            ('processed_messages', 'slot'),
            ('processed_messages', 'sent_at')
        ) AS needed (table_name, column_name)
        WHERE NOT pg_catalog.has_column_privilege(
            'login_export', pg_catalog.format('%I.%I', logins_schema, table_name), column_name, 'SELECT'
        )
        UNION ALL
        SELECT pg_catalog.format('GRANT %s ON %I TO login_export', privilege, table_name)
        FROM (VALUES
            ('SELECT', 'exports'), ('INSERT', 'exports'), ('UPDATE', 'exports'), ('SELECT', 'state'), ('UPDATE', 'state')
        ) AS needed (privilege, table_name)
        WHERE NOT pg_catalog.has_table_privilege('login_export', table_name, privilege)
    LOOP
        EXECUTE statement;
    END LOOP;
END
$$
