-- When rows were deleted without a person's approval. The guard judges new deletions together with
-- those of the last hour, by the time at which the rows were deleted: a sync may take longer than
-- an hour.
CREATE TABLE clerk.recent_deletions (
    deleted_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    users bigint NOT NULL
);

COMMENT ON TABLE clerk.recent_deletions IS 'How many rows were deleted without approval, and when; rows are kept for an hour';

INSERT INTO clerk.recent_deletions (deleted_at, users)
SELECT coalesce(ended_at, started_at), deleted - approved FROM clerk.sync_runs
WHERE deleted > approved AND started_at > pg_catalog.now() - interval '1 hour';
