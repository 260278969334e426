COMMENT ON COLUMN clerk.users.digest IS 'BLAKE3, cut to 128 bits, of the document as Clerk sent it';
ALTER TABLE clerk.sync_state DROP COLUMN digest_key;
