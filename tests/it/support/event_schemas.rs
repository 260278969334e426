//! Clerk's schemas of its events, if there is a copy of them.

use std::path::PathBuf;

use saphyr::{LoadableYamlNode, Yaml};
use serde_json::Value;

/// Asserts that events hold what Clerk's schemas require of their types, and that deletions hold
/// nothing else.
pub fn assert_as_specified<'e>(events: impl IntoIterator<Item = (&'e str, &'e Value)>) {
    let beside = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/clerk/webhooks-2025-04-15.yml");
    let path = std::env::var_os("CLERK_WEBHOOKS").map_or(beside, PathBuf::from);
    let Ok(text) = std::fs::read_to_string(&path) else {
        println!(
            "SKIPPED: no event schemas of Clerk's at {}; CLERK_WEBHOOKS can name them",
            path.display()
        );
        return;
    };
    let documents = Yaml::load_from_str(&text).expect("the document is YAML");
    for (kind, payload) in events {
        check(&documents[0], kind, payload);
    }
}

fn check(document: &Yaml<'_>, kind: &str, payload: &Value) {
    let schema = |reference: &str| &document["components"]["schemas"][reference.rsplit('/').next().unwrap()];
    let content = &document["x-webhooks"][kind]["post"]["requestBody"]["content"]["application/json"];
    let all = content["schema"]["allOf"]
        .as_sequence()
        .expect("an envelope and its data");
    let envelope = schema(all[0]["$ref"].as_str().unwrap());
    let data = &all[1]["properties"]["data"];
    // Some are extended.
    let data = match data.as_mapping_get("allOf") {
        Some(all) => &all.as_sequence().unwrap()[0],
        None => data,
    };
    let data = schema(data["$ref"].as_str().unwrap());
    assert_eq!(keys(envelope, "required").len(), 4, "{kind}");
    assert!(payload.get("data").is_some(), "{kind} has no data");
    for (schema, payload) in [(envelope, payload), (data, &payload["data"])] {
        for key in keys(schema, "required") {
            assert!(payload.get(key).is_some(), "{kind} lacks {key}: {payload:#}");
        }
        if kind.ends_with(".deleted") {
            let known = keys(schema, "properties");
            for key in payload.as_object().unwrap().keys().filter(|key| *key != "data") {
                assert!(known.contains(&key.as_str()), "{kind} has {key}: {payload:#}");
            }
        }
    }
}

/// Returns the keys that a schema lists under a name.
fn keys<'y>(schema: &'y Yaml<'y>, list: &str) -> Vec<&'y str> {
    match schema.as_mapping_get(list) {
        Some(list) if list.is_sequence() => list
            .as_sequence()
            .unwrap()
            .iter()
            .map(|key| key.as_str().unwrap())
            .collect(),
        Some(list) => list
            .as_mapping()
            .unwrap()
            .keys()
            .map(|key| key.as_str().unwrap())
            .collect(),
        None => Vec::new(),
    }
}
