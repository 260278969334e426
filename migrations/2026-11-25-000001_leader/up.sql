-- Which of several daemons leads. Only the leader asks Clerk. Separate from the lease, whose row is
-- locked while a batch is written.
CREATE TABLE clerk.leader (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    holder text,
    -- Extended only while others stand by: a daemon that is alone writes nothing while there is
    -- nothing to do.
    expires_at timestamptz
);
INSERT INTO clerk.leader DEFAULT VALUES;

-- Daemons that wait to take over.
CREATE TABLE clerk.standbys (
    holder text PRIMARY KEY,
    -- When it began to wait: a leader has the time of a lease to notice it.
    since timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    expires_at timestamptz NOT NULL
);
