//! The tiles: the most important numbers.

use std::fmt::{self, Write};

use chrono::TimeDelta;

use super::{
    Page, ProcessReport,
    html::{Escaped, NONE, ago_of},
};
use crate::{
    humanize::{age, number},
    mirror::{Freshness, RecentSyncs, Summary},
};

/// What a tile shows if it has not happened.
const NOT_YET: &str = "not yet";

/// Writes all tiles. Those about the mirror are left out if the database does not answer.
pub(super) fn write(out: &mut String, page: &Page) -> fmt::Result {
    out.push_str("<dl>");
    let since_success = page
        .since_success
        .map(|time| TimeDelta::from_std(time).unwrap_or_default());
    let last = since_success.map_or_else(|| NOT_YET.to_owned(), ago_of);
    tile(out, "Last sync in sync", &last, "")?;
    if let Ok(summary) = &page.summary {
        if let Ok(report) = &page.report {
            freshness(out, summary, &report.recent)?;
        }
        users(out, summary)?;
        replicas(out, summary, &page.process.holder)?;
    }
    budget(out, &page.process)?;
    out.push_str("</dl>");
    Ok(())
}

/// Writes when a full sync was last in sync, and how fresh the changes of the last hour were.
fn freshness(out: &mut String, summary: &Summary, recent: &RecentSyncs) -> fmt::Result {
    let last_full = recent
        .last_full_at
        .map_or_else(|| NOT_YET.to_owned(), |at| ago_of(summary.now - at));
    tile(out, "Last successful full sync", &last_full, "")?;
    let (value, more) = match recent.freshness {
        Some(Freshness { p50_ms, p99_ms, .. }) => {
            let [p50, p99] = [p50_ms, p99_ms].map(|ms| age(TimeDelta::milliseconds(ms)));
            (p50, format!("median; 99 of 100 within {p99}"))
        }
        None => (NONE.to_owned(), "no changes".to_owned()),
    };
    tile(out, "Freshness in the last hour", &value, &more)
}

/// Writes how many users there are, and how many need attention.
fn users(out: &mut String, summary: &Summary) -> fmt::Result {
    let [users, held, rejected] = [summary.users, summary.held, summary.rejected].map(i64::unsigned_abs);
    tile(out, "Users in the mirror", &number(users), "")?;
    let hint = "they are carried out once a person approves them";
    tile_of_problem(out, "Held deletions", held, hint)?;
    let hint = "they are not in the mirror, or out of date";
    tile_of_problem(out, "Rejected users", rejected, hint)
}

/// Writes which daemon leads, and which one syncs.
fn replicas(out: &mut String, summary: &Summary, own: &str) -> fmt::Result {
    let named = |holder: &Option<String>, none: &str| match holder {
        None => none.to_owned(),
        Some(holder) if holder == own => "this daemon".to_owned(),
        Some(holder) => holder.clone(),
    };
    let more = match summary.standbys.len() {
        0 => String::new(),
        1 => "another one stands by".to_owned(),
        standbys => format!("{standbys} stand by"),
    };
    tile(out, "Leader", &named(&summary.leader, "nobody"), &more)?;
    tile(out, "Lease", &named(&summary.lease_holder, "free"), "")
}

/// Writes how much of the request budget is in use.
fn budget(out: &mut String, process: &ProcessReport) -> fmt::Result {
    let used = format!("{:.0} %", 100.0 * process.budget_used);
    let refused = match process.rate_limited {
        0 => String::new(),
        refused => format!("; {} rate-limited so far", number(refused)),
    };
    let more = format!("of {} requests a second{refused}", process.requests_per_second);
    tile(out, "Budget at Clerk in use", &used, &more)
}

/// Writes a number that should be 0.
fn tile_of_problem(out: &mut String, name: &str, count: u64, hint: &str) -> fmt::Result {
    match count {
        0 => tile(out, name, "0", ""),
        count => write!(
            out,
            "<div><dt>{name}</dt><dd class=\"warn\">{}<small>{hint}</small></dd></div>",
            number(count)
        ),
    }
}

fn tile(out: &mut String, name: &str, value: &str, more: &str) -> fmt::Result {
    write!(out, "<div><dt>{name}</dt><dd>{}", Escaped(value))?;
    if !more.is_empty() {
        write!(out, "<small>{}</small>", Escaped(more))?;
    }
    out.push_str("</dd></div>");
    Ok(())
}
