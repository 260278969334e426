ALTER TABLE clerk.sync_state DROP COLUMN excluded;
