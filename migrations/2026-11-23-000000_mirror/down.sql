DROP TABLE clerk.sync_state;
DROP TABLE clerk.sync_runs;
DROP TABLE clerk.missing_users;
DROP TABLE clerk.rejected_users;
DROP FUNCTION clerk.user_document(clerk.users);
DROP TABLE clerk.users;
