//! Prints a proposal as an entry of `[[tables]]`.

use std::fmt::Write;

use super::Proposal;
use crate::{
    mirror::{Expressions, RowRemoval, Source, TableKey},
    printable::is_shown,
};

/// Returns the entry, with comments about what to look at.
pub fn entry(proposal: &Proposal) -> String {
    let Proposal { mapping, open, .. } = proposal;
    let mut out = String::from("[[tables]]\n");
    let mut line = |key: &str, value: &str| {
        let _ = writeln!(out, "{key} = {value}");
    };
    line("name", &text(&mapping.name));
    if mapping.schema != "public" {
        line("schema", &text(&mapping.schema));
    }
    match mapping.from {
        Source::Users => {}
        from => line("from", &text(from.resource().name)),
    }
    match &mapping.key {
        TableKey::Id(column) => line("key", &text(column)),
        TableKey::Values(columns) => {
            let columns: Vec<String> = columns.iter().map(|column| text(column)).collect();
            line("key", &format!("[{}]", columns.join(", ")));
        }
    }
    if proposal.needs_index {
        out.push_str("# The key needs a unique index. `clerk2pg check` shows the statement.\n");
    }
    if proposal.is_key_guessed {
        out.push_str(
            "# No column is named after Clerk's ids. Does this one hold ids such as user_…? If not, add one.\n",
        );
    }
    for (key, value) in [("where", &mapping.condition), ("link", &mapping.link)] {
        if let Some(value) = value {
            let _ = writeln!(out, "{key} = {}", text(value));
        }
    }
    match mapping.delete {
        RowRemoval::Delete => {}
        RowRemoval::Update => out.push_str("delete = \"update\"\n"),
        RowRemoval::Keep => {
            let excluded = match mapping.condition {
                Some(_) => ", or that `where` excludes",
                None => "",
            };
            let _ = writeln!(
                out,
                "# The table has rows. \"delete\" removes those of objects that are gone{excluded}."
            );
            out.push_str("delete = \"keep\"\n");
        }
    }
    section(&mut out, proposal, "set", &mapping.set);
    section(&mut out, proposal, "keep", &mapping.keep);
    section(&mut out, proposal, "touch", &mapping.touch);
    section(&mut out, proposal, "insert", &mapping.insert);
    if !open.is_empty() {
        if mapping.insert.is_empty() {
            out.push_str("[tables.insert]\n");
        }
        out.push_str("# These columns must not be NULL and have no default. Say what a new row gets:\n");
        for (column, kind) in open {
            let _ = writeln!(out, "#{} = \"\"   # {}", bare(column), comment(kind));
        }
    }
    section(&mut out, proposal, "deleted", &mapping.deleted);
    if !proposal.left_alone.is_empty() {
        let _ = writeln!(out, "# Not written: {}.", comment(&proposal.left_alone.join(", ")));
    }
    out
}

fn section(out: &mut String, proposal: &Proposal, name: &str, expressions: &Expressions) {
    if expressions.is_empty() {
        return;
    }
    let _ = writeln!(out, "[tables.{name}]");
    for (column, expression) in expressions {
        let remark = proposal.remarks.get(column).filter(|_| name == "insert");
        let remark = remark.map_or_else(String::new, |remark| format!("   # {}", comment(remark)));
        let _ = writeln!(out, "{} = {}{remark}", bare(column), text(expression));
    }
}

/// Returns a key as TOML writes it.
fn bare(key: &str) -> String {
    let is_bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    match !key.is_empty() && key.chars().all(is_bare) {
        true => key.to_owned(),
        false => basic(key),
    }
}

/// Returns a string as TOML writes it: SQL with quoted names is easier to read between three quotes.
fn text(value: &str) -> String {
    let is_plain = !value.contains(|c: char| !is_shown(c) || c == '\\');
    match is_plain && value.contains('"') && !value.ends_with('"') && !value.contains("\"\"") {
        true => format!("\"\"\"{value}\"\"\""),
        false => basic(value),
    }
}

/// Returns a string between quotes on one line.
fn basic(value: &str) -> String {
    let mut out = String::from("\"");
    for c in value.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if !is_shown(c) => {
                let _ = write!(out, "\\u{:04X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Returns a text for a comment, which ends with its line.
fn comment(text: &str) -> String {
    text.chars().map(|c| if is_shown(c) { c } else { ' ' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_what_toml_reads() {
        assert_eq!(text("u.id"), r#""u.id""#);
        assert_eq!(text(r#"(SELECT t."id" FROM x)"#), r#""""(SELECT t."id" FROM x)""""#);
        assert_eq!(text(r#"t."id""#), r#""t.\"id\"""#);
        assert_eq!(text("a\\b\nc\u{1}"), r#""a\\b\u000Ac\u0001""#);
        assert_eq!(bare("a_b-1"), "a_b-1");
        assert_eq!(bare(r#"say "hi" x"#), r#""say \"hi\" x""#);
        assert_eq!(comment("a\nb\u{2028}c"), "a b c");
        assert_eq!(text("a\u{202e}b"), r#""a\u202Eb""#);
    }
}
