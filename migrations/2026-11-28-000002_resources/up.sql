-- Bookkeeping by resource: the kind of Clerk's objects that a row is about. Until now all rows are
-- about users. The old names stay as views, for reading.

-- A sync locks this table first, too.
LOCK TABLE clerk.sync_state IN ACCESS EXCLUSIVE MODE;

ALTER TABLE clerk.user_events RENAME TO events;
ALTER TABLE clerk.events RENAME COLUMN user_id TO object_id;
ALTER TABLE clerk.events ADD COLUMN resource text NOT NULL DEFAULT 'users';
ALTER TABLE clerk.events ALTER COLUMN resource DROP DEFAULT;
ALTER TABLE clerk.events RENAME CONSTRAINT user_events_pkey TO events_pkey;
ALTER SEQUENCE clerk.user_events_id_seq RENAME TO events_id_seq;

COMMENT ON TABLE clerk.events IS 'Changes of the mirrored objects, in order; NOTIFY clerk_events announces new ones';
COMMENT ON COLUMN clerk.events.resource IS 'What kind of object changed: users';

CREATE VIEW clerk.user_events AS
SELECT id, type, object_id AS user_id, occurred_at, changed, payload, recorded_at
FROM clerk.events WHERE resource = 'users'::text;

COMMENT ON VIEW clerk.user_events IS 'The events about users; NOTIFY clerk_user_events announces new ones';

ALTER TABLE clerk.rejected_users RENAME TO rejected;
ALTER TABLE clerk.rejected RENAME COLUMN user_id TO object_id;
ALTER TABLE clerk.rejected ADD COLUMN resource text NOT NULL DEFAULT 'users';
ALTER TABLE clerk.rejected ALTER COLUMN resource DROP DEFAULT;
ALTER TABLE clerk.rejected DROP CONSTRAINT rejected_users_pkey;
ALTER TABLE clerk.rejected ADD PRIMARY KEY (resource, object_id);

CREATE VIEW clerk.rejected_users AS
SELECT object_id AS user_id, reason, first_seen_at, last_seen_at, document, digest, created_at, sqlstate, run
FROM clerk.rejected WHERE resource = 'users'::text;

ALTER TABLE clerk.missing_users RENAME TO missing;
ALTER TABLE clerk.missing RENAME COLUMN user_id TO object_id;
ALTER TABLE clerk.missing
    ADD COLUMN resource text NOT NULL DEFAULT 'users',
    -- missing: a list left the object out. absent: Clerk left it out as well when the sync asked
    -- for its id.
    ADD COLUMN state text NOT NULL DEFAULT 'missing',
    -- none, held: the deletion waits for a person, or approved: a person let it through.
    ADD COLUMN hold text NOT NULL DEFAULT 'none';
UPDATE clerk.missing SET
    state = CASE WHEN absent THEN 'absent'::text ELSE 'missing'::text END,
    hold = CASE WHEN approved_at IS NOT NULL THEN 'approved'::text WHEN held_at IS NOT NULL THEN 'held'::text ELSE 'none'::text END,
    held_at = coalesce(held_at, approved_at);
ALTER TABLE clerk.missing
    ALTER COLUMN resource DROP DEFAULT,
    DROP COLUMN absent,
    ADD CONSTRAINT missing_state_check CHECK (state = 'missing'::text OR state = 'absent'::text),
    ADD CONSTRAINT missing_hold_check CHECK (hold = 'none'::text OR hold = 'held'::text OR hold = 'approved'::text),
    -- The times belong to the states, so that nobody holds or approves a deletion by a time alone.
    ADD CONSTRAINT missing_held_at_check CHECK ((held_at IS NULL) = (hold = 'none'::text)),
    ADD CONSTRAINT missing_approved_at_check CHECK ((approved_at IS NULL) = (hold <> 'approved'::text));
ALTER TABLE clerk.missing DROP CONSTRAINT missing_users_pkey;
ALTER TABLE clerk.missing ADD PRIMARY KEY (resource, object_id);

CREATE VIEW clerk.missing_users AS
SELECT object_id AS user_id, walk, found_at, state = 'absent'::text AS absent, held_at, approved_at
FROM clerk.missing WHERE resource = 'users'::text;

ALTER TABLE clerk.recent_deletions RENAME COLUMN users TO objects;
ALTER TABLE clerk.recent_deletions ADD COLUMN resource text NOT NULL DEFAULT 'users';
ALTER TABLE clerk.recent_deletions ALTER COLUMN resource DROP DEFAULT;

-- How far the mirror of each resource has come.
CREATE TABLE clerk.resource_state (
    resource text PRIMARY KEY,
    -- The walk over the whole list that is under way.
    checkpoint jsonb,
    -- The newest updated_at that was seen at Clerk. All changes before it, less an overlap, are in
    -- the mirror.
    watermark timestamptz,
    -- Rows that are not marked as deleted, kept in the transactions that add and remove them.
    objects bigint NOT NULL DEFAULT 0,
    -- When the first full sync was done. Until then there are no events, unless events.initial says
    -- so.
    imported_at timestamptz
);
INSERT INTO clerk.resource_state (resource, checkpoint, watermark, objects, imported_at)
SELECT 'users', checkpoint, watermark, users, imported_at FROM clerk.sync_state;
ALTER TABLE clerk.sync_state
    DROP COLUMN checkpoint,
    DROP COLUMN watermark,
    DROP COLUMN users,
    DROP COLUMN imported_at;

-- Roles that could read a table can read the view in its place.
DO $grants$
DECLARE
    granted record;
BEGIN
    FOR granted IN
        SELECT v.name AS view, r.rolname AS role
        FROM (VALUES ('events'::name, 'user_events'::text), ('rejected'::name, 'rejected_users'::text),
                     ('missing'::name, 'missing_users'::text)) AS v(tab, name)
        JOIN pg_catalog.pg_class AS c ON c.relname = v.tab
        JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace AND n.nspname = 'clerk'::name
        CROSS JOIN LATERAL pg_catalog.aclexplode(c.relacl) AS a(grantor, grantee, privilege, is_grantable)
        LEFT JOIN pg_catalog.pg_roles AS r ON r.oid = a.grantee
        WHERE a.privilege = 'SELECT'::text AND a.grantee <> c.relowner AND (r.oid IS NOT NULL OR a.grantee = 0::oid)
    LOOP
        EXECUTE pg_catalog.format('GRANT SELECT ON clerk.%I TO %s', granted.view,
            CASE WHEN granted.role IS NULL THEN 'PUBLIC'::text ELSE pg_catalog.quote_ident(granted.role::text) END);
    END LOOP;
END
$grants$;
