DROP VIEW clerk.members;
CREATE VIEW clerk.members AS
SELECT m.id AS membership_id, m.organization_id, o.name AS organization_name, o.slug AS organization_slug, m.user_id,
       u.primary_email, u.full_name, m.role, m.role_name, m.permissions, m.created_at
FROM clerk.organization_memberships AS m
JOIN clerk.organizations AS o ON o.id = m.organization_id AND o.deleted_at IS NULL
JOIN clerk.users AS u ON u.id = m.user_id AND u.deleted_at IS NULL
WHERE m.deleted_at IS NULL;

COMMENT ON VIEW clerk.members IS 'Who belongs to which organization, in which role';

ALTER TABLE clerk.users DROP COLUMN display_name;
