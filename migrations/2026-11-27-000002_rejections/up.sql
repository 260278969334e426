ALTER TABLE clerk.rejected_users
    -- The code that Postgres refused the row with; 02000 if a trigger of the application left it out without an error, 55P03 if the
    -- application holds a lock. NULL if the document itself cannot be stored.
    ADD COLUMN sqlstate text,
    -- The sync that tried it last, in clerk.sync_runs.
    ADD COLUMN run bigint;
