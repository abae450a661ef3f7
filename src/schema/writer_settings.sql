-- Returns the settings with which new sessions of login_writer start, each with the statement that removes it. The
-- writer can give them to itself: synchronous_commit = off, for example, would lose rows in a crash. It cannot give
-- itself a setting of the context superuser, so an administrator made such a setting.
SELECT name,
    format(
        'ALTER ROLE login_writer%s RESET %I',
        CASE WHEN setdatabase <> 0 THEN format(' IN DATABASE %I', current_database()) ELSE '' END, name
    )
FROM pg_db_role_setting
CROSS JOIN LATERAL (SELECT split_part(setting, '=', 1) AS name FROM unnest(setconfig) AS setting) AS given
WHERE setrole = 'login_writer'::regrole
    AND setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
    AND name IN (SELECT name FROM pg_settings WHERE context NOT IN ('superuser', 'superuser-backend'))
ORDER BY name, setdatabase
