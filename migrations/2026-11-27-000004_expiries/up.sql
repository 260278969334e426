-- How far ahead each expiry was set. An expiry further ahead than that was set before the clock
-- went back, and counts as expired. NULL: set by an older version.
ALTER TABLE clerk.leader ADD COLUMN ttl interval;
ALTER TABLE clerk.standbys ADD COLUMN ttl interval;
ALTER TABLE clerk.sync_state ADD COLUMN lease_ttl interval;
