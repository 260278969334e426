DROP INDEX clerk.users_created_at_idx;
CREATE INDEX users_created_at_idx ON clerk.users (created_at, id);
ALTER TABLE clerk.rejected_users DROP COLUMN digest, DROP COLUMN created_at;
DROP INDEX clerk.sync_runs_started_at_idx;
DROP INDEX clerk.sync_runs_running_idx;
ALTER TABLE clerk.sync_runs DROP COLUMN freshness_ms, DROP COLUMN approved;
ALTER TABLE clerk.sync_state DROP COLUMN watermark, DROP COLUMN users, DROP COLUMN imported_at;
DROP TABLE clerk.user_events;
