DROP TABLE clerk.standbys;
DROP TABLE clerk.leader;
