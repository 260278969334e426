ALTER TABLE clerk.sync_state DROP COLUMN lease_ttl;
ALTER TABLE clerk.standbys DROP COLUMN ttl;
ALTER TABLE clerk.leader DROP COLUMN ttl;
