//! The command `init`: proposes a configuration from what the environment and the database have.

use std::{
    fs::File,
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
};

use clerk2pg::{
    check::{self, CheckStatus},
    cli::Arguments,
    config::Loaded,
    failure::{Cause, Failure},
    init::{NoProposal, entry, looks_mapped, propose, target},
    mirror::{AppTables, Problem, TableFacts},
    output::{self, Initialized, ProposedTable},
};

use super::{Exit, printed};
use crate::setup::{build_check, build_mirror};

/// The settings with their comments.
const DEFAULTS: &str = include_str!("../../config.toml");

/// Users whose rows are shown.
const SHOWN: u32 = 5;

/// Checks everything, proposes a mapping for each table, and writes a configuration file if there is none.
pub async fn run_init(loaded: &Loaded, arguments: &Arguments, tables: &[String]) -> Result<Exit, Failure> {
    let checks = check::run(&build_check(loaded)).await;
    let reaches = |name: &str| {
        checks
            .iter()
            .any(|check| check.name == name && check.status != CheckStatus::Failed)
    };
    let (mut proposed, mut candidates) = (Vec::new(), Vec::new());
    let mut has_mirror = false;
    if loaded.require_database().is_ok() && reaches("database") {
        let mirror = build_mirror(loaded)?;
        has_mirror = matches!(mirror.schema().exists().await, Ok(true));
        let app_tables = mirror.app_tables();
        let all = app_tables.all_facts().await?;
        for name in tables {
            let table = propose_for(&app_tables, &all, name, has_mirror).await?;
            if !proposed.iter().any(|other: &ProposedTable| other.table == table.table) {
                proposed.push(table);
            }
        }
        candidates = all
            .iter()
            .filter(|table| looks_mapped(table))
            .map(TableFacts::shown)
            .collect();
    } else if let Some(name) = tables.first() {
        let message = format!("no mapping can be proposed for {name}, as the database cannot be reached");
        return Err(Failure::new(Cause::NeedsPerson, message).hint("see `clerk2pg check`"));
    }
    // A new file in this folder would take the place of the one in /etc.
    let path = arguments.config.clone().or_else(|| loaded.file.clone());
    let path = path.unwrap_or_else(|| PathBuf::from("config.toml"));
    let written = write_new(&path, &proposed);
    let initialized = Initialized {
        has_mirror,
        checks,
        tables: proposed,
        candidates,
        file: path.display().to_string(),
        is_written: written.as_ref().ok().copied(),
    };
    printed(output::initialized(arguments.format(), &initialized))?;
    written.map(|_| Exit::Success)
}

async fn propose_for(
    app_tables: &AppTables,
    all: &[TableFacts],
    name: &str,
    has_mirror: bool,
) -> Result<ProposedTable, Failure> {
    let Some(table) = all.iter().find(|table| table.is_called(name)) else {
        let names: Vec<String> = all.iter().map(TableFacts::shown).collect();
        let message = format!("there is no table {name}");
        return Err(Failure::new(Cause::NeedsPerson, message).hint(format!("the tables are {}", names.join(", "))));
    };
    let has_rows = app_tables.has_rows(table).await?;
    let proposal = propose(table, has_rows, all)
        .map_err(|NoProposal { message, hint }| Failure::new(Cause::NeedsPerson, message).hint(hint))?;
    let mapping = &proposal.mapping;
    if let Some(column) = mapping.key.id_column().filter(|_| proposal.is_key_guessed) {
        let prefix = mapping.from.resource().id_prefix;
        let mut has_other_ids = app_tables.has_other_ids(table, column, prefix).await?;
        if let Some((other, column)) = target(table, column, all) {
            has_other_ids |= app_tables.has_other_ids(other, column, prefix).await?;
        }
        if has_other_ids {
            let message = format!("{} has no column for Clerk's id: {column} has other ids", table.shown());
            let hint = format!("ALTER TABLE {} ADD COLUMN clerk_id text UNIQUE", table.quoted());
            return Err(Failure::new(Cause::NeedsPerson, message).hint(hint));
        }
    }
    let mut problems = app_tables.inspect(mapping, has_mirror).await?.problems;
    let (mut columns, mut rows) = (Vec::new(), Vec::new());
    if has_mirror && !problems.iter().any(|problem| problem.is_fatal) {
        match app_tables.preview(mapping, SHOWN).await {
            Ok(preview) => (columns, rows) = preview,
            Err(error) => problems.push(Problem {
                message: error.to_string(),
                hint: "correct the entry".to_owned(),
                is_fatal: true,
            }),
        }
    }
    Ok(ProposedTable {
        table: proposal.mapping.table(),
        entry: entry(&proposal),
        problems: problems
            .into_iter()
            .map(|problem| (problem.message, problem.hint))
            .collect(),
        has_mirror,
        columns,
        rows,
    })
}

/// Writes the settings and the entries into a new file. Returns false if the file exists: it is not
/// changed.
fn write_new(path: &Path, tables: &[ProposedTable]) -> Result<bool, Failure> {
    let failed = |error| Failure::new(Cause::Other, format!("cannot write {}: {error}", path.display()));
    let mut file = match File::create_new(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(false),
        Err(error) => return Err(failed(error)),
    };
    let entries: String = tables.iter().map(|table| format!("\n{}", table.entry)).collect();
    if let Err(error) = file.write_all(format!("{DEFAULTS}{entries}").as_bytes()) {
        // A part of the file would count as one that exists.
        let _ = std::fs::remove_file(path);
        return Err(failed(error));
    }
    Ok(true)
}
