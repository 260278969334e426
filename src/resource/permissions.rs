//! Permissions that roles grant.

use super::definition::{Confirm, Count, Deletion, Derived, Field, FieldKind, List, MAX_PAGE, Resource};

/// The instance's organization permissions.
pub static PERMISSIONS: Resource = Resource {
    name: "organization_permissions",
    id_prefix: "perm_",
    event: "permission",
    status_events: &[],
    deletion: Deletion::Fields(&[]),
    table: "clerk.organization_permissions",
    document: "clerk.organization_permission_document",
    fields: &FIELDS,
    embedded: None,
    excerpts: &[],
    link: None,
    derived: Derived::NONE,
    list: List {
        path: "organization_permissions",
        cursor: None,
        count: Count::InList,
        by_update: None,
        ids: None,
        max_page: MAX_PAGE,
    },
    confirm: Confirm::ById {
        path: "organization_permissions",
        code: "resource_not_found",
    },
    is_rarely_changed: true,
    dependents: &[],
};

/// Every property of the `Permission` schema in Clerk's specification 2026-05-12, in its order.
const FIELDS: [Field; 8] = {
    use FieldKind::{Text, Time};
    [
        Field::new("id", Text),
        Field::new("object", Text),
        Field::new("name", Text),
        Field::new("key", Text),
        Field::new("description", Text),
        Field::new("type", Text),
        Field::new("created_at", Time),
        Field::new("updated_at", Time),
    ]
};
