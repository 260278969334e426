//! What waits for a person, with the command to type.

use std::fmt::{self, Write};

use super::{MirrorReport, html::Escaped};
use crate::{
    humanize::{age, are, dead_events, held_deletions, held_removals, rejected_objects, rejected_users, rows},
    mirror::{EndpointStatus, HeldItem, HeldSet, ResourceStatus, Summary, TableState, TableStatus, schema},
    resource::{RESOURCES, USERS},
    secret::without_personal_data,
};

/// Shows reasons, checksums and ids.
const STATUS: &str = "clerk2pg status";

/// Something that waits for a person.
#[derive(Debug, PartialEq, Eq)]
struct Item {
    /// What waits, or what is wrong.
    what: String,
    /// What to do, each with its command.
    steps: Vec<(String, String)>,
}

impl Item {
    fn new(what: String, why: impl Into<String>, command: impl Into<String>) -> Self {
        Self {
            what,
            steps: vec![(why.into(), command.into())],
        }
    }

    fn then(mut self, why: impl Into<String>, command: impl Into<String>) -> Self {
        self.steps.push((why.into(), command.into()));
        self
    }
}

/// Writes what waits for a person; nothing if nothing does.
pub(super) fn write(out: &mut String, summary: &Summary, report: &MirrorReport) -> fmt::Result {
    let items = items(summary, report);
    if items.is_empty() {
        return Ok(());
    }
    out.push_str("<section class=\"attention\"><h2>Needs attention</h2><ul>");
    for Item { what, steps } in items {
        write!(out, "<li><strong>{}</strong>", Escaped(&what))?;
        for (why, command) in steps {
            write!(out, "<p>{}, run <code>{}</code></p>", Escaped(&why), Escaped(&command))?;
        }
        out.push_str("</li>");
    }
    out.push_str("</ul></section>");
    Ok(())
}

/// Lists what waits, in the order in which it should be looked at: deletions before everything else.
fn items(summary: &Summary, report: &MirrorReport) -> Vec<Item> {
    let mut items: Vec<Item> = report.held.iter().map(held).collect();
    items.extend(report.tables.iter().filter_map(table));
    if summary.rejected > 0 {
        let users = rejected_users(summary.rejected.unsigned_abs());
        items.push(Item::new(users, "To see each user with the reason", STATUS));
    }
    items.extend(report.resources.iter().filter_map(rejected));
    items.extend(
        report
            .tables
            .iter()
            .filter(|table| table.rejected > 0)
            .map(rejected_rows),
    );
    items.extend(report.endpoints.iter().filter_map(paused));
    items.extend(report.endpoints.iter().filter_map(dead));
    items
}

/// Deletions or removals that are held.
fn held(HeldSet { item, count, plan }: &HeldSet) -> Item {
    let what = match item {
        HeldItem::Deletions(resource) if resource.name == USERS.name => held_deletions(*count),
        HeldItem::Deletions(resource) => format!("{}: {}", resource.title(), held_deletions(*count)),
        HeldItem::Removals(table) => format!("{table}: {}", held_removals(*count)),
    };
    let item = Item::new(what, "To see them", "clerk2pg --dry-run");
    match plan {
        Some(plan) => item.then("If they are correct", format!("clerk2pg approve {plan}")),
        None => item.then("To see the checksum that approves them", STATUS),
    }
}

/// A table whose state needs a person.
fn table(status: &TableStatus) -> Option<Item> {
    let TableStatus {
        table, problem, held, ..
    } = status;
    match (status.state, &status.mapping_plan) {
        (TableState::Held, Some(plan)) => Some(Item::new(
            format!("{table}: the new mapping is held, which changes {}", rows(*held)),
            "If that is correct",
            format!("clerk2pg approve {plan}"),
        )),
        (state, _) if state.needs_person() => {
            let problem = problem.as_deref().map(without_personal_data);
            let why = problem.map_or_else(String::new, |problem| format!(": {problem}"));
            let what = format!("{table}: {}{why}", state.words());
            Some(Item::new(what, "To check it again", "clerk2pg check"))
        }
        _ => None,
    }
}

/// Rejected objects of a resource other than users.
fn rejected(status: &ResourceStatus) -> Option<Item> {
    let resource = RESOURCES.iter().find(|resource| resource.name == status.resource)?;
    let list = format!(
        "psql \"$DATABASE_URL\" -c \"SELECT object_id, reason FROM {}.rejected WHERE resource = '{}'\"",
        schema(),
        resource.name
    );
    let what = rejected_objects(status.rejected.unsigned_abs(), resource);
    (status.rejected > 0).then(|| Item::new(what, "To see each with the reason", list))
}

/// Rejected rows of a table.
fn rejected_rows(status: &TableStatus) -> Item {
    let what = format!(
        "{}: {} {} rejected",
        status.table,
        rows(status.rejected),
        are(status.rejected)
    );
    Item::new(what, "To see each row with the reason", STATUS)
}

/// An endpoint that is paused. It goes on by itself once it works.
fn paused(endpoint: &EndpointStatus) -> Option<Item> {
    let name = &endpoint.name;
    let time = age(endpoint.now - endpoint.paused_at?);
    let why = endpoint.last_error.as_deref().map(without_personal_data);
    let why = why.map_or_else(String::new, |why| format!(": {why}"));
    Some(Item::new(
        format!("The endpoint {name} is paused for {time}{why}"),
        "It is tried again by itself. To try it now, and to see what to do",
        format!("clerk2pg send-test {name}"),
    ))
}

/// Events that an endpoint did not accept at their last attempt.
fn dead(endpoint: &EndpointStatus) -> Option<Item> {
    let name = &endpoint.name;
    let what = format!("The endpoint {name}: {}", dead_events(endpoint.dead.unsigned_abs()));
    (endpoint.dead > 0).then(|| {
        Item::new(what, "To see them", "clerk2pg endpoints")
            .then("To deliver them again", format!("clerk2pg redeliver {name}"))
    })
}
