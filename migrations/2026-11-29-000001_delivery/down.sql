DROP TABLE clerk.deliveries;
DROP TABLE clerk.endpoints;
