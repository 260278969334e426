-- The fields that mirror.exclude named when it was last applied.
ALTER TABLE clerk.sync_state ADD COLUMN excluded text[] NOT NULL DEFAULT '{}';

COMMENT ON COLUMN clerk.sync_state.excluded IS 'Fields that are not stored, in alphabetical order: those of the setting mirror.exclude';
