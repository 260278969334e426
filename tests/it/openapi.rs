//! The mirror's columns compared with Clerk's OpenAPI document, if there is a copy of it, and with
//! the database.

use std::{collections::BTreeSet, path::PathBuf};

use clerk2pg::resource::{FieldKind, USERS};
use saphyr::{LoadableYamlNode, Yaml};

use crate::support::{fixture::Fixture, summary::Exit};

#[test]
fn fields_match_the_properties_of_clerks_user() {
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
    let properties = documents[0]["components"]["schemas"]["User"]["properties"]
        .as_mapping()
        .expect("a schema User");
    let types: Vec<(&str, &str)> = properties
        .iter()
        .map(|(name, schema)| {
            (
                name.as_str().unwrap(),
                schema
                    .as_mapping_get("type")
                    .and_then(Yaml::as_str)
                    .unwrap_or("a reference"),
            )
        })
        .collect();
    let names: Vec<&str> = types.iter().map(|(name, _)| *name).collect();
    assert_eq!(
        USERS.fields.iter().map(|field| field.name).collect::<Vec<_>>(),
        names,
        "in Clerk's order"
    );
    for (field, (_, kind)) in USERS.fields.iter().zip(types) {
        let expected = match field.kind {
            FieldKind::Text => ["string"].as_slice(),
            FieldKind::Bool => &["boolean"],
            FieldKind::Int | FieldKind::Time => &["integer"],
            FieldKind::Json => &["object", "array", "a reference"],
        };
        assert!(
            expected.contains(&kind),
            "{} is {kind} at Clerk, and {:?} here",
            field.name,
            field.kind
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_field_has_its_column() {
    let fixture = Fixture::new(0).await;
    fixture.run(&["migrate"]).await.assert_exit(Exit::Ok);
    let sql = "SELECT column_name::text, data_type::text FROM information_schema.columns
        WHERE table_schema = 'clerk' AND table_name = 'users' ORDER BY ordinal_position";
    let rows = fixture.db.client.query(sql, &[]).await.unwrap();
    let columns: Vec<(String, String)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    let expected: Vec<(String, String)> = USERS
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
    assert_eq!(columns[..USERS.fields.len()], expected);
    let own: BTreeSet<&str> = columns[USERS.fields.len()..]
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    let derived_and_ours = [
        "extra",
        "absent",
        "unexpected",
        "primary_email",
        "primary_email_verified",
        "primary_phone",
        "primary_phone_verified",
        "full_name",
        "digest",
        "first_seen_at",
        "changed_at",
        "deleted_at",
    ];
    assert_eq!(own, BTreeSet::from(derived_and_ours));
}
