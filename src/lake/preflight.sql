-- Returns what prevents the export's schema beside the logins' schema $2, with its remedy: the objects would show what is
-- hidden in the table. The caller sets the search_path to pg_catalog.
SELECT
    format('row security is on for %s, and the lake would show hidden rows to its readers', logins.name),
    format('ALTER TABLE %s DISABLE ROW LEVEL SECURITY, or do without EXPORT', logins.name)
FROM (
    SELECT relrowsecurity, format('%I.user_logins', $2) AS name
    FROM pg_class
    WHERE relname = 'user_logins' AND relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = $2)
) AS logins
WHERE relrowsecurity
