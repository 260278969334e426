//! The workflows of GitHub Actions: a linter finds nothing wrong with them, and what they run is the
//! project's own.

use std::{collections::BTreeSet, fs, path::Path};

use saphyr::{LoadableYamlNode, Yaml};
use serde::Deserialize;
use serde_json::json;

use crate::support::{node_app::NodeApp, pages::page};

/// Begins a command that installs tools, or that hands a value to later steps.
const PREPARES: [&str; 3] = ["apt-get ", "rustup ", "echo "];

/// What GitHub has had for a shorter time than the linter: it takes these for mistakes.
const NEWER: [&str; 3] = [
    "label \"ubuntu-24.04\" is unknown",
    "label \"ubuntu-24.04-arm\" is unknown",
    "undefined variable \"vars\"",
];

/// What the linter says.
#[derive(Debug, Deserialize)]
struct Finding {
    #[allow(dead_code, reason = "printed if there is one")]
    line: u32,
    message: String,
}

impl Finding {
    fn is_of_older_linter(&self) -> bool {
        NEWER.iter().any(|start| self.message.starts_with(start))
    }
}

/// Returns the workflows with their paths.
fn workflows() -> Vec<(String, String)> {
    let folder = ".github/workflows";
    let entries = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)).unwrap();
    let mut workflows: Vec<_> = entries
        .map(|entry| {
            let path = format!("{folder}/{}", entry.unwrap().file_name().to_str().unwrap());
            let text = page(&path);
            (path, text)
        })
        .collect();
    workflows.sort();
    assert!(workflows.len() >= 2, "{workflows:?}");
    workflows
}

#[tokio::test]
async fn a_linter_finds_nothing_wrong() {
    let Some(app) = NodeApp::install_from("tests/it/workflow_linter").await else {
        return;
    };
    let mut linted = workflows();
    let broken = linted[0].1.replacen("runs-on:", "run-on:", 1);
    assert_ne!(broken, linted[0].1);
    linted.push(("broken.yml".to_owned(), broken));
    let input = linted.iter().map(|(path, text)| json!({"path": path, "text": text}));
    let input = serde_json::to_vec(&input.collect::<Vec<_>>()).unwrap();
    let found: Vec<Vec<Finding>> = serde_json::from_slice(&app.answer("lint.mjs", &[], &input).await).unwrap();
    let (of_broken, found) = found.split_last().unwrap();
    for ((path, _), findings) in linted.iter().zip(found) {
        let findings: Vec<&Finding> = findings
            .iter()
            .filter(|finding| !finding.is_of_older_linter())
            .collect();
        assert!(findings.is_empty(), "{path}: {findings:#?}");
    }
    let says = |part: &str| of_broken.iter().any(|finding| finding.message.contains(part));
    assert!(says("run-on"), "{of_broken:#?}");
}

/// Returns the commands of all steps.
fn commands(workflow: &str) -> Vec<String> {
    let documents = Yaml::load_from_str(workflow).unwrap();
    let jobs = documents[0].as_mapping_get("jobs").unwrap().as_mapping().unwrap();
    let mut commands = Vec::new();
    for job in jobs.values() {
        let steps = job.as_mapping_get("steps").and_then(Yaml::as_sequence);
        for step in steps.into_iter().flatten() {
            let run = step.as_mapping_get("run").and_then(|run| run.as_str());
            commands.extend(run.unwrap_or_default().lines().map(|line| line.trim().to_owned()));
        }
    }
    commands
}

#[test]
fn each_step_runs_what_runs_on_any_machine() {
    let makefile = page("Makefile");
    let targets: BTreeSet<&str> = makefile
        .lines()
        .filter_map(|line| Some(line.split_once(": ##")?.0))
        .collect();
    for (path, text) in workflows() {
        let commands = commands(&text);
        let mut works = false;
        for command in commands.iter().filter(|command| !command.is_empty()) {
            let mut words = command.split_whitespace();
            match (words.next(), words.next()) {
                (Some("make"), Some(target)) => {
                    assert!(targets.contains(target), "{path}: there is no target {target}");
                    works = true;
                }
                (Some(".ci/run"), None) => works = true,
                _ => assert!(
                    PREPARES.iter().any(|start| command.starts_with(start)),
                    "{path}: {command}"
                ),
            }
        }
        assert!(works, "{path}: {commands:?}");
    }
}
