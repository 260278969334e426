//! The one byte form in which documents are written.
//!
//! Generated documents are written from structs and edited ones from JSON values. Both must give
//! the same bytes for the same content: otherwise an edit that changes nothing would look like a
//! change to a reader that compares bytes.

use serde_json::Value;

/// Known keys in the order they are written, for all kinds of objects and those inside them.
///
/// Other keys follow in alphabetical order, as do all keys inside metadata.
const ORDER: &[&str] = &[
    "id",
    "object",
    "protocol",
    "provider",
    "active",
    "identification_id",
    "provider_user_id",
    "approved_scopes",
    "type",
    "status",
    "strategy",
    "nonce",
    "message",
    "error",
    "channel",
    "attempts",
    "expire_at",
    "verified_at_client",
    "external_verification_redirect_url",
    "email_address",
    "phone_number",
    "web3_wallet",
    "email_address_verified",
    "reserved_for_second_factor",
    "default_second_factor",
    "reserved",
    "name",
    "username",
    "first_name",
    "last_name",
    "locale",
    "avatar_url",
    "profile_image_url",
    "image_url",
    "has_image",
    "label",
    "last_used_at",
    "verification",
    "linked_to",
    "backup_codes",
    "matches_sso_connection",
    "saml_connection",
    "enterprise_connection",
    "primary_email_address_id",
    "primary_phone_number_id",
    "primary_web3_wallet_id",
    "password_enabled",
    "two_factor_enabled",
    "totp_enabled",
    "backup_code_enabled",
    "email_addresses",
    "phone_numbers",
    "web3_wallets",
    "passkeys",
    "external_accounts",
    "saml_accounts",
    "enterprise_accounts",
    "organization_memberships",
    "password_last_updated_at",
    "public_metadata",
    "private_metadata",
    "unsafe_metadata",
    "external_id",
    "last_sign_in_at",
    "banned",
    "locked",
    "lockout_expires_in_seconds",
    "verification_attempts_remaining",
    "created_at",
    "updated_at",
    "delete_self_enabled",
    "create_organization_enabled",
    "create_organizations_limit",
    "last_active_at",
    "mfa_enabled_at",
    "mfa_disabled_at",
    "legal_accepted_at",
    "deprovisioned",
    "bypass_client_trust",
    "scim",
];

/// Writes a document.
pub(crate) fn to_bytes(document: &Value) -> Vec<u8> {
    let mut out = Vec::with_capacity(2048);
    write(document, true, &mut out);
    out
}

fn write(value: &Value, ordered: bool, out: &mut Vec<u8>) {
    match value {
        Value::Object(map) => {
            let mut pairs: Vec<_> = map.iter().collect();
            if ordered {
                // The sort is stable, so unknown keys keep the alphabetical order of the map.
                pairs.sort_by_key(|(key, _)| ORDER.iter().position(|known| known == key).unwrap_or(usize::MAX));
            }
            out.push(b'{');
            for (index, (key, value)) in pairs.into_iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                leaf(&Value::String(key.clone()), out);
                out.push(b':');
                write(value, ordered && !key.ends_with("_metadata"), out);
            }
            out.push(b'}');
        }
        Value::Array(items) => {
            out.push(b'[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write(item, ordered, out);
            }
            out.push(b']');
        }
        other => leaf(other, out),
    }
}

fn leaf(value: &Value, out: &mut Vec<u8>) {
    serde_json::to_writer(out, value).expect("a JSON value can always be written to memory");
}
