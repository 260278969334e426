//! The headline: how the daemon is doing, in a few words.

use std::fmt::{self, Write};

use super::{MirrorReport, Page, html::Escaped};
use crate::{
    humanize::{held_deletions, held_rows, number, rejected_objects, rejected_rows, rejected_users},
    mirror::{Summary, TableState},
    progress::Position,
    resource::RESOURCES,
    watch::{cached::Unread, condition::Condition},
};

/// What to do about a failure.
const CHECK: &str = "clerk2pg check";

/// The headline.
#[derive(Debug)]
pub(super) struct Headline {
    /// The state in a few words.
    pub(super) title: String,
    /// More about it; empty if the title says everything.
    pub(super) detail: String,
    tone: Tone,
    /// How far a full sync has come, if that decides the state.
    progress: Option<Position>,
    /// The command that helps.
    command: Option<&'static str>,
}

/// How a state is marked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tone {
    /// Nothing is wrong.
    Good,
    /// It will be good soon.
    Wait,
    /// It is good, but a person has to look at something.
    Warn,
    /// Something is wrong.
    Bad,
}

impl Tone {
    fn class(self) -> &'static str {
        match self {
            Tone::Good => "good",
            Tone::Wait => "wait",
            Tone::Warn => "warn",
            Tone::Bad => "bad",
        }
    }
}

impl Headline {
    /// Returns the headline of a page.
    pub(super) fn of(page: &Page) -> Self {
        let message = page.condition.probe().message;
        match &page.condition {
            Condition::Stuck(_) => Self::new(Tone::Bad, "Stuck", message),
            Condition::Failing { .. } => Self::new(Tone::Bad, "Failing", message).with_check(),
            condition => match (condition, &page.summary) {
                // The page asks more often than a sync does.
                (_, Err(Unread::Failed(why))) => {
                    Self::new(Tone::Bad, "Failing", format!("the database cannot be read: {why}")).with_check()
                }
                (Condition::FirstSync, summary) => first_sync(summary.as_ref().ok(), page.progress.clone()),
                (Condition::Incomplete(_), _) => Self::new(Tone::Bad, "Not in sync", message).with_check(),
                (Condition::Late { .. }, _) => Self::new(Tone::Bad, "Late", message).with_check(),
                (Condition::StandingBy(why), _) => Self::new(Tone::Good, "Standing by", why),
                (_, summary) => match in_sync_but(summary.as_ref().ok(), page.report.as_ref().ok()) {
                    Some(but) => Self::new(Tone::Warn, format!("In sync, but {but}"), ""),
                    None => Self::new(Tone::Good, "In sync", ""),
                },
            },
        }
    }

    fn new(tone: Tone, title: impl Into<String>, detail: impl Into<String>) -> Self {
        Self {
            title: title.into(),
            detail: detail.into(),
            tone,
            progress: None,
            command: None,
        }
    }

    fn with_check(self) -> Self {
        Self {
            command: Some(CHECK),
            ..self
        }
    }

    /// Writes the header of the page.
    pub(super) fn write(&self, out: &mut String) -> fmt::Result {
        write!(
            out,
            "<header class=\"{}\"><h1>{}</h1>",
            self.tone.class(),
            Escaped(&self.title)
        )?;
        if !self.detail.is_empty() {
            write!(out, "<p>{}</p>", Escaped(&self.detail))?;
        }
        if let Some(Position {
            objects,
            seen,
            total: Some(total),
        }) = &self.progress
        {
            let (seen, max) = (*seen.min(total), (*total).max(1));
            write!(
                out,
                "<progress max=\"{max}\" value=\"{seen}\" aria-label=\"{}\"></progress>",
                Escaped(objects)
            )?;
        }
        if let Some(command) = self.command {
            write!(out, "<p>To find out what to do, run <code>{command}</code></p>")?;
        }
        out.push_str("</header>");
        Ok(())
    }
}

/// The headline until a full sync has ended.
fn first_sync(summary: Option<&Summary>, progress: Option<Position>) -> Headline {
    let so_far = progress.as_ref().map(|Position { objects, seen, total }| {
        let seen = number(*seen);
        match total {
            Some(total) => format!("{seen} of {} {objects}", number(*total)),
            None => format!("{seen} {objects} so far"),
        }
    });
    let is_imported = summary.is_some_and(|summary| summary.is_imported);
    let users = summary.map_or(0, |summary| summary.users.unsigned_abs());
    let (title, detail) = match so_far {
        Some(so_far) if is_imported => (
            "Comparing",
            format!("the first full sync since the start compares everything with Clerk: {so_far}"),
        ),
        Some(so_far) => ("Importing", so_far),
        None if is_imported => ("Comparing", "the first full sync since the start begins".to_owned()),
        None if users > 0 => ("Importing", "the first full sync continues".to_owned()),
        None => (
            "No sync yet",
            "the first full sync asks Clerk; nothing is stored yet".to_owned(),
        ),
    };
    Headline {
        progress,
        ..Headline::new(Tone::Wait, title, detail)
    }
}

/// What a person has to look at although the mirror is in sync; `None` if there is nothing.
fn in_sync_but(summary: Option<&Summary>, report: Option<&MirrorReport>) -> Option<String> {
    let summary = summary?;
    let resources = report.map_or(&[][..], |report| &report.resources);
    let tables = report.map_or(&[][..], |report| &report.tables);
    let deletions = summary.held + resources.iter().map(|resource| resource.held).sum::<i64>();
    if deletions > 0 {
        return Some(held_deletions(deletions.unsigned_abs()));
    }
    if tables.iter().any(|table| table.state == TableState::Held) {
        return Some("a mapping is held".to_owned());
    }
    let rows: u64 = tables.iter().map(|table| table.held).sum();
    if rows > 0 {
        return Some(held_rows(rows));
    }
    if summary.rejected > 0 {
        return Some(rejected_users(summary.rejected.unsigned_abs()));
    }
    if let Some(status) = resources.iter().find(|status| status.rejected > 0) {
        let resource = RESOURCES.iter().find(|resource| resource.name == status.resource)?;
        return Some(rejected_objects(status.rejected.unsigned_abs(), resource));
    }
    let rows: u64 = tables.iter().map(|table| table.rejected).sum();
    (rows > 0).then(|| rejected_rows(rows))
}
