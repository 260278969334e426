-- 244 random bits. End users write parts of the documents that are hashed, so the key is secret.
ALTER TABLE clerk.sync_state ADD COLUMN digest_key bytea NOT NULL
    DEFAULT pg_catalog.decode(
        pg_catalog.replace(pg_catalog.gen_random_uuid()::text || pg_catalog.gen_random_uuid()::text, '-', ''), 'hex');

COMMENT ON COLUMN clerk.users.digest IS 'HighwayHash of the document as Clerk sent it, 128 bits, with the key in clerk.sync_state';
