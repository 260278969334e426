-- Of several daemons one leads: it alone asks Clerk. Apart from the lease, whose row is locked for as long as a batch is being written.
CREATE TABLE clerk.leader (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    holder text,
    -- Put off only while others stand by: a daemon alone writes nothing while there is nothing to do.
    expires_at timestamptz
);
INSERT INTO clerk.leader DEFAULT VALUES;

-- Daemons that wait to take over.
CREATE TABLE clerk.standbys (
    holder text PRIMARY KEY,
    -- Since when: a leader has the time of a lease to notice that somebody waits.
    since timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    expires_at timestamptz NOT NULL
);
