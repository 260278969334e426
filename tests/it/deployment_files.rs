//! The Dockerfile, the compose files and the Kubernetes manifests: valid YAML, and existing
//! settings.

use std::{collections::BTreeMap, fs, path::Path};

use saphyr::{LoadableYamlNode, Yaml};

use crate::support::{
    pages::{code_blocks, page},
    program::{ProgramOutput, command},
};

fn file(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

/// Returns the program's variables in a text: `NAME: value`, `NAME=value` or `{name: NAME, value:
/// value}`.
fn variables(text: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for line in text.lines() {
        let line = line.trim_start_matches(|letter: char| !letter.is_ascii_uppercase());
        let line = line.replace("ENV ", "").replace(", value: ", ": ");
        let Some((name, value)) = line.split_once([':', '=']) else {
            continue;
        };
        let is_name = name
            .bytes()
            .all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_');
        if is_name && (name.starts_with("CLERK") || name.starts_with("DATABASE_URL")) {
            let value = value.trim().trim_end_matches('}').trim_matches('"');
            found.insert(name.to_owned(), value.to_owned());
        }
    }
    found
}

/// Asserts that the program accepts these variables. Variables for files get one.
async fn takes(name: &str, text: &str, least: usize) {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    fs::write(&secret, "sk_test_of_the_manifests").unwrap();
    let variables = variables(text);
    assert!(variables.len() >= least, "{name}: {variables:?}");
    let mut command = command();
    command.arg("health").env_remove("CLERK2PG_HTTP__LISTEN");
    for (variable, value) in &variables {
        match variable.ends_with("_FILE") {
            true => command.env(variable, &secret),
            false => command.env(variable, value),
        };
    }
    let ran: ProgramOutput = command.output().await.unwrap().into();
    // An invalid setting is exit code 2. No daemon runs that could be healthy.
    assert!(matches!(ran.code, Some(0 | 1)), "{name}: {variables:?} {ran:#?}");
}

#[tokio::test]
async fn every_variable_is_a_setting() {
    takes("Dockerfile", &file("Dockerfile"), 1).await;
    takes("compose.yaml", &file("compose.yaml"), 2).await;
    let kubernetes = page("docs/kubernetes.md");
    let manifests = code_blocks(&kubernetes, "yaml");
    assert_eq!(manifests.len(), 3);
    for (manifest, least) in manifests.iter().zip([4, 2, 2]) {
        takes("docs/kubernetes.md", manifest, least).await;
    }
}

#[test]
fn every_yaml_block_is_valid() {
    let mut kinds = Vec::new();
    for manifest in code_blocks(&page("docs/kubernetes.md"), "yaml") {
        for document in Yaml::load_from_str(manifest).unwrap() {
            for key in ["apiVersion", "kind", "metadata", "spec"] {
                assert!(document.as_mapping_get(key).is_some(), "no {key}: {manifest}");
            }
            kinds.push(document.as_mapping_get("kind").unwrap().as_str().unwrap().to_owned());
        }
    }
    let expected = [
        "Deployment",
        "PodDisruptionBudget",
        "NetworkPolicy",
        "Deployment",
        "CronJob",
    ];
    assert_eq!(kinds, expected);
    for name in ["compose.yaml", "compose.sim.yaml"] {
        let documents = Yaml::load_from_str(&file(name)).unwrap();
        assert!(documents[0].as_mapping_get("services").is_some(), "{name}");
    }
}
