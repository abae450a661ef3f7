-- Lets login_reader read the new schema. Nobody else may do anything: revoke_all.sql has run.
DO $$
BEGIN
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO login_reader', current_schema());
    EXECUTE format('GRANT SELECT ON ALL TABLES IN SCHEMA %I TO login_reader', current_schema());
    EXECUTE format('GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA %I TO login_reader', current_schema());
END
$$
