//! Each ```console block of the README and of `docs/`: its commands are run, and what they print is
//! what the page shows.
//!
//! On a page, `…` on a line of its own stands for any lines, and within a line for any text.
//! `SNAPSHOTS=overwrite` writes what came into the pages.

mod scene;
pub mod scenes;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::Mutex,
};

use regex::Regex;
pub use scene::Scene;
use snapbox::{Assert, IntoData, Redactions, assert::DEFAULT_ACTION_ENV};

use crate::support::pages::{page, pages};

/// The pages, which one test at a time overwrites.
static PAGES: Mutex<()> = Mutex::new(());

/// What differs from run to run.
const VARIES: [(&str, &str); 5] = [
    ("[DURATION]", r" *\b[0-9.]+ (ms|s|min|h|days)\b"),
    ("[MILLISECONDS]", r#""duration_ms":(?<redacted>\d+)"#),
    ("[TIME]", r"\d{4}-\d{2}-\d{2} \d{2}:\d{2}:\d{2}"),
    ("[PROCESS]", r"\b[\w.-]+:\d+:[0-9a-f]{4}\b"),
    ("[VERSION]", r"PostgreSQL (?<redacted>\d+(\.\d+)?)"),
];

/// A block with its place.
struct Block {
    page: String,
    /// Which of the page's blocks it is, from 0 on.
    at: usize,
    text: String,
}

fn blocks() -> Vec<Block> {
    let mut blocks = Vec::new();
    for name in pages() {
        let text = page(&name);
        for (at, part) in text.split("```console\n").skip(1).enumerate() {
            blocks.push(Block {
                page: name.clone(),
                at,
                text: part.split("```").next().unwrap().to_owned(),
            });
        }
    }
    blocks
}

fn redactions() -> Redactions {
    let mut redactions = Redactions::new();
    for (placeholder, pattern) in VARIES {
        redactions.insert(placeholder, Regex::new(pattern).unwrap()).unwrap();
    }
    redactions
}

/// Turns a block into snapbox's form.
fn pattern(block: &str) -> String {
    let line = |line: &str| match line.trim() {
        "…" => "...\n".to_owned(),
        _ => format!("{}\n", line.replace('…', "[..]")),
    };
    block.lines().map(line).collect()
}

/// Runs a block, and asserts that what comes is what the page shows.
async fn check(page: &str, at: usize, scene: Scene) {
    let blocks = blocks();
    let block = blocks
        .iter()
        .find(|block| (block.page.as_str(), block.at) == (page, at));
    let block = block.unwrap_or_else(|| panic!("{page} has no block {}", at + 1));
    let commands: Vec<&str> = block.text.lines().filter_map(|line| line.strip_prefix("$ ")).collect();
    assert!(
        block.text.starts_with("$ "),
        "it begins with no command: {}",
        block.text
    );
    let came = run(&scene, &commands).await;
    scene.end().await;
    let assert = Assert::new();
    let expected = pattern(&block.text);
    if std::env::var(DEFAULT_ACTION_ENV).is_ok_and(|action| action == "overwrite") {
        let (came, _) = assert.normalize(came.into_data(), expected.into_data());
        return overwrite(block, &came.render().unwrap());
    }
    let redactions = redactions();
    let [came, expected] = [&came, &expected].map(|text| redactions.redact(text));
    assert.eq(came, expected);
}

/// Runs the commands, and returns them with what they print.
async fn run(scene: &Scene, commands: &[&str]) -> String {
    let mut came = String::new();
    for (command, output) in commands.iter().zip(scene.run(commands).await) {
        came += &format!("$ {command}\n");
        for line in output.lines() {
            came += line.trim_end();
            came.push('\n');
        }
    }
    format!("{}\n", came.trim_end())
}

fn overwrite(block: &Block, came: &str) {
    let _alone = PAGES.lock().unwrap();
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join(&block.page);
    let text = fs::read_to_string(&path).unwrap();
    let came = came.replace("[..]", "…").replace("...\n", "…\n");
    let fenced = |text: &str| format!("```console\n{text}```");
    fs::write(path, text.replacen(&fenced(&block.text), &fenced(&came), 1)).unwrap();
}

/// Declares a test for each block: its name, its page, which of the page's blocks it is, and what is
/// there before its commands.
macro_rules! blocks {
    ($($name:ident: $page:literal, $at:literal, $scene:expr;)*) => {
        const RUN: &[(&str, usize)] = &[$(($page, $at)),*];

        $(#[tokio::test(flavor = "multi_thread")]
        async fn $name() {
            check($page, $at, $scene).await;
        })*
    };
}

blocks! {
    readme_first_sync: "README.md", 0, scenes::first_sync().await;
    readme_events: "README.md", 1, scenes::two_changes().await;
    adopting_init: "docs/adopting.md", 0, scenes::a_table_to_adopt().await;
    adopting_dry_run: "docs/adopting.md", 1, scenes::a_table_to_adopt().await.initialized().await;
    adopting_once: "docs/adopting.md", 2, scenes::a_table_to_adopt().await.initialized().await;
    adopting_unknown_rows: "docs/adopting.md", 3, scenes::an_adopted_table().await;
    adopting_deletions: "docs/adopting.md", 4, scenes::an_adopted_table().await.exits(&[0, 3]);
    adopting_held_rows: "docs/adopting.md", 5, scenes::an_adopted_table_with_an_excluded_user().await;
    adopting_approval: "docs/adopting.md", 6, scenes::an_adopted_table_with_held_rows().await;
    backup_another_instance: "docs/backup.md", 0, scenes::another_instance().await.exits(&[1]);
    commands_init: "docs/commands.md", 0, scenes::a_table_in_use().await;
    commands_dry_run: "docs/commands.md", 1, scenes::differences().await;
    commands_dry_run_of_a_table: "docs/commands.md", 2, scenes::differences_of_a_table().await;
    commands_endpoints: "docs/commands.md", 3, scenes::an_endpoint_in_trouble().await;
    commands_once_as_json: "docs/commands.md", 4, scenes::differences().await;
    configuration_held_deletions: "docs/configuration.md", 0, scenes::held_deletions().await;
    operations_check: "docs/operations.md", 0, scenes::a_missing_right().await.exits(&[1]);
    operations_check_as_json: "docs/operations.md", 1, scenes::a_missing_right().await.exits(&[1]);
    tables_status: "docs/tables.md", 0, scenes::a_rejected_row().await;
    upgrading_check: "docs/upgrading.md", 0, scenes::older_schema().await;
    upgrading_older_schema: "docs/upgrading.md", 1, scenes::older_schema().await
        .with("CLERK2PG_DATABASE__MIGRATE", "false").exits(&[1]);
    upgrading_newer_schema: "docs/upgrading.md", 2, scenes::newer_schema().await.exits(&[1]);
}

#[test]
fn every_block_is_run() {
    let blocks = blocks();
    let found: BTreeSet<_> = blocks.iter().map(|block| (block.page.as_str(), block.at)).collect();
    assert_eq!(found, RUN.iter().copied().collect());
}
