//! Memberships of users in organizations.

use serde::Deserialize;

use super::{
    definition::{
        Confirm, Count, Deletion, Derived, DerivedColumn, DocumentKeys, Field, FieldKind, List, MAX_PAGE, Moves,
        Resource,
    },
    value::FieldValue,
};

/// Clerk's organization memberships, of all organizations.
pub static MEMBERSHIPS: Resource = Resource {
    name: "organization_memberships",
    id_prefix: "orgmem_",
    event: "organizationMembership",
    status_events: &[],
    deletion: Deletion::Document,
    table: "clerk.organization_memberships",
    document: "clerk.organization_membership_document",
    fields: &FIELDS,
    // Otherwise renaming an organization would change all of its memberships.
    embedded: Some("organization"),
    excerpts: &["organization", "public_user_data"],
    link: Some(("public_user_data", "user_id")),
    derived: Derived {
        columns: &DERIVED,
        values: derive,
    },
    list: List {
        path: "organization_memberships",
        cursor: None,
        count: Count::InList,
        by_update: None,
        ids: None,
        max_page: MAX_PAGE,
    },
    confirm: Confirm::Member,
    is_rarely_changed: false,
    dependents: &[],
};

/// Every property of the `OrganizationMembership` schema in Clerk's specification 2026-05-12, in its
/// order, except the organization.
const FIELDS: [Field; 10] = {
    use FieldKind::{Json, Text, Time};
    [
        Field::new("id", Text),
        Field::new("object", Text),
        Field::new("role", Text),
        Field::new("role_name", Text),
        Field::new("permissions", Json),
        Field::new("public_metadata", Json),
        Field::new("private_metadata", Json),
        // An excerpt of the user.
        Field::moving("public_user_data", Json, Moves::ByItself),
        Field::new("created_at", Time),
        Field::new("updated_at", Time),
    ]
};

const DERIVED: [DerivedColumn; 2] = [
    DerivedColumn {
        name: "organization_id",
        kind: FieldKind::Text,
        from: &[],
    },
    DerivedColumn {
        name: "user_id",
        kind: FieldKind::Text,
        from: &[],
    },
];

fn derive(keys: &DocumentKeys<'_, '_>) -> Vec<FieldValue<'static>> {
    #[derive(Deserialize)]
    struct Organization {
        id: String,
    }
    #[derive(Deserialize)]
    struct User {
        user_id: String,
    }
    let organization = keys
        .raw("organization")
        .and_then(|json| serde_json::from_str(json).ok());
    let user = keys
        .json("public_user_data")
        .and_then(|json| serde_json::from_str(json).ok());
    [
        organization.map(|Organization { id }| id),
        user.map(|User { user_id }| user_id),
    ]
    .map(FieldValue::of_text)
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::decode;

    #[test]
    fn ids_of_the_organization_and_the_user_are_columns_and_the_organization_is_left_out() {
        let document = r#"{"id":"orgmem_1","created_at":1,"organization":{"id":"org_1","name":"One"},"public_user_data":{"user_id":"user_1"}}"#;
        let membership = decode(&MEMBERSHIPS, document).unwrap();
        let text = |text: &'static str| FieldValue::Text(text.into());
        assert_eq!(membership.derived, [text("org_1"), text("user_1")]);
        assert_eq!(membership.extra, []);
        for other in [
            r#""organization":null,"public_user_data":"x""#,
            r#""organization":{"id":7}"#,
            r#""a":1"#,
        ] {
            let document = format!(r#"{{"id":"orgmem_1","created_at":1,{other}}}"#);
            let membership = decode(&MEMBERSHIPS, &document).unwrap();
            assert_eq!(membership.derived, [FieldValue::Null, FieldValue::Null], "{other}");
        }
    }
}
