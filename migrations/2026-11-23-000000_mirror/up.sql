-- Clerk's users: one column for each field of Clerk's document, in the order of Clerk's
-- specification 2026-05-12. Times are Clerk's Unix milliseconds. `clerk.user_document` builds the
-- document from the columns.
CREATE TABLE clerk.users (
    id text PRIMARY KEY,
    object text,
    external_id text,
    primary_email_address_id text,
    primary_phone_number_id text,
    primary_web3_wallet_id text,
    username text,
    first_name text,
    last_name text,
    locale text,
    profile_image_url text,
    image_url text,
    has_image boolean,
    public_metadata jsonb,
    private_metadata jsonb,
    unsafe_metadata jsonb,
    email_addresses jsonb,
    phone_numbers jsonb,
    web3_wallets jsonb,
    passkeys jsonb,
    password_enabled boolean,
    two_factor_enabled boolean,
    totp_enabled boolean,
    backup_code_enabled boolean,
    mfa_enabled_at timestamptz,
    mfa_disabled_at timestamptz,
    password_last_updated_at timestamptz,
    external_accounts jsonb,
    saml_accounts jsonb,
    enterprise_accounts jsonb,
    organization_memberships jsonb,
    last_sign_in_at timestamptz,
    banned boolean,
    locked boolean,
    deprovisioned boolean,
    lockout_expires_in_seconds bigint,
    verification_attempts_remaining bigint,
    updated_at timestamptz,
    created_at timestamptz NOT NULL,
    delete_self_enabled boolean,
    create_organization_enabled boolean,
    create_organizations_limit bigint,
    last_active_at timestamptz,
    legal_accepted_at timestamptz,
    bypass_client_trust boolean,
    scim jsonb,
    -- Keys that this version of clerk2pg does not know, as Clerk sent them.
    extra jsonb,
    -- Known keys that Clerk did not send: in their columns, NULL means "not sent"; in all other
    -- columns, "sent as null".
    absent text[],
    -- Derived from the fields above, for queries.
    primary_email text,
    primary_email_verified boolean,
    primary_phone text,
    full_name text,
    -- clerk2pg's own columns.
    digest bytea NOT NULL,
    first_seen_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    changed_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    deleted_at timestamptz
);

-- A full sync compares the mirror with Clerk's list range by range, in this order. Everything that
-- it compares is in the index, so that it does not read the rows, which are many times larger.
CREATE INDEX users_created_at_idx ON clerk.users (created_at, id) INCLUDE (digest, deleted_at);

COMMENT ON TABLE clerk.users IS 'Clerk''s users, kept in step by clerk2pg. Read and reference it; what is written here is overwritten.';
COMMENT ON COLUMN clerk.users.primary_email IS 'The address that primary_email_address_id names; NULL where it names none';
COMMENT ON COLUMN clerk.users.extra IS 'Keys of Clerk''s document that have no column of their own';
COMMENT ON COLUMN clerk.users.absent IS 'Keys that have a column but were not in Clerk''s document';
COMMENT ON COLUMN clerk.users.digest IS 'BLAKE3, cut to 128 bits, of the document as Clerk sent it';
COMMENT ON COLUMN clerk.users.first_seen_at IS 'When clerk2pg first stored the user';
COMMENT ON COLUMN clerk.users.changed_at IS 'When clerk2pg last stored a change of the user';
COMMENT ON COLUMN clerk.users.deleted_at IS 'With deletes.mode = "mark": when clerk2pg learned that the user is gone from Clerk';

CREATE FUNCTION clerk.user_document(u clerk.users) RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE
-- In two halves, because a function takes at most 100 arguments.
RETURN (pg_catalog.jsonb_build_object(
        'id', u.id,
        'object', u.object,
        'external_id', u.external_id,
        'primary_email_address_id', u.primary_email_address_id,
        'primary_phone_number_id', u.primary_phone_number_id,
        'primary_web3_wallet_id', u.primary_web3_wallet_id,
        'username', u.username,
        'first_name', u.first_name,
        'last_name', u.last_name,
        'locale', u.locale,
        'profile_image_url', u.profile_image_url,
        'image_url', u.image_url,
        'has_image', u.has_image,
        'public_metadata', u.public_metadata,
        'private_metadata', u.private_metadata,
        'unsafe_metadata', u.unsafe_metadata,
        'email_addresses', u.email_addresses,
        'phone_numbers', u.phone_numbers,
        'web3_wallets', u.web3_wallets,
        'passkeys', u.passkeys,
        'password_enabled', u.password_enabled,
        'two_factor_enabled', u.two_factor_enabled,
        'totp_enabled', u.totp_enabled
    ) || pg_catalog.jsonb_build_object(
        'backup_code_enabled', u.backup_code_enabled,
        'mfa_enabled_at', (extract(epoch FROM u.mfa_enabled_at) * 1000::numeric)::bigint,
        'mfa_disabled_at', (extract(epoch FROM u.mfa_disabled_at) * 1000::numeric)::bigint,
        'password_last_updated_at', (extract(epoch FROM u.password_last_updated_at) * 1000::numeric)::bigint,
        'external_accounts', u.external_accounts,
        'saml_accounts', u.saml_accounts,
        'enterprise_accounts', u.enterprise_accounts,
        'organization_memberships', u.organization_memberships,
        'last_sign_in_at', (extract(epoch FROM u.last_sign_in_at) * 1000::numeric)::bigint,
        'banned', u.banned,
        'locked', u.locked,
        'deprovisioned', u.deprovisioned,
        'lockout_expires_in_seconds', u.lockout_expires_in_seconds,
        'verification_attempts_remaining', u.verification_attempts_remaining,
        'updated_at', (extract(epoch FROM u.updated_at) * 1000::numeric)::bigint,
        'created_at', (extract(epoch FROM u.created_at) * 1000::numeric)::bigint,
        'delete_self_enabled', u.delete_self_enabled,
        'create_organization_enabled', u.create_organization_enabled,
        'create_organizations_limit', u.create_organizations_limit,
        'last_active_at', (extract(epoch FROM u.last_active_at) * 1000::numeric)::bigint,
        'legal_accepted_at', (extract(epoch FROM u.legal_accepted_at) * 1000::numeric)::bigint,
        'bypass_client_trust', u.bypass_client_trust,
        'scim', u.scim
    )) - coalesce(u.absent, '{}'::text[]) || coalesce(u.extra, '{}'::jsonb);

COMMENT ON FUNCTION clerk.user_document(clerk.users) IS 'The user as Clerk''s API sends it: SELECT clerk.user_document(u) FROM clerk.users u';

-- Users that could not be stored, and why. A row is removed once its user can be stored, or is
-- gone.
CREATE TABLE clerk.rejected_users (
    user_id text PRIMARY KEY,
    reason text NOT NULL,
    first_seen_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    last_seen_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    -- As received, cut to 64 kB. As text, because jsonb may refuse it.
    document text
);

-- Users that a walk over Clerk's list did not meet. They are questions, not deletions: Clerk is
-- asked for each by id.
CREATE TABLE clerk.missing_users (
    user_id text PRIMARY KEY,
    -- The run that began the walk that missed the user.
    walk bigint NOT NULL,
    found_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    -- Whether Clerk left the user out when it was asked for the id in a list.
    absent boolean NOT NULL DEFAULT false,
    -- When the guard held the deletion.
    held_at timestamptz,
    -- When a person approved the deletion.
    approved_at timestamptz
);

-- One row per sync, including failed ones.
CREATE TABLE clerk.sync_runs (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind text NOT NULL,
    holder text NOT NULL,
    started_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    ended_at timestamptz,
    -- running, in_sync, changed, held, incomplete or failed
    outcome text NOT NULL DEFAULT 'running',
    -- The run whose walk this run continued.
    resumed bigint,
    created bigint NOT NULL DEFAULT 0,
    updated bigint NOT NULL DEFAULT 0,
    -- Rows written although the user did not change: another spelling of the document, or fields
    -- that change by themselves. Counted as unchanged, too.
    refreshed bigint NOT NULL DEFAULT 0,
    deleted bigint NOT NULL DEFAULT 0,
    unchanged bigint NOT NULL DEFAULT 0,
    held bigint NOT NULL DEFAULT 0,
    rejected bigint NOT NULL DEFAULT 0,
    requests bigint NOT NULL DEFAULT 0,
    -- The checksum of the held deletions, which approves them.
    plan text,
    error text
);

-- One row: the Clerk instance that this database mirrors, how far the full sync has come, and who
-- may write.
CREATE TABLE clerk.sync_state (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    instance_id text,
    environment_type text,
    pinned_at timestamptz,
    checkpoint jsonb,
    lease_holder text,
    -- Grows with each change of holder. A writer with an older epoch cannot write.
    lease_epoch bigint NOT NULL DEFAULT 0,
    lease_expires_at timestamptz
);
INSERT INTO clerk.sync_state DEFAULT VALUES;
