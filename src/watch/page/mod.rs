//! The status page: one document without scripts, external resources or data of users. [`render`]
//! is a function of a [`Page`], which holds everything that is shown as values.

mod app_tables;
mod attention;
mod endpoints;
mod headline;
mod html;
mod plot;
mod plots;
mod rejections;
mod resources;
mod syncs;
mod tiles;

use std::{
    fmt::{self, Write},
    time::Duration,
};

use chrono::{DateTime, Utc};

use self::{headline::Headline, html::Escaped};
use super::{cached::Unread, condition::Condition, view::View};
use crate::{
    mirror::{Activity, EndpointStatus, HeldSet, RecentSyncs, RejectionReason, ResourceStatus, Summary, TableStatus},
    progress::Position,
};

/// The icon of the page, an SVG.
pub const FAVICON: &str = include_str!("favicon.svg");

/// How often a browser loads the page again. It is a header, because a reader must be able to turn
/// it off.
pub const RELOAD: Duration = Duration::from_secs(15);

const STYLE: &str = include_str!("style.css");

/// What the page shows.
#[derive(Debug, Clone)]
pub struct Page {
    /// What the request asked for.
    pub view: View,
    /// How the daemon is doing.
    pub condition: Condition,
    /// The time since a sync of any kind last ended with the mirror in sync.
    pub since_success: Option<Duration>,
    /// How far the full sync has come that runs at this moment.
    pub progress: Option<Position>,
    /// The daemon itself.
    pub process: ProcessReport,
    /// The state of the mirror.
    pub summary: Result<Summary, Unread>,
    /// Everything else about the mirror.
    pub report: Result<MirrorReport, Unread>,
}

/// What the page shows of the daemon itself.
#[derive(Debug, Clone)]
pub struct ProcessReport {
    /// Its name in the lease.
    pub holder: String,
    /// When it started.
    pub started_at: DateTime<Utc>,
    /// The requests to Clerk that its budget allows over time.
    pub requests_per_second: f64,
    /// The part of the budget that is spent now, from 0 to 1.
    pub budget_used: f64,
    /// How often Clerk's rate limit has refused a request.
    pub rate_limited: u64,
}

/// What the page shows of the mirror apart from its summary.
#[derive(Debug, Clone)]
pub struct MirrorReport {
    /// The last syncs.
    pub recent: RecentSyncs,
    /// What happened in the range that the page shows.
    pub activity: Activity,
    /// The resources other than users.
    pub resources: Vec<ResourceStatus>,
    /// The application's tables.
    pub tables: Vec<TableStatus>,
    /// The endpoints that events are delivered to.
    pub endpoints: Vec<EndpointStatus>,
    /// What waits for approval.
    pub held: Vec<HeldSet>,
    /// Why objects and rows are rejected.
    pub rejections: Vec<RejectionReason>,
}

/// Returns the content security policy of the page, which allows the style by `nonce`.
pub fn policy(nonce: &str) -> String {
    format!(
        "default-src 'none'; style-src 'nonce-{nonce}'; img-src 'self'; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'"
    )
}

/// Renders the page.
pub fn render(page: &Page, nonce: &str) -> Result<String, fmt::Error> {
    let mut out = String::with_capacity(32 << 10);
    let headline = Headline::of(page);
    write!(
        out,
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <meta name=\"robots\" content=\"noindex\">\
         <title>{} – clerk2pg</title><link rel=\"icon\" href=\"favicon.svg\" type=\"image/svg+xml\">\
         <style nonce=\"{nonce}\">{STYLE}</style></head><body>",
        Escaped(&headline.title)
    )?;
    headline.write(&mut out)?;
    out.push_str("<main>");
    let (summary, report) = (page.summary.as_ref().ok(), page.report.as_ref().ok());
    if let (Some(summary), Some(report)) = (summary, report) {
        attention::write(&mut out, summary, report)?;
    }
    tiles::write(&mut out, page)?;
    match (summary, &page.report) {
        (Some(summary), Ok(report)) => {
            plots::write(&mut out, page.view, summary, &report.activity)?;
            resources::write(&mut out, summary, report)?;
            app_tables::write(&mut out, summary, &report.tables)?;
            endpoints::write(&mut out, &report.endpoints)?;
            rejections::write(&mut out, &report.rejections)?;
            syncs::write(&mut out, &report.recent.runs)?;
        }
        // The headline says why, unless only this part of the mirror cannot be read.
        (Some(_), Err(why)) => write!(
            out,
            "<section><h2>The mirror cannot be read now</h2><p>{}</p></section>",
            Escaped(&why.to_string())
        )?,
        (None, _) => {}
    }
    out.push_str("</main>");
    footer(&mut out, page)?;
    out.push_str("</body></html>\n");
    Ok(out)
}

/// Writes what is mirrored, by which daemon, and whether the page reloads.
fn footer(out: &mut String, page: &Page) -> fmt::Result {
    out.push_str("<footer><p>");
    if let Ok(Summary {
        instance_id: Some(instance),
        environment_type,
        ..
    }) = &page.summary
    {
        write!(out, "{}", Escaped(instance))?;
        if let Some(environment) = environment_type {
            write!(out, " ({})", Escaped(environment))?;
        }
        out.push_str(" · ");
    }
    write!(
        out,
        "clerk2pg {} · {} · running since {}</p><p>",
        env!("CARGO_PKG_VERSION"),
        Escaped(&page.process.holder),
        page.process.started_at.format("%F %T UTC"),
    )?;
    let other = View {
        reloads: !page.view.reloads,
        ..page.view
    };
    let query = other.query();
    let href = Escaped(&query);
    match page.view.reloads {
        true => write!(
            out,
            "This page reloads every {} s. <a href=\"{href}\">Stop reloading</a>",
            RELOAD.as_secs()
        )?,
        false => write!(
            out,
            "This page does not reload. <a href=\"{href}\">Reload it every {} s</a>",
            RELOAD.as_secs()
        )?,
    }
    out.push_str("</p></footer>");
    Ok(())
}

#[cfg(test)]
mod tests;
