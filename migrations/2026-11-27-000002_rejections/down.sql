ALTER TABLE clerk.rejected_users
    DROP COLUMN run,
    DROP COLUMN sqlstate;
