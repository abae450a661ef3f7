-- The books of a resalt. The search_path is this schema, then the schema of the logins. Whoever drops the schema gives
-- the resalt up: until its last step, nothing outside is changed.

CREATE TABLE state (
    only_row   boolean     PRIMARY KEY DEFAULT true CHECK (only_row),
    from_salt  text        NOT NULL,
    to_salt    text        NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE state IS 'The fingerprints of the two salts: one row. A step locks the table';

CREATE TABLE copies (
    source oid  PRIMARY KEY,
    name   text NOT NULL UNIQUE
);
COMMENT ON TABLE copies IS 'The tables that hold the rows of user_logins, and their copies in this schema';

CREATE TABLE parts (
    id          integer     GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    source      oid         NOT NULL REFERENCES copies ON DELETE CASCADE,
    first_block bigint      NOT NULL,
    end_block   bigint,
    seen        bigint,
    rows        bigint      NOT NULL DEFAULT 0
);
COMMENT ON TABLE parts IS 'The parts of the tables that are copied one by one';
COMMENT ON COLUMN parts.end_block IS 'The block after the last block; null: the part has all later blocks';
COMMENT ON COLUMN parts.seen IS 'The copy has the rows of all transactions before this number; null: nothing is copied yet';
