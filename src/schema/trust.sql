-- Returns what lets another role act as the role that runs this query, each with its remedy. $1 is the schema, $2
-- whether all its tables and functions are ours. The caller sets the search_path to pg_catalog: in the schema itself, a
-- planted function could replace a function of this query.
WITH RECURSIVE
me AS (
    SELECT oid, quote_ident(rolname) AS name FROM pg_roles WHERE rolname = current_user
),
home AS (
    SELECT oid, quote_ident(nspname) AS name, nspowner, nspacl FROM pg_namespace WHERE nspname = $1
),
-- The roles whose rights this role has. They do not include login_writer and login_reader: an administrator makes
-- this role a member of them, and they must not become its owners.
my_role (oid) AS (
    SELECT oid FROM me
    UNION
    SELECT membership.roleid
    FROM pg_auth_members AS membership
    JOIN my_role ON my_role.oid = membership.member
    WHERE pg_get_userbyid(membership.roleid) NOT IN ('login_writer', 'login_reader')
        -- Since Postgres 16, a role becomes a member of each role that it creates, but does not inherit its rights.
        AND coalesce((to_jsonb(membership) ->> 'inherit_option')::boolean, true)
),
-- Each of these can replace the objects of the schema anyway.
powerful (oid) AS (
    SELECT oid FROM my_role
    UNION
    SELECT nspowner FROM home
    UNION
    SELECT datdba FROM pg_database WHERE datname = current_database()
),
trusted AS (
    SELECT pg_roles.oid
    FROM pg_roles
    WHERE rolsuper
        OR rolname = 'pg_database_owner'
        OR EXISTS (SELECT FROM powerful WHERE pg_has_role(pg_roles.oid, powerful.oid, 'MEMBER'))
),
-- Our tables, with their partitions and, if one is a view, the tables below it.
our_table (oid) AS (
    SELECT pg_class.oid
    FROM pg_class
    JOIN home ON pg_class.relnamespace = home.oid
    WHERE $2 OR relname IN (
        'user_logins', 'processed_messages', 'processed_fifo_messages', 'salt_fingerprint',
        'login_etl_migrations', 'refinery_schema_history',
        'vault_keys', 'vault_inbox', 'vault_streams', 'vault_sealed', 'vault_erased', 'vault_audit',
        'vault_honey', 'vault_listed'
    )
    UNION
    SELECT below.oid
    FROM our_table
    CROSS JOIN LATERAL (
        SELECT inhrelid AS oid FROM pg_inherits WHERE inhparent = our_table.oid
        UNION ALL
        SELECT refobjid
        FROM pg_rewrite
        JOIN pg_depend ON classid = 'pg_rewrite'::regclass AND objid = pg_rewrite.oid
        WHERE ev_class = our_table.oid AND refclassid = 'pg_class'::regclass
    ) AS below
),
-- What Postgres evaluates when a row is read or written.
evaluated (classid, objid) AS (
    SELECT 'pg_trigger'::regclass, pg_trigger.oid FROM pg_trigger JOIN our_table ON tgrelid = our_table.oid
    UNION ALL
    SELECT 'pg_attrdef'::regclass, pg_attrdef.oid FROM pg_attrdef JOIN our_table ON adrelid = our_table.oid
    UNION ALL
    SELECT 'pg_constraint'::regclass, pg_constraint.oid FROM pg_constraint JOIN our_table ON conrelid = our_table.oid
    UNION ALL
    SELECT 'pg_rewrite'::regclass, pg_rewrite.oid FROM pg_rewrite JOIN our_table ON ev_class = our_table.oid
    UNION ALL
    SELECT 'pg_policy'::regclass, pg_policy.oid FROM pg_policy JOIN our_table ON polrelid = our_table.oid
    UNION ALL
    SELECT 'pg_class'::regclass, indexrelid FROM pg_index JOIN our_table ON indrelid = our_table.oid
),
our_object AS (
    SELECT our_table.oid::regclass::text AS name, relowner AS owner
    FROM our_table JOIN pg_class ON pg_class.oid = our_table.oid
    UNION
    SELECT pg_proc.oid::regprocedure::text, proowner
    FROM pg_proc
    JOIN home ON pg_proc.pronamespace = home.oid
    WHERE $2 OR proname IN (
        'check_salt', 'decide_salt', 'write_logins', 'write_fifo_logins', 'write_logins_row_by_row', 'check_vault_key',
        'vault_write_logins', 'vault_write_fifo_logins', 'vault_write_logins_row_by_row', 'vault_lock', 'vault_find',
        'vault_fold', 'vault_ask', 'vault_use', 'vault_flush', 'vault_take', 'vault_tell', 'vault_forget',
        'vault_clear_rows', 'vault_erase', 'vault_erase_user', 'vault_salt', 'vault_entries', 'vault_key_states',
        'vault_sample', 'vault_plant', 'vault_is_honey', 'vault_check_erasing', 'vault_list', 'vault_erase_rows',
        'vault_replay'
    )
    UNION
    SELECT pg_proc.oid::regprocedure::text, proowner
    FROM evaluated
    JOIN pg_depend ON pg_depend.classid = evaluated.classid AND pg_depend.objid = evaluated.objid
    JOIN pg_proc ON refclassid = 'pg_proc'::regclass AND pg_proc.oid = refobjid
),
finding (place, problem, remedy) AS (
    SELECT 1,
        format(
            '%s may create objects in the schema %s, and could use this to act as %s',
            CASE WHEN grantee = 0 THEN 'every role' ELSE quote_ident(pg_get_userbyid(grantee)) END, home.name, me.name
        ),
        format(
            'REVOKE CREATE ON SCHEMA %s FROM %s', home.name,
            CASE WHEN grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END
        )
        -- Without the privilege of PUBLIC, this role may lack it too.
        || CASE
            WHEN grantee = 0
                AND NOT pg_has_role(home.nspowner, 'USAGE')
                AND NOT EXISTS (
                    SELECT FROM aclexplode(home.nspacl) AS own
                    WHERE own.privilege_type = 'CREATE' AND own.grantee <> 0 AND pg_has_role(own.grantee, 'USAGE')
                )
                THEN format('; GRANT CREATE ON SCHEMA %s TO %s', home.name, me.name)
            ELSE ''
        END
    FROM me, home, aclexplode(home.nspacl) AS granted
    WHERE privilege_type = 'CREATE' AND grantee NOT IN (SELECT oid FROM trusted)

    -- Reading or writing such an object runs code of its owner.
    UNION ALL
    SELECT 2,
        format(
            CASE
                WHEN pg_get_userbyid(owner) IN ('login_writer', 'login_reader')
                    THEN '%1$I owns %2$s, and could use this to act as %3$s'
                ELSE '%1$I owns %2$s, and could use this to act as %3$s (if you trust %1$I)'
            END,
            pg_get_userbyid(owner), string_agg(our_object.name, ', ' ORDER BY our_object.name), me.name
        ),
        format(
            CASE
                WHEN pg_get_userbyid(owner) IN ('login_writer', 'login_reader') THEN 'REASSIGN OWNED BY %I TO %s'
                ELSE 'GRANT %I TO %s'
            END,
            pg_get_userbyid(owner), me.name
        )
    FROM me, our_object
    WHERE owner NOT IN (SELECT oid FROM trusted)
    GROUP BY owner, me.name

    UNION ALL
    SELECT 3,
        format('%s may create triggers on %s, and could use this to act as %s', grantee_name, tables, me.name),
        format(
            'REVOKE TRIGGER ON %s FROM %s', tables,
            CASE WHEN grantee_name = 'every role' THEN 'PUBLIC' ELSE grantee_name END
        )
    FROM me, (
        SELECT string_agg(our_table.oid::regclass::text, ', ' ORDER BY our_table.oid::regclass::text) AS tables,
            CASE WHEN grantee = 0 THEN 'every role' ELSE quote_ident(pg_get_userbyid(grantee)) END AS grantee_name
        FROM our_table
        JOIN pg_class ON pg_class.oid = our_table.oid
        CROSS JOIN LATERAL aclexplode(relacl) AS granted
        WHERE privilege_type = 'TRIGGER' AND grantee <> relowner AND grantee NOT IN (SELECT oid FROM trusted)
        GROUP BY grantee
    ) AS granted

    -- The older migrations and triggers call functions by their bare names. Postgres then prefers a function with the
    -- exact types to its own polymorphic function.
    UNION ALL
    SELECT 4,
        format('%I owns %s, which hides a function of Postgres', pg_get_userbyid(proowner), pg_proc.oid::regprocedure),
        format('DROP ROUTINE %s', pg_proc.oid::regprocedure)
    FROM pg_proc
    JOIN home ON pg_proc.pronamespace = home.oid
    WHERE proowner NOT IN (SELECT oid FROM trusted)
        AND proname IN (SELECT proname FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace)

    UNION ALL
    SELECT 5,
        format('%I owns %s, which hides an operator of Postgres', pg_get_userbyid(oprowner), pg_operator.oid::regoperator),
        format('DROP OPERATOR %s', pg_operator.oid::regoperator)
    FROM pg_operator
    JOIN home ON pg_operator.oprnamespace = home.oid
    WHERE oprowner NOT IN (SELECT oid FROM trusted)
        AND oprname IN (SELECT oprname FROM pg_operator WHERE oprnamespace = 'pg_catalog'::regnamespace)
)
SELECT problem, remedy FROM finding ORDER BY place, problem
