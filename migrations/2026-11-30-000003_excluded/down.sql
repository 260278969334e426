ALTER TABLE clerk.sync_state DROP COLUMN excluded, DROP COLUMN erasing;
ALTER TABLE clerk.resource_state DROP COLUMN rereads;
