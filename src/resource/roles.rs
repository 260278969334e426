//! Roles that members of organizations can have.

use super::definition::{Confirm, Count, Deletion, Derived, Field, FieldKind, List, MAX_PAGE, Resource};

/// The instance's organization roles.
pub static ROLES: Resource = Resource {
    name: "organization_roles",
    id_prefix: "role_",
    event: "role",
    status_events: &[],
    deletion: Deletion::Fields(&[]),
    table: "clerk.organization_roles",
    document: "clerk.organization_role_document",
    fields: &FIELDS,
    embedded: None,
    excerpts: &[],
    link: None,
    derived: Derived::NONE,
    list: List {
        path: "organization_roles",
        cursor: None,
        count: Count::InList,
        by_update: None,
        ids: None,
        max_page: MAX_PAGE,
    },
    confirm: Confirm::ById {
        path: "organization_roles",
        code: "resource_not_found",
    },
    is_rarely_changed: true,
    dependents: &[],
};

/// Every property of the `Role` schema in Clerk's specification 2026-05-12, in its order.
const FIELDS: [Field; 9] = {
    use FieldKind::{Bool, Json, Text, Time};
    [
        Field::new("id", Text),
        Field::new("object", Text),
        Field::new("name", Text),
        Field::new("key", Text),
        Field::new("description", Text),
        Field::new("is_creator_eligible", Bool),
        Field::new("permissions", Json),
        Field::new("created_at", Time),
        Field::new("updated_at", Time),
    ]
};
