-- How old the changes of each sync were when they were committed. The age of the newest change,
-- which was stored before, is always small and says nothing about the others.
ALTER TABLE clerk.sync_runs
    -- Changes that have a time of their own.
    ADD COLUMN age_count bigint NOT NULL DEFAULT 0,
    -- Their ages in milliseconds, ascending. Of more than 100 changes, 100 evenly spaced ages.
    ADD COLUMN ages_ms bigint[];

UPDATE clerk.sync_runs SET freshness_ms = NULL WHERE freshness_ms IS NOT NULL;

COMMENT ON COLUMN clerk.sync_runs.freshness_ms IS 'Median age of the changes of this sync when they were committed, in milliseconds';
