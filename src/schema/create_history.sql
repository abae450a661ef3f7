-- The columns are those of refinery's own table, from which old rows are copied.
CREATE TABLE login_etl_migrations (
    version    integer PRIMARY KEY,
    name       varchar(255) NOT NULL,
    applied_on varchar(255) NOT NULL,
    checksum   varchar(255) NOT NULL
)
