//! Invitations to organizations.

use super::definition::{Confirm, Count, Deletion, Derived, Field, FieldKind, List, MAX_PAGE, Moves, Resource};

/// Clerk's organization invitations, of all organizations. They end by their status, and stay.
/// Source: documented.
pub static INVITATIONS: Resource = Resource {
    name: "organization_invitations",
    id_prefix: "orginv_",
    event: "organizationInvitation",
    status_events: &["accepted", "revoked"],
    deletion: Deletion::Fields(&[]),
    table: "clerk.organization_invitations",
    document: "clerk.organization_invitation_document",
    fields: &FIELDS,
    embedded: Some("public_organization_data"),
    excerpts: &["public_organization_data", "public_inviter_data"],
    link: None,
    derived: Derived::NONE,
    list: List {
        path: "organization_invitations",
        cursor: None,
        count: Count::InList,
        by_update: None,
        ids: None,
        max_page: MAX_PAGE,
    },
    confirm: Confirm::InOrganization {
        path: "invitations",
        code: "resource_not_found",
    },
    is_rarely_changed: false,
    dependents: &[],
};

/// Every property of the `OrganizationInvitation` schema in Clerk's specification 2026-05-12, in its
/// order.
const FIELDS: [Field; 15] = {
    use FieldKind::{Json, Text, Time};
    [
        Field::new("id", Text),
        Field::new("object", Text),
        Field::new("email_address", Text),
        Field::new("role", Text),
        Field::new("role_name", Text),
        Field::new("organization_id", Text),
        Field::new("inviter_id", Text),
        // An excerpt of the user who invited.
        Field::moving("public_inviter_data", Json, Moves::ByItself),
        Field::new("status", Text),
        Field::new("public_metadata", Json),
        Field::new("private_metadata", Json),
        Field::new("url", Text),
        Field::new("expires_at", Time),
        Field::new("created_at", Time),
        Field::new("updated_at", Time),
    ]
};
