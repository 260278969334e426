//! The mirror's columns compared with Clerk's OpenAPI document, if there is a copy of it, and with
//! the database.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use clerk2pg::resource::{
    FieldKind, INVITATIONS, MEMBERSHIPS, ORGANIZATIONS, PERMISSIONS, RESOURCES, ROLES, Resource, USERS,
};
use saphyr::{LoadableYamlNode, Yaml};

use crate::support::{fixture::Fixture, summary::Exit};

/// The schema of each resource's documents.
const SCHEMAS: [(&Resource, &str); 6] = [
    (&USERS, "User"),
    (&ORGANIZATIONS, "Organization"),
    (&MEMBERSHIPS, "OrganizationMembership"),
    (&INVITATIONS, "OrganizationInvitation"),
    (&ROLES, "Role"),
    (&PERMISSIONS, "Permission"),
];

#[test]
fn fields_match_the_properties_of_clerks_schemas() {
    let beside = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/clerk/openapi-2026-05-12.yml");
    let path = std::env::var_os("CLERK_OPENAPI").map_or(beside, PathBuf::from);
    let Ok(text) = std::fs::read_to_string(&path) else {
        println!(
            "SKIPPED: no OpenAPI document of Clerk's at {}; CLERK_OPENAPI can name one",
            path.display()
        );
        return;
    };
    let documents = Yaml::load_from_str(&text).expect("the document is YAML");
    assert_eq!(
        SCHEMAS.map(|(resource, _)| resource.name),
        RESOURCES.map(|resource| resource.name)
    );
    for (resource, schema) in SCHEMAS {
        check_fields(resource, &documents[0]["components"]["schemas"][schema]["properties"]);
    }
}

fn check_fields(resource: &Resource, properties: &Yaml<'_>) {
    let kind = |schema: &Yaml<'_>| {
        let kind = schema.as_mapping_get("type").and_then(Yaml::as_str);
        kind.unwrap_or("a reference").to_owned()
    };
    let properties = properties.as_mapping().expect("a schema with properties");
    let types: Vec<(&str, String)> = properties
        .iter()
        .map(|(name, schema)| (name.as_str().unwrap(), kind(schema)))
        .filter(|(name, _)| resource.embedded != Some(name))
        .collect();
    let mut names: Vec<&str> = types.iter().map(|(name, _)| *name).collect();
    // Here, the id comes first.
    names.sort_by_key(|name| *name != "id");
    let fields: Vec<&str> = resource.fields.iter().map(|field| field.name).collect();
    assert_eq!(fields, names, "{}: in Clerk's order", resource.name);
    let types: BTreeMap<&str, String> = types.into_iter().collect();
    for field in resource.fields {
        let expected = match field.kind {
            FieldKind::Text => ["string"].as_slice(),
            FieldKind::Bool => &["boolean"],
            FieldKind::Int | FieldKind::Time => &["integer"],
            FieldKind::Json => &["object", "array", "a reference"],
        };
        let kind = &types[field.name];
        assert!(
            expected.contains(&kind.as_str()),
            "{} is {kind} at Clerk, and {:?} here",
            field.name,
            field.kind
        );
    }
}

/// The columns of a table, with their types, in their order.
async fn columns(fixture: &Fixture, table: &str) -> Vec<(String, String)> {
    let sql = "SELECT column_name::text, data_type::text FROM information_schema.columns
        WHERE table_schema || '.' || table_name = $1 ORDER BY ordinal_position";
    let rows = fixture.db.client.query(sql, &[&table]).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_field_has_its_column() {
    let fixture = Fixture::new(0).await;
    fixture.run(&["migrate"]).await.assert_exit(Exit::Ok);
    for resource in RESOURCES {
        let columns = columns(&fixture, resource.table).await;
        let expected: Vec<(String, String)> = resource
            .fields
            .iter()
            .map(|field| {
                let kind = match field.kind {
                    FieldKind::Text => "text",
                    FieldKind::Bool => "boolean",
                    FieldKind::Int => "bigint",
                    FieldKind::Time => "timestamp with time zone",
                    FieldKind::Json => "jsonb",
                };
                (field.name.to_owned(), kind.to_owned())
            })
            .collect();
        assert_eq!(columns[..expected.len()], expected, "{}", resource.table);
        let rest = columns[expected.len()..].iter().map(|(name, _)| name.as_str());
        let ours = [
            "extra",
            "absent",
            "unexpected",
            "digest",
            "first_seen_at",
            "changed_at",
            "deleted_at",
        ];
        let derived = resource.derived.columns.iter().map(|column| column.name);
        let derived_and_ours: BTreeSet<&str> = derived.chain(ours).collect();
        assert_eq!(rest.collect::<BTreeSet<_>>(), derived_and_ours, "{}", resource.table);
    }
}
