-- Earlier versions wrote names of functions without their schema. Functions and operators that were
-- created in the schema "clerk" before the tables could have been bound into the following objects.
-- Every object that stores an expression is created again with PostgreSQL's own.
CREATE OR REPLACE FUNCTION clerk.user_document(u clerk.users) RETURNS jsonb
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

ALTER TABLE clerk.users
    ALTER COLUMN first_seen_at SET DEFAULT pg_catalog.now(),
    ALTER COLUMN changed_at SET DEFAULT pg_catalog.now();
ALTER TABLE clerk.rejected_users
    ALTER COLUMN first_seen_at SET DEFAULT pg_catalog.now(),
    ALTER COLUMN last_seen_at SET DEFAULT pg_catalog.now();
ALTER TABLE clerk.missing_users ALTER COLUMN found_at SET DEFAULT pg_catalog.now();
ALTER TABLE clerk.sync_runs ALTER COLUMN started_at SET DEFAULT pg_catalog.now();
ALTER TABLE clerk.user_events ALTER COLUMN recorded_at SET DEFAULT pg_catalog.now();
ALTER TABLE clerk.standbys ALTER COLUMN since SET DEFAULT pg_catalog.clock_timestamp();
ALTER TABLE clerk.sync_state ALTER COLUMN digest_key SET DEFAULT pg_catalog.decode(
    pg_catalog.replace(pg_catalog.gen_random_uuid()::text OPERATOR(pg_catalog.||) pg_catalog.gen_random_uuid()::text, '-', ''), 'hex');

DROP INDEX clerk.sync_runs_running_idx;
CREATE INDEX sync_runs_running_idx ON clerk.sync_runs (id) WHERE outcome OPERATOR(pg_catalog.=) 'running';
