//! Organizations.

use super::{
    definition::{Confirm, Count, Deletion, Dependent, Derived, Field, FieldKind, List, MAX_PAGE, Moves, Resource},
    invitations::INVITATIONS,
    memberships::MEMBERSHIPS,
};

/// Clerk's organizations.
pub static ORGANIZATIONS: Resource = Resource {
    name: "organizations",
    id_prefix: "org_",
    event: "organization",
    status_events: &[],
    deletion: Deletion::Fields(&["slug"]),
    table: "clerk.organizations",
    document: "clerk.organization_document",
    fields: &FIELDS,
    embedded: None,
    excerpts: &[],
    link: None,
    derived: Derived::NONE,
    list: List {
        path: "organizations",
        cursor: None,
        count: Count::InList,
        by_update: None,
        ids: Some("organization_id"),
        max_page: MAX_PAGE,
    },
    confirm: Confirm::ById {
        path: "organizations",
        code: "resource_not_found",
    },
    is_rarely_changed: false,
    dependents: &[
        Dependent {
            resource: &MEMBERSHIPS,
            column: "organization_id",
        },
        Dependent {
            resource: &INVITATIONS,
            column: "organization_id",
        },
    ],
};

/// Every property of the `Organization` schema in Clerk's specification 2026-05-12, in its order.
const FIELDS: [Field; 18] = {
    use FieldKind::{Bool, Int, Json, Text, Time};
    [
        Field::new("id", Text),
        Field::new("object", Text),
        Field::new("name", Text),
        Field::new("slug", Text),
        Field::new("image_url", Text),
        Field::new("has_image", Bool),
        // The next three follow from its memberships and invitations. Source: a guess.
        Field::moving("members_count", Int, Moves::ByItself),
        Field::moving("missing_member_with_elevated_permissions", Bool, Moves::ByItself),
        Field::moving("pending_invitations_count", Int, Moves::ByItself),
        Field::new("max_allowed_memberships", Int),
        Field::new("admin_delete_enabled", Bool),
        Field::new("public_metadata", Json),
        Field::new("private_metadata", Json),
        Field::new("created_by", Text),
        Field::new("created_at", Time),
        Field::new("updated_at", Time),
        Field::new("last_active_at", Time),
        Field::new("role_set_key", Text),
    ]
};
