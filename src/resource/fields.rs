//! The one table of Clerk's user fields. The decoder, the comparison, the SQL that writes a row and the test that holds the
//! table against Clerk's specification all read it: a field that Clerk adds is one line here and one column in a migration.

/// How a field is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `text`
    Text,
    /// `boolean`
    Bool,
    /// `bigint`
    Int,
    /// `timestamptz`; Clerk sends Unix milliseconds.
    Time,
    /// `jsonb`: metadata objects and lists, kept as they come.
    Json,
}

/// A field of Clerk's user: the key in the document and the column of the same name in `clerk.users`.
#[derive(Debug)]
pub struct Field {
    /// Key and column name.
    pub name: &'static str,
    /// How it is stored.
    pub kind: Kind,
    /// Whether the value moves without anybody changing the user, so that a difference is kept but is no change.
    /// Source: both count down or reset with time at Clerk (a guess that the event schemas support).
    pub moves_by_itself: bool,
}

const fn field(name: &'static str, kind: Kind) -> Field {
    Field {
        name,
        kind,
        moves_by_itself: false,
    }
}

const fn moving(name: &'static str, kind: Kind) -> Field {
    Field {
        name,
        kind,
        moves_by_itself: true,
    }
}

/// Position of `id` in [`FIELDS`].
pub const ID: usize = 0;

/// Every property of the `User` schema in Clerk's specification 2026-05-12, in its order.
pub const FIELDS: [Field; 46] = {
    use Kind::{Bool, Int, Json, Text, Time};
    [
        field("id", Text),
        field("object", Text),
        field("external_id", Text),
        field("primary_email_address_id", Text),
        field("primary_phone_number_id", Text),
        field("primary_web3_wallet_id", Text),
        field("username", Text),
        field("first_name", Text),
        field("last_name", Text),
        field("locale", Text),
        field("profile_image_url", Text),
        field("image_url", Text),
        field("has_image", Bool),
        field("public_metadata", Json),
        field("private_metadata", Json),
        field("unsafe_metadata", Json),
        field("email_addresses", Json),
        field("phone_numbers", Json),
        field("web3_wallets", Json),
        field("passkeys", Json),
        field("password_enabled", Bool),
        field("two_factor_enabled", Bool),
        field("totp_enabled", Bool),
        field("backup_code_enabled", Bool),
        field("mfa_enabled_at", Time),
        field("mfa_disabled_at", Time),
        field("password_last_updated_at", Time),
        field("external_accounts", Json),
        field("saml_accounts", Json),
        field("enterprise_accounts", Json),
        field("organization_memberships", Json),
        field("last_sign_in_at", Time),
        field("banned", Bool),
        field("locked", Bool),
        field("deprovisioned", Bool),
        moving("lockout_expires_in_seconds", Int),
        moving("verification_attempts_remaining", Int),
        field("updated_at", Time),
        field("created_at", Time),
        field("delete_self_enabled", Bool),
        field("create_organization_enabled", Bool),
        field("create_organizations_limit", Int),
        field("last_active_at", Time),
        field("legal_accepted_at", Time),
        field("bypass_client_trust", Bool),
        field("scim", Json),
    ]
};

/// The position of the field called `name`, looked for from `hint` on: documents mostly come in the table's order, so that
/// the first look nearly always finds it.
pub fn position(name: &str, hint: usize) -> Option<usize> {
    (hint..FIELDS.len())
        .chain(0..hint.min(FIELDS.len()))
        .find(|&at| FIELDS[at].name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_is_found_from_anywhere_and_named_once() {
        for (at, field) in FIELDS.iter().enumerate() {
            for hint in [0, at, at + 1, FIELDS.len()] {
                assert_eq!(position(field.name, hint), Some(at));
            }
        }
        assert_eq!(position("agent_policy", 3), None);
        assert_eq!(FIELDS[ID].name, "id");
    }
}
