COMMENT ON COLUMN clerk.sync_runs.freshness_ms IS NULL;
ALTER TABLE clerk.sync_runs DROP COLUMN age_count, DROP COLUMN ages_ms;
