-- Projections: tables of the application that are kept in sync from the mirror.

CREATE TABLE clerk.projections (
    -- Schema and table, each quoted if SQL needs it.
    table_name text PRIMARY KEY,
    resource text NOT NULL,
    mapping text,
    applied_at timestamptz,
    removes_since timestamptz,
    -- none, held: the new mapping waits for a person, or approved: a person let it through.
    hold text NOT NULL DEFAULT 'none'
        CONSTRAINT projections_hold_check CHECK (hold = 'none'::text OR hold = 'held'::text OR hold = 'approved'::text),
    held_mapping text,
    held_changes bigint,
    held_at timestamptz,
    approved_at timestamptz,
    problem text,
    rows bigint,
    repaired bigint,
    compared_at timestamptz,
    -- The times belong to the states, so that nobody holds or approves a mapping by a time alone.
    CONSTRAINT projections_held_at_check CHECK ((held_at IS NULL) = (hold = 'none'::text)),
    CONSTRAINT projections_approved_at_check CHECK ((approved_at IS NULL) = (hold <> 'approved'::text))
);

COMMENT ON TABLE clerk.projections IS 'Tables of the application that are kept in sync from the mirror';
COMMENT ON COLUMN clerk.projections.table_name IS 'Schema and table, each quoted if SQL needs it: public."User"';
COMMENT ON COLUMN clerk.projections.resource IS 'What kind of object the rows are made from: users';
COMMENT ON COLUMN clerk.projections.mapping IS 'Digest of the mapping that the table agrees with; NULL until a full sync has applied it';
COMMENT ON COLUMN clerk.projections.applied_at IS 'When a full sync had applied that mapping';
COMMENT ON COLUMN clerk.projections.removes_since IS 'Since when rows are removed from the table; the first time, rows with unknown ids are held';
COMMENT ON COLUMN clerk.projections.hold IS 'none, held: a new mapping would change too many rows and waits for a person, or approved: a person approved it';
COMMENT ON COLUMN clerk.projections.held_mapping IS 'Digest of the mapping that waits or is approved';
COMMENT ON COLUMN clerk.projections.held_changes IS 'How many rows that mapping would change';
COMMENT ON COLUMN clerk.projections.problem IS 'Why the table is not kept in sync at the moment; NULL if it is';
COMMENT ON COLUMN clerk.projections.rows IS 'Rows of the table at the last full sync';
COMMENT ON COLUMN clerk.projections.repaired IS 'Rows that differed at the last full sync although nobody changed them at Clerk';
COMMENT ON COLUMN clerk.projections.compared_at IS 'When a full sync last compared the table with the mirror';

CREATE TABLE clerk.departures (
    table_name text,
    object_id text,
    -- unknown, or excluded
    reason text NOT NULL
        CONSTRAINT departures_reason_check CHECK (reason = 'unknown'::text OR reason = 'excluded'::text),
    found_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    -- none, held: the departure waits for a person, or approved: a person let it through.
    hold text NOT NULL DEFAULT 'none'
        CONSTRAINT departures_hold_check CHECK (hold = 'none'::text OR hold = 'held'::text OR hold = 'approved'::text),
    held_at timestamptz,
    approved_at timestamptz,
    PRIMARY KEY (table_name, object_id),
    CONSTRAINT departures_held_at_check CHECK ((held_at IS NULL) = (hold = 'none'::text)),
    CONSTRAINT departures_approved_at_check CHECK ((approved_at IS NULL) = (hold <> 'approved'::text))
);

COMMENT ON TABLE clerk.departures IS 'Rows of the application''s tables that are to go';
COMMENT ON COLUMN clerk.departures.object_id IS 'Clerk''s id';
COMMENT ON COLUMN clerk.departures.reason IS 'unknown: neither the mirror nor Clerk knows the id. excluded: the mapping''s condition excludes the object';
COMMENT ON COLUMN clerk.departures.hold IS 'none, held: the row waits for a person, or approved: a person let it go';

CREATE TABLE clerk.rejected_rows (
    table_name text,
    object_id text,
    -- write, or remove
    action text NOT NULL
        CONSTRAINT rejected_rows_action_check CHECK (action = 'write'::text OR action = 'remove'::text),
    reason text NOT NULL,
    sqlstate text,
    first_seen_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    last_seen_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    -- The sync that tried it last.
    run bigint,
    PRIMARY KEY (table_name, object_id)
);

COMMENT ON TABLE clerk.rejected_rows IS 'Rows of the application''s tables that could not be written or removed';
COMMENT ON COLUMN clerk.rejected_rows.object_id IS 'Clerk''s id';
COMMENT ON COLUMN clerk.rejected_rows.action IS 'What was tried: write or remove';
COMMENT ON COLUMN clerk.rejected_rows.sqlstate IS 'Postgres'' code; NULL if there is none';
COMMENT ON COLUMN clerk.rejected_rows.run IS 'The sync that tried it last';

-- Ids as ORMs make them in the application, for tables whose own key has no default. PostgreSQL
-- inlines both functions as long as they are plain expressions. They have no subquery, because
-- PostgreSQL would evaluate it once per statement instead of once per row. gen_random_uuid is the
-- strong source of random bits, and takes most of the time. Bytes 7 and 9 of a UUID have fixed bits.

-- The hash spreads the 122 random bits of one UUID, which is faster than a second UUID. At least 120
-- remain: of base64's characters, two give each letter and two of the digits, and one gives each
-- other digit. Without its highest bit, the first byte gives one of the first 32 characters of
-- base64's alphabet, which are letters.
CREATE FUNCTION clerk.cuid() RETURNS text
LANGUAGE sql VOLATILE PARALLEL SAFE
RETURN pg_catalog.translate(
    pg_catalog.lower(pg_catalog.encode(
        pg_catalog.set_bit(
            pg_catalog.substr(pg_catalog.sha256(pg_catalog.uuid_send(pg_catalog.gen_random_uuid())), 1, 18), 7, 0),
        'base64'::text) COLLATE pg_catalog."C"),
    '+/'::text, '01'::text);

COMMENT ON FUNCTION clerk.cuid() IS 'A new id in the form of cuid2: 24 lower-case letters and digits, a letter first';

-- The last seven bytes of one UUID replace bytes 7 to 9 of another one. The 20 bytes are random and
-- give 26 characters, so a longer id is made of several parts. A function that calls itself needs
-- its body as a string. Therefore operators have their schema here.
CREATE FUNCTION clerk.nanoid(size integer DEFAULT 21) RETURNS text
LANGUAGE sql VOLATILE PARALLEL SAFE
AS $body$
SELECT CASE
    WHEN size OPERATOR(pg_catalog.>) 26
    THEN clerk.nanoid(26) OPERATOR(pg_catalog.||) clerk.nanoid(size OPERATOR(pg_catalog.-) 26)
    ELSE pg_catalog.substr(pg_catalog.translate(
        pg_catalog.encode(pg_catalog.overlay(
            pg_catalog.uuid_send(pg_catalog.gen_random_uuid()),
            pg_catalog.substr(pg_catalog.uuid_send(pg_catalog.gen_random_uuid()), 10), 7, 3), 'base64'),
        '+/', '-_'), 1, size)
END
$body$;

COMMENT ON FUNCTION clerk.nanoid(integer) IS 'A new id in the form of nanoid: letters, digits, - and _';
