-- What changed, in order, in the form of Clerk's own webhook events. Written in the transaction
-- that changed the row, by one writer at a time. So ids follow the order of commits, though they
-- may have gaps.
CREATE TABLE clerk.user_events (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- user.created, user.updated or user.deleted
    type text NOT NULL,
    user_id text NOT NULL,
    -- When it happened at Clerk, if Clerk says so; otherwise when clerk2pg noticed it.
    occurred_at timestamptz NOT NULL,
    -- Names of the fields that an update changed.
    changed text[] NOT NULL DEFAULT '{}',
    payload jsonb NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT pg_catalog.now()
);

COMMENT ON TABLE clerk.user_events IS 'What changed in clerk.users, in order; NOTIFY clerk_user_events tells of new ones';
COMMENT ON COLUMN clerk.user_events.payload IS 'The envelope of Clerk''s webhooks: data, object, type, timestamp, instance_id';

ALTER TABLE clerk.sync_state
    -- The newest updated_at that was seen at Clerk. All changes before it, less an overlap, are in
    -- the mirror.
    ADD COLUMN watermark timestamptz,
    -- Rows of clerk.users that are not marked as deleted. Updated in the transactions that add and
    -- remove them.
    ADD COLUMN users bigint NOT NULL DEFAULT 0,
    -- When the first full sync was completed. Until then there are no events, unless events.initial
    -- is set.
    ADD COLUMN imported_at timestamptz;

UPDATE clerk.sync_state SET
    users = (SELECT pg_catalog.count(*) FROM clerk.users WHERE deleted_at IS NULL),
    imported_at = (SELECT pg_catalog.min(ended_at) FROM clerk.sync_runs WHERE kind = 'full' AND outcome IN ('in_step', 'changed', 'held'));

ALTER TABLE clerk.sync_runs
    -- Deletions that a person had approved.
    ADD COLUMN approved bigint NOT NULL DEFAULT 0,
    -- Age of the newest change when it was committed, in milliseconds; NULL if nothing changed that
    -- has a time of its own.
    ADD COLUMN freshness_ms bigint;

-- Syncs run every few seconds, and each looks for an interrupted one.
CREATE INDEX sync_runs_running_idx ON clerk.sync_runs (id) WHERE outcome = 'running';
CREATE INDEX sync_runs_started_at_idx ON clerk.sync_runs (started_at);

ALTER TABLE clerk.rejected_users
    -- Digest and creation time of the document, so that the same document is not tried again, and
    -- its place in Clerk's list is known.
    ADD COLUMN digest bytea,
    ADD COLUMN created_at timestamptz;

-- Ranges of the mirror are counted with this index alone.
DROP INDEX clerk.users_created_at_idx;
CREATE INDEX users_created_at_idx ON clerk.users (created_at, id) INCLUDE (deleted_at);
