-- One bad value costs one value, not the user. A separate migration updates existing rows, because
-- this one blocks readers.
ALTER TABLE clerk.users
    -- Whether the number in primary_phone is verified; NULL if there is none.
    ADD COLUMN primary_phone_verified boolean,
    -- Fields whose value does not fit their column: NULL in the column, and the value in extra.
    ADD COLUMN unexpected text[];

COMMENT ON COLUMN clerk.users.primary_phone IS 'The number that primary_phone_number_id names; NULL where it names none';
COMMENT ON COLUMN clerk.users.primary_phone_verified IS 'Whether the number in primary_phone is verified; NULL where there is none';
COMMENT ON COLUMN clerk.users.unexpected IS 'Fields whose value does not fit their column: NULL there, and the value in extra';
COMMENT ON COLUMN clerk.users.extra IS 'Keys of Clerk''s document that have no column of their own, and values that do not fit their column';
