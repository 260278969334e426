-- A name to show for every user.
ALTER TABLE clerk.users ADD COLUMN display_name text;

COMMENT ON COLUMN clerk.users.display_name IS 'The full name, else the username, else the part of the primary address before the @, else the primary number';

-- The view can only grow at its end.
CREATE OR REPLACE VIEW clerk.members AS
SELECT m.id AS membership_id, m.organization_id, o.name AS organization_name, o.slug AS organization_slug, m.user_id,
       u.primary_email, u.full_name, m.role, m.role_name, m.permissions, m.created_at, u.display_name
FROM clerk.organization_memberships AS m
JOIN clerk.organizations AS o ON o.id = m.organization_id AND o.deleted_at IS NULL
JOIN clerk.users AS u ON u.id = m.user_id AND u.deleted_at IS NULL
WHERE m.deleted_at IS NULL;
