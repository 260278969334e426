-- A reader of clerk.user_events in plain SQL; docs/events.md explains it. It keeps app.accounts in sync with the users, and leaves jobs for
-- others to do. Each run reads one batch:
--
--   psql "$DATABASE_URL" --no-psqlrc --quiet -v ON_ERROR_STOP=1 -f reader.sql
--
-- reader.ts does the same work under the same name; they can take turns, and may even run side by side.

-- 1. Once: the tables.

-- Names are PostgreSQL's own or written with their schema, so that nobody's look-alikes are found.
SET search_path = '';
SET client_min_messages = warning;  -- no word about what exists already

SELECT to_regnamespace('app') IS NULL AS new \gset
\if :new
CREATE SCHEMA app;
\endif

CREATE TABLE IF NOT EXISTS app.clerk_events_read (
    reader text PRIMARY KEY,
    -- The last event that was handled.
    last_id bigint NOT NULL,
    -- All that was recorded before this has been handled.
    read_to timestamptz NOT NULL
);

-- No foreign key to clerk.users: the user of an old event may be gone by now.
CREATE TABLE IF NOT EXISTS app.accounts (
    user_id text PRIMARY KEY,
    email text
);

CREATE TABLE IF NOT EXISTS app.jobs (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind text NOT NULL,
    user_id text NOT NULL,
    event_id bigint NOT NULL
);

-- 2. At the first start, and after an absence of nearly events.keep (30 days): from the users as they are now.

SELECT
    p.reader IS NULL AND s.imported_at IS NULL AS early,
    s.imported_at IS NOT NULL
    AND (p.reader IS NULL
        OR p.read_to < now() - interval '29 days'
        -- The schema clerk was made anew, and its ids began again.
        OR coalesce(p.last_id > e.newest, false)) AS start_over
FROM clerk.resource_state s
CROSS JOIN (SELECT max(id) AS newest FROM clerk.user_events) e
LEFT JOIN app.clerk_events_read p ON p.reader = 'accounts'
WHERE s.resource = 'users' \gset

-- Not before the first full sync is done, as that one makes no events.
\if :early
\quit
\endif

\if :start_over
-- One snapshot for the position and the users: whatever is not in these users comes as an event after this position.
BEGIN ISOLATION LEVEL REPEATABLE READ;

INSERT INTO app.clerk_events_read (reader, last_id, read_to)
SELECT 'accounts', coalesce(max(id), 0), now() FROM clerk.user_events
ON CONFLICT (reader) DO UPDATE SET last_id = excluded.last_id, read_to = excluded.read_to;

INSERT INTO app.accounts AS a (user_id, email)
SELECT id, primary_email FROM clerk.users WHERE deleted_at IS NULL
ON CONFLICT (user_id) DO UPDATE SET email = excluded.email WHERE a.email IS DISTINCT FROM excluded.email;

DELETE FROM app.accounts a
WHERE NOT EXISTS (SELECT FROM clerk.users u WHERE u.id = a.user_id AND u.deleted_at IS NULL);

COMMIT;
\endif

-- 3. A batch: fetch, handle, advance, in one transaction.

BEGIN;

-- Whoever else reads under this name waits here, and then goes on from the new position.
SELECT last_id FROM app.clerk_events_read WHERE reader = 'accounts' FOR UPDATE \gset

CREATE TEMPORARY TABLE batch ON COMMIT DROP AS
SELECT id, type, user_id, changed, recorded_at FROM clerk.user_events WHERE id > :last_id ORDER BY id LIMIT 1000;

-- One way to handle events: they say whom to look at, and clerk.users says how they are now.
INSERT INTO app.accounts AS a (user_id, email)
SELECT id, primary_email FROM clerk.users WHERE id IN (SELECT user_id FROM batch) AND deleted_at IS NULL
ON CONFLICT (user_id) DO UPDATE SET email = excluded.email WHERE a.email IS DISTINCT FROM excluded.email;

DELETE FROM app.accounts a
WHERE user_id IN (SELECT user_id FROM batch)
    AND NOT EXISTS (SELECT FROM clerk.users u WHERE u.id = a.user_id AND u.deleted_at IS NULL);

-- The other: each event has its effect, once.
INSERT INTO app.jobs (kind, user_id, event_id)
SELECT kind, user_id, id
FROM (
    SELECT id, user_id, CASE
        WHEN type = 'user.created' THEN 'welcome'
        WHEN type = 'user.deleted' THEN 'farewell'
        WHEN changed && '{email_addresses,primary_email_address_id}' THEN 'new_address'
    END AS kind
    FROM batch
) job
WHERE kind IS NOT NULL
ORDER BY id;

-- A full batch was read up to its last event, another one up to now.
UPDATE app.clerk_events_read SET
    last_id = coalesce((SELECT max(id) FROM batch), last_id),
    read_to = CASE WHEN (SELECT count(*) FROM batch) = 1000 THEN (SELECT max(recorded_at) FROM batch) ELSE now() END
WHERE reader = 'accounts'
RETURNING last_id, (SELECT count(*) FROM batch) AS events;

COMMIT;
