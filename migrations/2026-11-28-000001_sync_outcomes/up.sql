-- "in sync" is the term everywhere else.
UPDATE clerk.sync_runs SET outcome = 'in_sync' WHERE outcome = 'in_step';

COMMENT ON TABLE clerk.users IS 'Clerk''s users, kept in sync by clerk2pg. Read and reference it; what is written here is overwritten.';
COMMENT ON COLUMN clerk.users.primary_email IS 'The address of primary_email_address_id; NULL if there is none';
COMMENT ON COLUMN clerk.users.primary_phone IS 'The number of primary_phone_number_id; NULL if there is none';
COMMENT ON COLUMN clerk.users.primary_phone_verified IS 'Whether the number in primary_phone is verified; NULL if there is none';
