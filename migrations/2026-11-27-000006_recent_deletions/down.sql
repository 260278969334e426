DROP TABLE clerk.recent_deletions;
