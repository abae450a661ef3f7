-- Returns the problems of the database, each with its remedy. A problem is a warning if it does not prevent the
-- migrations or the writer from working. $1 is the schema, $2 whether migrations are missing, $3 whether the login
-- of login_writer will be changed, $4 whether trust.sql found nothing. The names are quoted, because an operator copies
-- the statement in the remedy. The caller sets the search_path to pg_catalog.
WITH
me AS (
    SELECT oid, quote_ident(rolname) AS name, rolsuper, rolcreaterole
    FROM pg_roles WHERE rolname = current_user
),
home AS (
    SELECT oid, nspname, quote_ident(nspname) AS name FROM pg_namespace WHERE nspname = $1
),
role AS (
    SELECT needed.place, needed.name, needed.attribute, pg_roles.oid, pg_roles.rolcanlogin, pg_roles.rolsuper
    FROM (VALUES (1, 'login_writer', 'LOGIN'), (2, 'login_reader', 'NOLOGIN')) AS needed (place, name, attribute)
    LEFT JOIN pg_roles ON pg_roles.rolname = needed.name
),
-- Before login_writer exists, it has the privileges of PUBLIC.
writer AS (
    SELECT (CASE WHEN oid IS NULL THEN 'public' ELSE name END)::name AS name, oid
    FROM role WHERE name = 'login_writer'
),
ledger AS (
    SELECT pg_namespace.nspname
    FROM pg_proc
    JOIN pg_namespace ON pg_namespace.oid = pg_proc.pronamespace
    JOIN pg_class ON pg_class.relnamespace = pg_namespace.oid AND pg_class.relname = 'processed_messages'
    WHERE pg_proc.proname = 'write_logins'
),
logins AS (
    SELECT pg_class.*, format('%s.user_logins', home.name) AS name
    FROM pg_class JOIN home ON pg_class.relnamespace = home.oid
    WHERE relname = 'user_logins'
),
takes_rows AS (
    SELECT * FROM logins WHERE relkind IN ('r', 'p') OR (relkind = 'v' AND pg_relation_is_updatable(oid, true) & 8 = 8)
),
needed_column AS (
    SELECT *
    FROM (VALUES
        (1, 'user_id', 'varchar(128)', 0),
        (2, 'device_type', 'varchar(32)', 0),
        (3, 'masked_ip', 'varchar(256)', 64),
        (4, 'masked_device_id', 'varchar(256)', 64),
        (5, 'locale', 'varchar(32)', 0),
        (6, 'app_version', 'integer', 0),
        (7, 'create_date', 'date', 0)
    ) AS needed (place, name, type, min_length)
),
-- MATERIALIZED, because has_sequence_privilege fails for an object that is not a sequence.
login_sequence AS MATERIALIZED (
    SELECT pg_class.oid, format('%s.%I', pg_class.relnamespace::regnamespace, pg_class.relname) AS name
    FROM takes_rows
    JOIN pg_attrdef ON pg_attrdef.adrelid = takes_rows.oid
    JOIN pg_depend ON pg_depend.classid = 'pg_attrdef'::regclass AND pg_depend.objid = pg_attrdef.oid
    JOIN pg_class ON pg_depend.refclassid = 'pg_class'::regclass AND pg_class.oid = pg_depend.refobjid
    WHERE pg_class.relkind = 'S'
),
finding (place, is_warning, problem, remedy) AS (
    SELECT 10, false,
        format('the ledger is in the schema %I, and DATABASE_SCHEMA is %I', min(nspname), $1),
        format('set DATABASE_SCHEMA to %s', min(nspname))
    FROM ledger HAVING count(*) > 0 AND bool_and(nspname <> $1)

    UNION ALL
    SELECT 20, false,
        format('there is no schema %I', $1),
        format('CREATE SCHEMA %I AUTHORIZATION %s', $1, me.name)
    FROM me WHERE NOT EXISTS (SELECT FROM home) AND NOT EXISTS (SELECT FROM ledger)

    UNION ALL
    SELECT 30, false,
        format('%s may not create tables in the schema %s', me.name, home.name),
        format('GRANT USAGE, CREATE ON SCHEMA %s TO %s', home.name, me.name)
    FROM me, home
    WHERE NOT has_schema_privilege(home.oid, 'USAGE') OR ($2 AND NOT has_schema_privilege(home.oid, 'CREATE'))

    UNION ALL
    SELECT 40, false,
        format('login_writer may not use the schema %s, and %s may not grant it', home.name, me.name),
        format('GRANT USAGE ON SCHEMA %s TO %s WITH GRANT OPTION', home.name, me.name)
    FROM me, home, writer
    WHERE NOT has_schema_privilege(writer.name, home.oid, 'USAGE')
        AND NOT has_schema_privilege(home.oid, 'USAGE WITH GRANT OPTION')

    UNION ALL
    SELECT 50, false,
        format('login_writer may not connect to the database %I, and %s may not grant it', current_database(), me.name),
        format('GRANT CONNECT ON DATABASE %I TO %s WITH GRANT OPTION', current_database(), me.name)
    FROM me, writer
    WHERE NOT has_database_privilege(writer.name, current_database(), 'CONNECT')
        AND NOT has_database_privilege(current_database(), 'CONNECT WITH GRANT OPTION')

    UNION ALL
    SELECT 60 + role.place, false,
        format('there is no role %s, and %s may not create roles', role.name, me.name),
        format('CREATE ROLE %s %s', role.name, role.attribute)
    FROM me, role WHERE role.oid IS NULL AND NOT me.rolsuper AND NOT me.rolcreaterole

    UNION ALL
    SELECT 70, false,
        format('%s may not alter the role %s', me.name, role.name),
        format('ALTER ROLE %s CREATEROLE; GRANT %s TO %s WITH ADMIN OPTION', me.name, role.name, me.name)
    FROM me, role
    WHERE $3 AND role.name = 'login_writer' AND role.oid IS NOT NULL AND NOT me.rolsuper
        AND (
            NOT me.rolcreaterole
            OR role.rolsuper
            -- Since Postgres 16, CREATEROLE alone does not suffice.
            OR (
                current_setting('server_version_num')::integer >= 160000
                AND NOT pg_has_role(role.oid, 'MEMBER WITH ADMIN OPTION')
            )
        )

    UNION ALL
    SELECT 80, true, 'login_writer may not log in', 'ALTER ROLE login_writer LOGIN'
    FROM role WHERE role.name = 'login_writer' AND NOT rolcanlogin

    -- Both roles may have existed before the first migration.
    UNION ALL
    SELECT 82, false,
        format('%s has the attribute %s, which gives it more rights than it needs', role.name, attribute.name),
        format('ALTER ROLE %s NO%s', role.name, attribute.name)
    FROM role
    JOIN pg_roles ON pg_roles.oid = role.oid
    CROSS JOIN LATERAL (VALUES
        ('SUPERUSER', pg_roles.rolsuper),
        ('CREATEDB', rolcreatedb),
        ('CREATEROLE', pg_roles.rolcreaterole),
        ('REPLICATION', rolreplication),
        ('BYPASSRLS', rolbypassrls)
    ) AS attribute (name, is_set)
    WHERE attribute.is_set

    UNION ALL
    SELECT 84, false,
        format('%s is a member of %I, which gives it more rights than it needs', role.name, granted.rolname),
        format('REVOKE %I FROM %s', granted.rolname, role.name)
    FROM role
    JOIN pg_auth_members ON pg_auth_members.member = role.oid
    JOIN pg_roles AS granted ON granted.oid = pg_auth_members.roleid
    WHERE EXISTS (
        SELECT FROM pg_roles AS powerful
        WHERE pg_has_role(granted.oid, powerful.oid, 'MEMBER')
            AND (
                powerful.rolsuper OR powerful.rolcreatedb OR powerful.rolcreaterole OR powerful.rolreplication
                OR powerful.rolbypassrls
                -- The predefined roles, such as pg_read_all_data.
                OR powerful.rolname LIKE 'pg\_%'
                OR powerful.rolname IN ('rds_superuser', 'rds_replication', 'login_writer', 'login_reader')
                OR powerful.oid IN (SELECT oid FROM me UNION SELECT relowner FROM logins)
                OR powerful.oid IN (SELECT nspowner FROM pg_namespace WHERE nspname = $1)
            )
    )

    UNION ALL
    SELECT 100, false,
        CASE relkind
            WHEN 'm' THEN format('%s is a materialized view, which takes no rows', name)
            WHEN 'f' THEN format('%s is a foreign table, which is not committed together with the ledger', name)
            WHEN 'v' THEN format('%s is a view that takes no rows', name)
            ELSE format('%s is no table', name)
        END,
        CASE relkind
            WHEN 'm' THEN format('ALTER MATERIALIZED VIEW %s RENAME TO user_logins_before', name)
            WHEN 'f' THEN format('ALTER FOREIGN TABLE %s RENAME TO user_logins_before', name)
            WHEN 'v' THEN format('ALTER VIEW %s RENAME TO user_logins_before', name)
            ELSE format('rename %s', name)
        END
    FROM logins WHERE NOT EXISTS (SELECT FROM takes_rows)

    UNION ALL
    SELECT 110, false,
        format('%s belongs to %I, and %s may not grant its use', takes_rows.name, pg_get_userbyid(relowner), me.name),
        format('GRANT INSERT, SELECT ON %s TO %s WITH GRANT OPTION', takes_rows.name, me.name)
    FROM takes_rows, me, writer
    -- The remedy for another role's table grants the use of the table too.
    WHERE $4
        AND NOT (
            has_table_privilege(takes_rows.oid, 'INSERT WITH GRANT OPTION')
            AND has_table_privilege(takes_rows.oid, 'SELECT WITH GRANT OPTION')
        )
        -- V3 grants privileges, and fails if this role may not grant them. After V3, the writer's own privilege
        -- suffices.
        AND (
            NOT EXISTS (SELECT FROM ledger WHERE nspname = $1)
            OR NOT has_table_privilege(writer.name, takes_rows.oid, 'INSERT')
        )

    UNION ALL
    SELECT 120, false,
        format('login_writer may not use the sequence %s, and %s may not grant it', login_sequence.name, me.name),
        format('GRANT USAGE ON SEQUENCE %s TO %s WITH GRANT OPTION', login_sequence.name, me.name)
    FROM login_sequence, me, writer
    WHERE $4
        AND NOT has_sequence_privilege(writer.name, login_sequence.oid, 'USAGE, UPDATE')
        AND NOT has_sequence_privilege(login_sequence.oid, 'USAGE WITH GRANT OPTION')

    UNION ALL
    SELECT 130, false,
        format('row security is on for %s, and no policy lets login_writer insert', takes_rows.name),
        format(
            'CREATE POLICY login_writer ON %s FOR INSERT TO %s WITH CHECK (true)',
            takes_rows.name, CASE WHEN writer.oid IS NULL THEN 'public' ELSE 'login_writer' END
        )
    FROM takes_rows, writer
    WHERE relrowsecurity
        AND (writer.oid IS NULL OR NOT (SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE pg_roles.oid = writer.oid))
        -- Policies do not apply to the owner of the table.
        AND (writer.oid IS NULL OR relforcerowsecurity OR NOT pg_has_role(writer.oid, relowner, 'USAGE'))
        AND NOT EXISTS (
            SELECT FROM pg_policy
            WHERE polrelid = takes_rows.oid AND polpermissive AND polcmd IN ('a', '*')
                AND EXISTS (
                    SELECT FROM unnest(polroles) AS member_of
                    WHERE member_of = 0 OR pg_has_role(writer.oid, member_of, 'USAGE')
                )
        )

    UNION ALL
    SELECT 140, true,
        format('%s is unlogged: a crash of Postgres empties it, and the ledger still counts its rows as written', name),
        format('ALTER TABLE %s SET LOGGED', name)
    FROM takes_rows WHERE relpersistence = 'u'

    UNION ALL
    SELECT 200 + needed_column.place, false,
        format('%s has no column %s', takes_rows.name, needed_column.name),
        CASE
            WHEN misspelt.attname IS NOT NULL THEN format(
                'ALTER TABLE %s RENAME COLUMN %I TO %s', takes_rows.name, misspelt.attname, needed_column.name
            )
            WHEN relkind = 'v' THEN format('create %s anew with the column', takes_rows.name)
            ELSE format('ALTER TABLE %s ADD COLUMN %s %s', takes_rows.name, needed_column.name, needed_column.type)
        END
    FROM takes_rows
    CROSS JOIN needed_column
    LEFT JOIN pg_attribute AS present ON present.attrelid = takes_rows.oid AND present.attname = needed_column.name
    LEFT JOIN pg_attribute AS misspelt
        ON misspelt.attrelid = takes_rows.oid AND lower(misspelt.attname) = needed_column.name
    WHERE present.attname IS NULL

    UNION ALL
    SELECT 200 + needed_column.place, false,
        CASE
            WHEN attgenerated <> '' OR attidentity = 'a'
                THEN format('the column %s of %s is generated', needed_column.name, takes_rows.name)
            ELSE format(
                'the column %s of %s has the type %s, which is too small',
                needed_column.name, takes_rows.name, format_type(atttypid, atttypmod)
            )
        END,
        CASE
            WHEN attgenerated <> ''
                THEN format('ALTER TABLE %s ALTER COLUMN %s DROP EXPRESSION', takes_rows.name, needed_column.name)
            WHEN attidentity = 'a'
                THEN format('ALTER TABLE %s ALTER COLUMN %s DROP IDENTITY', takes_rows.name, needed_column.name)
            ELSE format(
                'ALTER TABLE %s ALTER COLUMN %s TYPE %s', takes_rows.name, needed_column.name, needed_column.type
            )
        END
    FROM takes_rows
    CROSS JOIN needed_column
    JOIN pg_attribute ON attrelid = takes_rows.oid AND attname = needed_column.name
    WHERE attgenerated <> '' OR attidentity = 'a'
        OR (needed_column.name = 'app_version' AND atttypid = 'int2'::regtype)
        -- The length of a varchar or char is 4 less than its modifier.
        OR (atttypid IN ('varchar'::regtype, 'bpchar'::regtype) AND atttypmod BETWEEN 4 AND min_length + 3)

    -- If a trigger may fill such a column, the proof decides.
    UNION ALL
    SELECT 300 + attnum, false,
        format('the column %I of %s is NOT NULL and has no default', attname, takes_rows.name),
        format(
            'ALTER TABLE %s ALTER COLUMN %I %s', takes_rows.name, attname,
            CASE
                WHEN atttypid IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype)
                    THEN 'ADD GENERATED BY DEFAULT AS IDENTITY'
                WHEN atttypid = 'uuid'::regtype THEN 'SET DEFAULT gen_random_uuid()'
                WHEN atttypid IN ('date'::regtype, 'timestamp'::regtype, 'timestamptz'::regtype)
                    THEN 'SET DEFAULT now()'
                ELSE 'DROP NOT NULL'
            END
        )
    FROM takes_rows
    JOIN pg_attribute ON attrelid = takes_rows.oid
    WHERE attnum > 0 AND NOT attisdropped AND attnotnull AND NOT atthasdef AND attidentity = ''
        AND attname NOT IN (SELECT needed_column.name FROM needed_column)
        AND NOT EXISTS (SELECT FROM pg_type WHERE pg_type.oid = atttypid AND typdefault IS NOT NULL)
        AND NOT EXISTS (
            SELECT FROM pg_trigger
            -- The bits of a trigger that runs before each row of an INSERT.
            WHERE tgrelid = takes_rows.oid AND NOT tgisinternal AND tgtype & 7 = 7
        )

    UNION ALL
    SELECT 900, true,
        format('the database has the encoding %s: a message with a character that it lacks fails', encoding),
        'create the database with the encoding UTF8'
    FROM pg_encoding_to_char((SELECT encoding FROM pg_database WHERE datname = current_database())) AS encoding
    WHERE encoding NOT IN ('UTF8', 'SQL_ASCII')
)
SELECT is_warning, problem, remedy FROM finding ORDER BY place, problem
