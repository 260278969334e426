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

/// The manifests for Kubernetes below `packaging/kubernetes`: the kind, and how many of the program's
/// variables are set at least.
const MANIFESTS: [(&str, &str, usize); 5] = [
    ("deployment.yaml", "Deployment", 4),
    ("pod-disruption-budget.yaml", "PodDisruptionBudget", 0),
    ("network-policy.yaml", "NetworkPolicy", 0),
    ("sidecar/deployment.yaml", "Deployment", 2),
    ("cronjob/cronjob.yaml", "CronJob", 2),
];

fn manifest(name: &str) -> String {
    file(&format!("packaging/kubernetes/{name}"))
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
    for (name, _, least) in MANIFESTS {
        takes(name, &manifest(name), least).await;
    }
}

#[test]
fn every_manifest_is_valid() {
    for (name, expected, variables) in MANIFESTS {
        let manifest = manifest(name);
        let documents = Yaml::load_from_str(&manifest).unwrap();
        assert_eq!(documents.len(), 1, "{name}");
        for key in ["apiVersion", "kind", "metadata", "spec"] {
            assert!(documents[0].as_mapping_get(key).is_some(), "no {key}: {name}");
        }
        let kind = documents[0].as_mapping_get("kind").unwrap();
        assert_eq!(kind.as_str(), Some(expected), "{name}");
        let image = format!("image: clerk2pg:{}\n", env!("CARGO_PKG_VERSION"));
        assert_eq!(manifest.contains(&image), variables > 0, "{name}");
    }
}

#[test]
fn every_kustomization_has_the_manifests_of_its_folder() {
    for folder in ["", "cronjob/"] {
        let text = manifest(&format!("{folder}kustomization.yaml"));
        let documents = Yaml::load_from_str(&text).unwrap();
        assert_eq!(documents.len(), 1, "{folder}");
        let kind = documents[0].as_mapping_get("kind").unwrap();
        assert_eq!(kind.as_str(), Some("Kustomization"), "{folder}");
        let resources = documents[0].as_mapping_get("resources").unwrap().as_sequence().unwrap();
        let resources: Vec<&str> = resources.iter().map(|resource| resource.as_str().unwrap()).collect();
        let expected: Vec<&str> = MANIFESTS
            .iter()
            .filter_map(|(name, ..)| name.strip_prefix(folder))
            .filter(|name| !name.contains('/'))
            .collect();
        assert_eq!(resources, expected, "{folder}");
    }
}

/// Whether a text has these lines one after the other, whatever their indentation.
fn has_lines(text: &str, lines: &str) -> bool {
    let trimmed = |text: &str| text.lines().map(|line| line.trim().to_owned()).collect::<Vec<_>>();
    let (text, lines) = (trimmed(text), trimmed(lines));
    text.windows(lines.len()).any(|window| window == lines)
}

#[test]
fn the_page_about_kubernetes_shows_the_manifests_as_they_are() {
    let page = page("docs/kubernetes.md");
    let excerpts = code_blocks(&page, "yaml");
    assert_eq!(excerpts.len(), 5);
    for excerpt in excerpts {
        let documents = Yaml::load_from_str(excerpt).unwrap();
        // The reader's own settings.
        let is_example = documents[0].as_mapping_get("kind").is_some();
        let is_excerpt = MANIFESTS.iter().any(|(name, ..)| has_lines(&manifest(name), excerpt));
        assert_ne!(is_example, is_excerpt, "{excerpt}");
    }
}

#[test]
fn every_compose_file_is_valid() {
    for name in ["compose.yaml", "compose.sim.yaml"] {
        let documents = Yaml::load_from_str(&file(name)).unwrap();
        assert!(documents[0].as_mapping_get("services").is_some(), "{name}");
    }
}
