//! Users.

use super::{
    contact,
    definition::{
        Confirm, Count, Deletion, Dependent, Derived, DerivedColumn, Field, FieldKind, List, MAX_PAGE, Moves, Resource,
    },
    memberships::MEMBERSHIPS,
};

/// Clerk's users.
pub static USERS: Resource = Resource {
    name: "users",
    id_prefix: "user_",
    event: "user",
    status_events: &[],
    deletion: Deletion::Fields(&["external_id"]),
    table: "clerk.users",
    document: "clerk.user_document",
    fields: &FIELDS,
    embedded: None,
    excerpts: &[
        "external_accounts",
        "saml_accounts",
        "enterprise_accounts",
        "organization_memberships",
    ],
    link: None,
    derived: Derived {
        columns: &DERIVED,
        values: contact::derive,
    },
    list: List {
        path: "users",
        cursor: Some("starting_after"),
        count: Count::Endpoint("users/count"),
        by_update: Some("-updated_at"),
        // The form `user_id[0]=` is silently ignored: the answer lists all users. Source: observed.
        ids: Some("user_id"),
        // A larger limit is answered with 10 users and no error. Source: documented, observed.
        max_page: MAX_PAGE,
    },
    confirm: Confirm::ById {
        path: "users",
        code: "resource_not_found",
    },
    is_rarely_changed: false,
    dependents: &[Dependent {
        resource: &MEMBERSHIPS,
        column: "user_id",
    }],
};

/// Every property of the `User` schema in Clerk's specification 2026-05-12, in its order.
const FIELDS: [Field; 46] = {
    use FieldKind::{Bool, Int, Json, Text, Time};
    [
        Field::new("id", Text),
        Field::new("object", Text),
        Field::new("external_id", Text),
        Field::new("primary_email_address_id", Text),
        Field::new("primary_phone_number_id", Text),
        Field::new("primary_web3_wallet_id", Text),
        Field::new("username", Text),
        Field::new("first_name", Text),
        Field::new("last_name", Text),
        Field::new("locale", Text),
        Field::new("profile_image_url", Text),
        Field::new("image_url", Text),
        Field::new("has_image", Bool),
        Field::new("public_metadata", Json),
        Field::new("private_metadata", Json),
        Field::new("unsafe_metadata", Json),
        Field::new("email_addresses", Json),
        Field::new("phone_numbers", Json),
        Field::new("web3_wallets", Json),
        Field::new("passkeys", Json),
        Field::new("password_enabled", Bool),
        Field::new("two_factor_enabled", Bool),
        Field::new("totp_enabled", Bool),
        Field::new("backup_code_enabled", Bool),
        Field::new("mfa_enabled_at", Time),
        Field::new("mfa_disabled_at", Time),
        Field::new("password_last_updated_at", Time),
        Field::new("external_accounts", Json),
        Field::new("saml_accounts", Json),
        Field::new("enterprise_accounts", Json),
        Field::new("organization_memberships", Json),
        Field::new("last_sign_in_at", Time),
        Field::new("banned", Bool),
        Field::new("locked", Bool),
        Field::new("deprovisioned", Bool),
        // Both count down or reset with time. Source: a guess that the event schemas support.
        Field::moving("lockout_expires_in_seconds", Int, Moves::CountsDown),
        Field::moving("verification_attempts_remaining", Int, Moves::ByItself),
        Field::new("updated_at", Time),
        Field::new("created_at", Time),
        Field::new("delete_self_enabled", Bool),
        Field::new("create_organization_enabled", Bool),
        Field::new("create_organizations_limit", Int),
        Field::new("last_active_at", Time),
        Field::new("legal_accepted_at", Time),
        Field::new("bypass_client_trust", Bool),
        Field::new("scim", Json),
    ]
};

const DERIVED: [DerivedColumn; 6] = {
    use FieldKind::{Bool, Text};
    const fn column(name: &'static str, kind: FieldKind, from: &'static [&'static str]) -> DerivedColumn {
        DerivedColumn { name, kind, from }
    }
    const EMAIL: &[&str] = &["email_addresses", "primary_email_address_id"];
    const PHONE: &[&str] = &["phone_numbers", "primary_phone_number_id"];
    [
        // The address that `primary_email_address_id` refers to, which is often not the first one.
        column("primary_email", Text, EMAIL),
        column("primary_email_verified", Bool, EMAIL),
        // The number that `primary_phone_number_id` refers to.
        column("primary_phone", Text, PHONE),
        column("primary_phone_verified", Bool, PHONE),
        // First and last name, as far as the user has them.
        column("full_name", Text, &["first_name", "last_name"]),
        // What an application shows: the full name, else the username, else the part of the primary
        // address before the @, else the primary number.
        column("display_name", Text, DISPLAY_NAME),
    ]
};

const DISPLAY_NAME: &[&str] = &[
    "first_name",
    "last_name",
    "username",
    "email_addresses",
    "primary_email_address_id",
    "phone_numbers",
    "primary_phone_number_id",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::{ID, decode};

    #[test]
    fn every_field_is_found_from_anywhere_and_named_once() {
        for (at, field) in FIELDS.iter().enumerate() {
            for hint in [0, at, at + 1, FIELDS.len()] {
                assert_eq!(USERS.position(field.name, hint), Some(at));
            }
        }
        assert_eq!(USERS.position("agent_policy", 3), None);
        assert_eq!(FIELDS[ID].name, "id");
    }

    #[test]
    fn every_derived_column_has_a_value() {
        let user = decode(&USERS, r#"{"id":"u","created_at":1}"#).unwrap();
        assert_eq!(user.derived.len(), DERIVED.len());
    }
}
