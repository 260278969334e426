DROP FUNCTION clerk.nanoid(integer);
DROP FUNCTION clerk.cuid();
DROP TABLE clerk.rejected_rows;
DROP TABLE clerk.departures;
DROP TABLE clerk.projections;
