ALTER TABLE clerk.users DROP COLUMN unexpected, DROP COLUMN primary_phone_verified;
COMMENT ON COLUMN clerk.users.primary_phone IS NULL;
COMMENT ON COLUMN clerk.users.extra IS 'Keys of Clerk''s document that have no column of their own';
