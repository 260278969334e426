//! Clerk's OpenAPI document, if there is a copy of it.
//!
//! The document is Clerk's and not part of this project. Its path is in `CLERK_OPENAPI`, or is
//! `../shared/clerk/openapi-2026-05-12.yml` beside the repository. Without it the tests that need it
//! print that they are skipped, and pass.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use jsonschema::{Draft, Validator};
use saphyr::{LoadableYamlNode, Scalar, Yaml};
use serde_json::{Value, json};

/// Clerk's document, with its schemas converted to JSON Schema.
pub struct Spec(Value);

impl Spec {
    pub fn read() -> Option<Self> {
        let beside = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/clerk/openapi-2026-05-12.yml");
        let path = std::env::var_os("CLERK_OPENAPI").map_or(beside, PathBuf::from);
        let Ok(text) = std::fs::read_to_string(&path) else {
            println!(
                "SKIPPED: no OpenAPI document of Clerk at {}; set CLERK_OPENAPI to its path",
                path.display()
            );
            return None;
        };
        let documents = Yaml::load_from_str(&text).expect("the document is YAML");
        Some(Self(json_schema(to_json(&documents[0]))))
    }

    pub fn validator(&self, schema: &str) -> Validator {
        let root = json!({"$ref": format!("#/components/schemas/{schema}"), "components": self.0["components"]});
        jsonschema::options()
            .with_draft(Draft::Draft202012)
            .build(&root)
            .expect("the schema can be compiled")
    }

    /// The schema of the answer to an operation, by the path and the method in the document.
    pub fn answer(&self, path: &str, method: &str) -> Validator {
        let reference = &self.0["paths"][path][method]["responses"]["200"]["$ref"];
        let name = reference
            .as_str()
            .unwrap_or_else(|| panic!("no answer of {method} {path}"));
        let name = name.trim_start_matches("#/components/responses/");
        let schema = &self.0["components"]["responses"][name]["content"]["application/json"]["schema"]["$ref"];
        let schema = schema.as_str().unwrap_or_else(|| panic!("no schema of {name}"));
        self.validator(schema.trim_start_matches("#/components/schemas/"))
    }

    /// The names of the query parameters of a list, but for those of all lists.
    pub fn parameters(&self, path: &str) -> BTreeSet<String> {
        let parameters = self.0["paths"][path]["get"]["parameters"].as_array();
        let named = parameters.expect("a list has parameters").iter();
        let in_query = named.filter(|parameter| parameter["in"] == "query");
        in_query
            .map(|parameter| parameter["name"].as_str().expect("a name").to_owned())
            .collect()
    }

    /// The properties of the request body of an operation.
    pub fn properties(&self, path: &str, method: &str) -> BTreeMap<String, Value> {
        let body = &self.0["paths"][path][method]["requestBody"]["content"]["application/json"]["schema"]["properties"];
        let map = body.as_object().unwrap_or_else(|| panic!("no body of {method} {path}"));
        map.iter()
            .map(|(name, schema)| (name.clone(), schema.clone()))
            .collect()
    }
}

fn to_json(yaml: &Yaml<'_>) -> Value {
    match yaml {
        Yaml::Value(Scalar::Null) | Yaml::BadValue => Value::Null,
        Yaml::Value(Scalar::Boolean(flag)) => (*flag).into(),
        Yaml::Value(Scalar::Integer(number)) => (*number).into(),
        Yaml::Value(Scalar::FloatingPoint(number)) => number.into_inner().into(),
        Yaml::Value(Scalar::String(text)) => text.as_ref().into(),
        Yaml::Sequence(items) => items.iter().map(to_json).collect(),
        Yaml::Mapping(pairs) => pairs
            .iter()
            .map(|(key, value)| {
                let key = to_json(key);
                (
                    key.as_str().map_or_else(|| key.to_string(), str::to_owned),
                    to_json(value),
                )
            })
            .collect(),
        Yaml::Representation(text, ..) => text.as_ref().into(),
        Yaml::Tagged(_, inner) => to_json(inner),
        Yaml::Alias(_) => panic!("the document uses no aliases"),
    }
}

/// Converts a schema: OpenAPI 3.0 has `nullable: true` where JSON Schema has null as a type.
fn json_schema(value: Value) -> Value {
    match value {
        Value::Object(mut map) => {
            let nullable = map.get("nullable") == Some(&Value::Bool(true));
            if nullable {
                map.remove("nullable");
            }
            let schema: Value = map.into_iter().map(|(key, value)| (key, json_schema(value))).collect();
            if nullable {
                json!({"anyOf": [{"type": "null"}, schema]})
            } else {
                schema
            }
        }
        Value::Array(items) => items.into_iter().map(json_schema).collect(),
        other => other,
    }
}

/// The errors of a document against a schema: the paths, with what is wrong there.
pub fn errors(validator: &Validator, document: &Value) -> Vec<(String, String)> {
    validator
        .iter_errors(document)
        .map(|error| (error.instance_path().to_string(), error.to_string()))
        .collect()
}

pub fn assert_valid(validator: &Validator, document: &Value) {
    let errors = errors(validator, document);
    assert!(errors.is_empty(), "{errors:#?} in {document:#}");
}
