-- Clerk's organizations, their memberships and invitations, and the instance's roles and permissions:
-- for each kind of object a table like clerk.users, with one column for each field of Clerk's
-- specification 2026-05-12, and a function that builds the document from the columns. There are no
-- foreign keys among them, because Clerk's lists are read at different moments.

CREATE TABLE clerk.organizations (
    id text PRIMARY KEY,
    object text,
    name text,
    slug text,
    image_url text,
    has_image boolean,
    members_count bigint,
    missing_member_with_elevated_permissions boolean,
    pending_invitations_count bigint,
    max_allowed_memberships bigint,
    admin_delete_enabled boolean,
    public_metadata jsonb,
    private_metadata jsonb,
    created_by text,
    created_at timestamptz NOT NULL,
    updated_at timestamptz,
    last_active_at timestamptz,
    role_set_key text,
    extra jsonb,
    absent text[],
    unexpected text[],
    digest bytea NOT NULL,
    first_seen_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    changed_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    deleted_at timestamptz
);
CREATE INDEX organizations_created_at_idx ON clerk.organizations (created_at, id) INCLUDE (digest, deleted_at);

COMMENT ON TABLE clerk.organizations IS 'Clerk''s organizations, kept in sync by clerk2pg. Read and reference it; what is written here is overwritten.';

CREATE FUNCTION clerk.organization_document(o clerk.organizations) RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE
RETURN pg_catalog.jsonb_build_object(
        'id', o.id,
        'object', o.object,
        'name', o.name,
        'slug', o.slug,
        'image_url', o.image_url,
        'has_image', o.has_image,
        'members_count', o.members_count,
        'missing_member_with_elevated_permissions', o.missing_member_with_elevated_permissions,
        'pending_invitations_count', o.pending_invitations_count,
        'max_allowed_memberships', o.max_allowed_memberships,
        'admin_delete_enabled', o.admin_delete_enabled,
        'public_metadata', o.public_metadata,
        'private_metadata', o.private_metadata,
        'created_by', o.created_by,
        'created_at', (extract(epoch FROM o.created_at) * 1000::numeric)::bigint,
        'updated_at', (extract(epoch FROM o.updated_at) * 1000::numeric)::bigint,
        'last_active_at', (extract(epoch FROM o.last_active_at) * 1000::numeric)::bigint,
        'role_set_key', o.role_set_key
    ) - coalesce(o.absent, '{}'::text[]) || coalesce(o.extra, '{}'::jsonb);

COMMENT ON FUNCTION clerk.organization_document(clerk.organizations) IS 'The organization as Clerk''s API sends it';

CREATE TABLE clerk.organization_memberships (
    id text PRIMARY KEY,
    object text,
    role text,
    role_name text,
    permissions jsonb,
    public_metadata jsonb,
    private_metadata jsonb,
    public_user_data jsonb,
    created_at timestamptz NOT NULL,
    updated_at timestamptz,
    extra jsonb,
    absent text[],
    unexpected text[],
    organization_id text,
    user_id text,
    digest bytea NOT NULL,
    first_seen_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    changed_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    deleted_at timestamptz
);
CREATE INDEX organization_memberships_created_at_idx ON clerk.organization_memberships (created_at, id) INCLUDE (digest, deleted_at);
CREATE INDEX organization_memberships_organization_id_idx ON clerk.organization_memberships (organization_id, created_at);
CREATE INDEX organization_memberships_user_id_idx ON clerk.organization_memberships (user_id);

COMMENT ON TABLE clerk.organization_memberships IS 'Clerk''s organization memberships, kept in sync by clerk2pg. Read and reference it; what is written here is overwritten.';
COMMENT ON COLUMN clerk.organization_memberships.organization_id IS 'The id of the organization, which Clerk sends as a whole';
COMMENT ON COLUMN clerk.organization_memberships.user_id IS 'The id in public_user_data';

CREATE FUNCTION clerk.organization_membership_document(m clerk.organization_memberships) RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE
RETURN pg_catalog.jsonb_build_object(
        'id', m.id,
        'object', m.object,
        'role', m.role,
        'role_name', m.role_name,
        'permissions', m.permissions,
        'public_metadata', m.public_metadata,
        'private_metadata', m.private_metadata,
        'public_user_data', m.public_user_data,
        'created_at', (extract(epoch FROM m.created_at) * 1000::numeric)::bigint,
        'updated_at', (extract(epoch FROM m.updated_at) * 1000::numeric)::bigint
    ) - coalesce(m.absent, '{}'::text[]) || coalesce(m.extra, '{}'::jsonb) || coalesce((
        SELECT pg_catalog.jsonb_build_object('organization', clerk.organization_document(o))
        FROM clerk.organizations AS o WHERE o.id = m.organization_id), '{}'::jsonb);

COMMENT ON FUNCTION clerk.organization_membership_document(clerk.organization_memberships) IS 'The membership as Clerk''s API sends it';

CREATE TABLE clerk.organization_invitations (
    id text PRIMARY KEY,
    object text,
    email_address text,
    role text,
    role_name text,
    organization_id text,
    inviter_id text,
    public_inviter_data jsonb,
    status text,
    public_metadata jsonb,
    private_metadata jsonb,
    url text,
    expires_at timestamptz,
    created_at timestamptz NOT NULL,
    updated_at timestamptz,
    extra jsonb,
    absent text[],
    unexpected text[],
    digest bytea NOT NULL,
    first_seen_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    changed_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    deleted_at timestamptz
);
CREATE INDEX organization_invitations_created_at_idx ON clerk.organization_invitations (created_at, id) INCLUDE (digest, deleted_at);
CREATE INDEX organization_invitations_organization_id_idx ON clerk.organization_invitations (organization_id);

COMMENT ON TABLE clerk.organization_invitations IS 'Clerk''s organization invitations, kept in sync by clerk2pg. Read and reference it; what is written here is overwritten.';

CREATE FUNCTION clerk.organization_invitation_document(i clerk.organization_invitations) RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE
RETURN pg_catalog.jsonb_build_object(
        'id', i.id,
        'object', i.object,
        'email_address', i.email_address,
        'role', i.role,
        'role_name', i.role_name,
        'organization_id', i.organization_id,
        'inviter_id', i.inviter_id,
        'public_inviter_data', i.public_inviter_data,
        'status', i.status,
        'public_metadata', i.public_metadata,
        'private_metadata', i.private_metadata,
        'url', i.url,
        'expires_at', (extract(epoch FROM i.expires_at) * 1000::numeric)::bigint,
        'created_at', (extract(epoch FROM i.created_at) * 1000::numeric)::bigint,
        'updated_at', (extract(epoch FROM i.updated_at) * 1000::numeric)::bigint
    ) - coalesce(i.absent, '{}'::text[]) || coalesce(i.extra, '{}'::jsonb);

COMMENT ON FUNCTION clerk.organization_invitation_document(clerk.organization_invitations) IS 'The invitation as Clerk''s API sends it';

CREATE TABLE clerk.organization_roles (
    id text PRIMARY KEY,
    object text,
    name text,
    key text,
    description text,
    is_creator_eligible boolean,
    permissions jsonb,
    created_at timestamptz NOT NULL,
    updated_at timestamptz,
    extra jsonb,
    absent text[],
    unexpected text[],
    digest bytea NOT NULL,
    first_seen_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    changed_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    deleted_at timestamptz
);
CREATE INDEX organization_roles_created_at_idx ON clerk.organization_roles (created_at, id) INCLUDE (digest, deleted_at);

COMMENT ON TABLE clerk.organization_roles IS 'Clerk''s organization roles, kept in sync by clerk2pg. Read and reference it; what is written here is overwritten.';

CREATE FUNCTION clerk.organization_role_document(r clerk.organization_roles) RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE
RETURN pg_catalog.jsonb_build_object(
        'id', r.id,
        'object', r.object,
        'name', r.name,
        'key', r.key,
        'description', r.description,
        'is_creator_eligible', r.is_creator_eligible,
        'permissions', r.permissions,
        'created_at', (extract(epoch FROM r.created_at) * 1000::numeric)::bigint,
        'updated_at', (extract(epoch FROM r.updated_at) * 1000::numeric)::bigint
    ) - coalesce(r.absent, '{}'::text[]) || coalesce(r.extra, '{}'::jsonb);

COMMENT ON FUNCTION clerk.organization_role_document(clerk.organization_roles) IS 'The role as Clerk''s API sends it';

CREATE TABLE clerk.organization_permissions (
    id text PRIMARY KEY,
    object text,
    name text,
    key text,
    description text,
    type text,
    created_at timestamptz NOT NULL,
    updated_at timestamptz,
    extra jsonb,
    absent text[],
    unexpected text[],
    digest bytea NOT NULL,
    first_seen_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    changed_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    deleted_at timestamptz
);
CREATE INDEX organization_permissions_created_at_idx ON clerk.organization_permissions (created_at, id) INCLUDE (digest, deleted_at);

COMMENT ON TABLE clerk.organization_permissions IS 'Clerk''s organization permissions, kept in sync by clerk2pg. Read and reference it; what is written here is overwritten.';

CREATE FUNCTION clerk.organization_permission_document(p clerk.organization_permissions) RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE
RETURN pg_catalog.jsonb_build_object(
        'id', p.id,
        'object', p.object,
        'name', p.name,
        'key', p.key,
        'description', p.description,
        'type', p.type,
        'created_at', (extract(epoch FROM p.created_at) * 1000::numeric)::bigint,
        'updated_at', (extract(epoch FROM p.updated_at) * 1000::numeric)::bigint
    ) - coalesce(p.absent, '{}'::text[]) || coalesce(p.extra, '{}'::jsonb);

COMMENT ON FUNCTION clerk.organization_permission_document(clerk.organization_permissions) IS 'The permission as Clerk''s API sends it';

CREATE VIEW clerk.members AS
SELECT m.id AS membership_id, m.organization_id, o.name AS organization_name, o.slug AS organization_slug, m.user_id,
       u.primary_email, u.full_name, m.role, m.role_name, m.permissions, m.created_at
FROM clerk.organization_memberships AS m
JOIN clerk.organizations AS o ON o.id = m.organization_id AND o.deleted_at IS NULL
JOIN clerk.users AS u ON u.id = m.user_id AND u.deleted_at IS NULL
WHERE m.deleted_at IS NULL;

COMMENT ON VIEW clerk.members IS 'Who belongs to which organization, in which role';

INSERT INTO clerk.resource_state (resource) VALUES
    ('organizations'), ('organization_memberships'), ('organization_invitations'), ('organization_roles'),
    ('organization_permissions');

-- What a sync was about. There is a row for each resource that it changed.
ALTER TABLE clerk.sync_runs ADD COLUMN resource text NOT NULL DEFAULT 'users';

COMMENT ON COLUMN clerk.events.resource IS 'What kind of object changed, for example users';
