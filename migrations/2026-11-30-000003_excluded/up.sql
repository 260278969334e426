-- The fields that mirror.exclude named when it was last applied, and those whose erasure is not done.
ALTER TABLE clerk.sync_state
    ADD COLUMN excluded text[] NOT NULL DEFAULT '{}',
    ADD COLUMN erasing text[] NOT NULL DEFAULT '{}';

-- Whether a full sync has to read the list again, because these fields have changed.
ALTER TABLE clerk.resource_state ADD COLUMN rereads boolean NOT NULL DEFAULT false;

COMMENT ON COLUMN clerk.sync_state.excluded IS 'Fields that are not stored, in alphabetical order: those of the setting mirror.exclude';
COMMENT ON COLUMN clerk.sync_state.erasing IS 'Those of them that may still be stored somewhere';
