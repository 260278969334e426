ALTER TABLE clerk.rejected_users
    -- The code that Postgres refused the row with: 02000 if a trigger of the application skipped it
    -- without an error, 55P03 if the application had locked it. NULL if the document itself cannot
    -- be stored.
    ADD COLUMN sqlstate text,
    -- The last sync that tried it, in clerk.sync_runs.
    ADD COLUMN run bigint;
