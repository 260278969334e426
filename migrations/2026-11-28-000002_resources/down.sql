DROP VIEW clerk.user_events;
DROP VIEW clerk.rejected_users;
DROP VIEW clerk.missing_users;

DELETE FROM clerk.events WHERE resource <> 'users'::text;
ALTER TABLE clerk.events DROP COLUMN resource;
ALTER TABLE clerk.events RENAME COLUMN object_id TO user_id;
ALTER TABLE clerk.events RENAME CONSTRAINT events_pkey TO user_events_pkey;
ALTER SEQUENCE clerk.events_id_seq RENAME TO user_events_id_seq;
ALTER TABLE clerk.events RENAME TO user_events;
COMMENT ON TABLE clerk.user_events IS 'What changed in clerk.users, in order; NOTIFY clerk_user_events tells of new ones';

DELETE FROM clerk.rejected WHERE resource <> 'users'::text;
ALTER TABLE clerk.rejected DROP COLUMN resource;
ALTER TABLE clerk.rejected RENAME COLUMN object_id TO user_id;
ALTER TABLE clerk.rejected RENAME TO rejected_users;
ALTER TABLE clerk.rejected_users ADD PRIMARY KEY (user_id);

DELETE FROM clerk.missing WHERE resource <> 'users'::text;
ALTER TABLE clerk.missing ADD COLUMN absent boolean NOT NULL DEFAULT false;
UPDATE clerk.missing SET absent = true WHERE state = 'absent'::text;
ALTER TABLE clerk.missing DROP COLUMN resource, DROP COLUMN state, DROP COLUMN hold;
ALTER TABLE clerk.missing RENAME COLUMN object_id TO user_id;
ALTER TABLE clerk.missing RENAME TO missing_users;
ALTER TABLE clerk.missing_users ADD PRIMARY KEY (user_id);

DELETE FROM clerk.recent_deletions WHERE resource <> 'users'::text;
ALTER TABLE clerk.recent_deletions DROP COLUMN resource;
ALTER TABLE clerk.recent_deletions RENAME COLUMN objects TO users;

ALTER TABLE clerk.sync_state
    ADD COLUMN checkpoint jsonb,
    ADD COLUMN watermark timestamptz,
    ADD COLUMN users bigint NOT NULL DEFAULT 0,
    ADD COLUMN imported_at timestamptz;
UPDATE clerk.sync_state AS s SET checkpoint = r.checkpoint, watermark = r.watermark, users = r.objects, imported_at = r.imported_at
FROM clerk.resource_state AS r WHERE r.resource = 'users'::text;
DROP TABLE clerk.resource_state;
