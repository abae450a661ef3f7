-- Grants the two roles the privileges that they lack. An administrator may have revoked the default privileges of
-- PUBLIC on the database or the schema, and the sequence of a serial column in user_logins is used with the
-- writer's own rights.
DO $$
DECLARE
    statement text;
BEGIN
    FOR statement IN
        SELECT format('GRANT USAGE ON SCHEMA %I TO %I', current_schema(), role)
        FROM unnest('{login_writer, login_reader}'::name[]) AS role
        WHERE NOT has_schema_privilege(role, current_schema(), 'USAGE')
        UNION ALL
        SELECT format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), role)
        FROM unnest('{login_writer, login_reader}'::name[]) AS role
        WHERE NOT has_database_privilege(role, current_database(), 'CONNECT')
        UNION ALL
        SELECT format('GRANT %s ON %I TO %I', privilege, table_name, role)
        FROM (VALUES
            ('INSERT', 'user_logins', 'login_writer'),
            ('INSERT', 'processed_messages', 'login_writer'),
            ('SELECT', 'processed_messages', 'login_writer'),
            ('INSERT', 'processed_fifo_messages', 'login_writer'),
            ('SELECT', 'processed_fifo_messages', 'login_writer'),
            ('SELECT', 'user_logins', 'login_reader')
        ) AS needed (privilege, table_name, role)
        WHERE NOT has_table_privilege(role, table_name, privilege)
            -- An administrator has limited login_reader to some columns.
            AND NOT (role = 'login_reader' AND has_any_column_privilege(role, table_name, privilege))
        UNION ALL
        SELECT format('GRANT %s (%I) ON %I TO login_writer', privilege, column_name, table_name)
        FROM (VALUES
            ('SELECT', 'salt_fingerprint', 'fingerprint'),
            ('SELECT', 'vault_keys', 'id'),
            ('SELECT', 'vault_keys', 'sha256'),
            ('SELECT', 'vault_keys', 'is_current'),
            ('INSERT', 'vault_inbox', 'key_id'),
            ('INSERT', 'vault_inbox', 'enc'),
            ('INSERT', 'vault_inbox', 'entry_length'),
            ('INSERT', 'vault_inbox', 'body')
        ) AS needed (privilege, table_name, column_name)
        WHERE NOT has_column_privilege('login_writer', table_name, column_name, privilege)
        UNION ALL
        SELECT format('GRANT USAGE ON SEQUENCE %s TO login_writer', pg_class.oid::regclass)
        FROM pg_attrdef
        JOIN pg_depend ON pg_depend.classid = 'pg_attrdef'::regclass AND pg_depend.objid = pg_attrdef.oid
        JOIN pg_class ON pg_depend.refclassid = 'pg_class'::regclass AND pg_class.oid = pg_depend.refobjid
        WHERE pg_attrdef.adrelid = 'user_logins'::regclass
            -- CASE, because Postgres may evaluate the parts of AND in any order, and the function fails for a table.
            AND CASE WHEN pg_class.relkind = 'S'
                THEN NOT has_sequence_privilege('login_writer', pg_class.oid, 'USAGE, UPDATE')
            END
    LOOP
        EXECUTE statement;
    END LOOP;
END
$$
