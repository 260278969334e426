//! The status page: one document without scripts, external resources or data of users.

use std::fmt::{self, Display, Write};

use chrono::{DateTime, TimeDelta, Utc};

use super::{cached::Sources, plot};
use crate::{
    humanize::{age, events, number, rejected_rows, rejected_users},
    mirror::{EndpointStatus, Freshness, History, LastRun, ResourceStatus, Summary, TableStatus},
    secret::without_personal_data,
};

const STYLE: &str = include_str!("page.css");

/// What a tile shows if the database does not answer.
const UNKNOWN: &str = "unknown";

/// Text that is escaped when it is written.
struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|letter| match letter {
            '&' => f.write_str("&amp;"),
            '<' => f.write_str("&lt;"),
            '>' => f.write_str("&gt;"),
            '"' => f.write_str("&quot;"),
            letter => f.write_char(letter),
        })
    }
}

/// Renders the page. The content security policy allows the style by `nonce`.
pub(super) fn render(
    sources: &Sources,
    summary: &Result<Summary, String>,
    history: &Result<History, String>,
    (resources, tables, endpoints): (&[ResourceStatus], &[TableStatus], &[EndpointStatus]),
    nonce: &str,
) -> Result<String, fmt::Error> {
    let mut out = String::with_capacity(32 << 10);
    let (ready, alive) = (sources.watch.ready(), sources.watch.alive());
    let probe = if alive.is_ok { &ready } else { &alive };
    let rejected = summary.as_ref().map_or(0, |summary| summary.rejected.unsigned_abs());
    let rows: u64 = tables.iter().map(|table| table.rejected).sum();
    let headline = match probe.is_ok {
        true if sources.watch.is_standing_by() => "Standing by".to_owned(),
        true if rejected > 0 => format!("In sync, but {}", rejected_users(rejected)),
        true if rows > 0 => format!("In sync, but {}", rejected_rows(rows)),
        true => "In sync".to_owned(),
        false => "Not in sync".to_owned(),
    };
    write!(
        out,
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <meta http-equiv=\"refresh\" content=\"15\"><meta name=\"robots\" content=\"noindex\">\
         <title>{headline} – clerk2pg</title><style nonce=\"{nonce}\">{STYLE}</style></head><body>"
    )?;
    let class = if probe.is_ok { "good" } else { "bad" };
    write!(out, "<header class=\"{class}\"><h1>{headline}</h1>")?;
    // The headline says this already.
    if probe.message != "in sync" {
        write!(out, "<p>{}</p>", Escaped(&probe.message))?;
    }
    out.push_str("</header>");
    tiles(&mut out, sources, summary.as_ref().ok(), history.as_ref().ok())?;
    match history {
        Ok(history) => {
            plots(&mut out, history)?;
            resource_rows(&mut out, resources, summary.as_ref().ok().map(|summary| summary.now))?;
            app_tables(&mut out, tables, summary.as_ref().ok().map(|summary| summary.now))?;
            endpoint_rows(&mut out, endpoints)?;
            syncs(&mut out, history)?;
        }
        Err(why) => write!(
            out,
            "<section><h2>The mirror cannot be read now</h2>{}</section>",
            Escaped(why)
        )?,
    }
    footer(&mut out, sources, summary.as_ref().ok())?;
    out.push_str("</body></html>\n");
    Ok(out)
}

fn tiles(out: &mut String, sources: &Sources, summary: Option<&Summary>, history: Option<&History>) -> fmt::Result {
    out.push_str("<dl>");
    freshness_tiles(out, sources, summary, history)?;
    user_tiles(out, summary)?;
    process_tiles(out, sources, summary)?;
    out.push_str("</dl>");
    Ok(())
}

/// Writes when the mirror was last in sync, and how fresh it is.
fn freshness_tiles(
    out: &mut String,
    sources: &Sources,
    summary: Option<&Summary>,
    history: Option<&History>,
) -> fmt::Result {
    let ago = |time: Option<TimeDelta>| time.map_or_else(|| "not yet".to_owned(), |time| format!("{} ago", age(time)));
    let since_success = sources.watch.since_success();
    let since_success = since_success.map(|time| TimeDelta::from_std(time).unwrap_or_default());
    tile(out, "Last sync in sync", &ago(since_success), "", false)?;
    let last_full = history.zip(summary);
    let last_full = last_full.map(|(history, summary)| ago(history.last_full_at.map(|at| summary.now - at)));
    let last_full = last_full.as_deref().unwrap_or(UNKNOWN);
    tile(out, "Last successful full sync", last_full, "", false)?;
    let (value, more) = match history.map(|history| history.freshness) {
        Some(Some(Freshness { p50_ms, p99_ms, .. })) => {
            let [p50, p99] = [p50_ms, p99_ms].map(|ms| age(TimeDelta::milliseconds(ms)));
            (p50, format!("median; 99 of 100 within {p99}"))
        }
        Some(None) => ("–".to_owned(), "no changes".to_owned()),
        None => (UNKNOWN.to_owned(), String::new()),
    };
    tile(out, "Freshness in the last hour", &value, &more, false)
}

/// Writes how many users there are, and how many need attention.
fn user_tiles(out: &mut String, summary: Option<&Summary>) -> fmt::Result {
    let count = |count: fn(&Summary) -> i64| summary.map(|summary| count(summary).unsigned_abs());
    let shown = |count: Option<u64>| count.map_or_else(|| UNKNOWN.to_owned(), number);
    let users = shown(count(|summary| summary.users));
    tile(out, "Users in the mirror", &users, "", false)?;
    for (name, count, hint) in [
        (
            "Held deletions",
            count(|summary| summary.held),
            "`clerk2pg status` shows how to approve them",
        ),
        (
            "Rejected users",
            count(|summary| summary.rejected),
            "`clerk2pg status` shows the reasons",
        ),
    ] {
        let has_some = count.is_some_and(|count| count > 0);
        tile(out, name, &shown(count), if has_some { hint } else { "" }, has_some)?;
    }
    Ok(())
}

/// Writes which daemon leads, which one syncs, and how much of the request budget is in use.
fn process_tiles(out: &mut String, sources: &Sources, summary: Option<&Summary>) -> fmt::Result {
    let named = |holder: &Option<String>, none: &str| match holder {
        None => none.to_owned(),
        Some(holder) if *holder == sources.holder => "this daemon".to_owned(),
        Some(holder) => holder.clone(),
    };
    let leader = summary.map(|summary| named(&summary.leader, "nobody"));
    let more = match summary.map_or(0, |summary| summary.standbys.len()) {
        0 => String::new(),
        1 => "another one stands by".to_owned(),
        standbys => format!("{standbys} stand by"),
    };
    tile(out, "Leader", leader.as_deref().unwrap_or(UNKNOWN), &more, false)?;
    let lease = summary.map(|summary| named(&summary.lease_holder, "free"));
    tile(out, "Lease", lease.as_deref().unwrap_or(UNKNOWN), "", false)?;
    let limit = sources.clerk.requests_per_second();
    let used = format!("{:.0} %", 100.0 * sources.clerk.budget_used());
    let refused = match sources.clerk.rate_limited() {
        0 => String::new(),
        refused => format!("; {} rate-limited so far", number(refused)),
    };
    let more = format!("of {limit} requests a second{refused}");
    tile(out, "Budget at Clerk in use", &used, &more, false)
}

fn tile(out: &mut String, name: &str, value: &str, more: &str, warns: bool) -> fmt::Result {
    let class = if warns { " class=\"warn\"" } else { "" };
    write!(out, "<div><dt>{name}</dt><dd{class}>{}", Escaped(value))?;
    if !more.is_empty() {
        write!(out, "<small>{}</small>", Escaped(more))?;
    }
    out.push_str("</dd></div>");
    Ok(())
}

fn plots(out: &mut String, history: &History) -> fmt::Result {
    write!(
        out,
        "<div class=\"plots\">\
         <figure><h2>Age of changes when committed</h2>{}\
         <figcaption>in five minutes:<i class=\"median\"></i>median<i class=\"worst\"></i>oldest</figcaption></figure>\
         <figure><h2>Users changed</h2>{}\
         <figcaption>in five minutes:<i class=\"created\"></i>created<i class=\"updated\"></i>updated<i class=\"deleted\"></i>deleted\
         </figcaption></figure></div>",
        plot::freshness(&history.periods)?,
        plot::changes(&history.periods)?,
    )
}

/// Writes a line for each resource other than users, if there is anything of it. `now` is the
/// database's clock.
fn resource_rows(out: &mut String, resources: &[ResourceStatus], now: Option<DateTime<Utc>>) -> fmt::Result {
    let is_shown = |status: &&ResourceStatus| status.objects + status.held + status.rejected > 0;
    let mut shown = resources.iter().filter(is_shown).peekable();
    if shown.peek().is_none() {
        return Ok(());
    }
    out.push_str(
        "<section><h2>Organizations</h2><div class=\"wide\"><table><thead><tr><th>resource<th>objects\
         <th>last full sync<th>rejected<th>held</tr></thead><tbody>",
    );
    for status in shown {
        let synced = now.zip(status.last_success_at).map(|(now, at)| now - at);
        write!(
            out,
            "<tr><td>{}<td>{}<td>{}<td>{}<td>{}</tr>",
            Escaped(&status.resource.replace('_', " ")),
            number(status.objects.unsigned_abs()),
            synced.map_or_else(|| "–".to_owned(), |time| format!("{} ago", age(time))),
            number(status.rejected.unsigned_abs()),
            number(status.held.unsigned_abs()),
        )?;
        let why = match &status.error {
            Some(error) => without_personal_data(error),
            None if status.held > 0 => "`clerk2pg status` shows how to approve what is held".to_owned(),
            None => continue,
        };
        write!(out, "<tr><td class=\"why\" colspan=\"5\">{}</tr>", Escaped(&why))?;
    }
    out.push_str("</tbody></table></div></section>");
    Ok(())
}

/// Writes a line for each table of the application, if there are any. `now` is the database's clock.
fn app_tables(out: &mut String, tables: &[TableStatus], now: Option<DateTime<Utc>>) -> fmt::Result {
    if tables.is_empty() {
        return Ok(());
    }
    out.push_str(
        "<section><h2>Tables of the application</h2><div class=\"wide\"><table><thead><tr><th>table<th>state\
         <th>compared<th>rows<th>repaired<th>rejected<th>held</tr></thead><tbody>",
    );
    for table in tables {
        let class = if table.state.needs_person() {
            " class=\"bad\""
        } else {
            ""
        };
        let compared = now.zip(table.compared_at).map(|(now, at)| now - at);
        let count = |count: Option<u64>| count.map_or_else(|| "–".to_owned(), number);
        write!(
            out,
            "<tr><td>{}<td{class}>{}<td>{}<td>{}<td>{}<td>{}<td>{}</tr>",
            Escaped(&table.table),
            table.state.words(),
            compared.map_or_else(|| "–".to_owned(), |time| format!("{} ago", age(time))),
            count(table.rows),
            count(table.repaired),
            number(table.rejected),
            number(table.held),
        )?;
        let why = match &table.problem {
            Some(problem) => without_personal_data(problem),
            None if table.rejected + table.held > 0 => {
                "`clerk2pg status` shows the reasons, and how to approve what is held".to_owned()
            }
            None => continue,
        };
        write!(out, "<tr><td class=\"why\" colspan=\"7\">{}</tr>", Escaped(&why))?;
    }
    out.push_str("</tbody></table></div></section>");
    Ok(())
}

/// Writes a line for each endpoint, if there are any.
fn endpoint_rows(out: &mut String, endpoints: &[EndpointStatus]) -> fmt::Result {
    if endpoints.is_empty() {
        return Ok(());
    }
    out.push_str(
        "<section><h2>Endpoints</h2><div class=\"wide\"><table><thead><tr><th>endpoint<th>state<th>last delivered\
         <th>waiting<th>lag<th>late<th>dead</tr></thead><tbody>",
    );
    for endpoint in endpoints {
        let ago = |at: Option<DateTime<Utc>>| at.map(|at| age(endpoint.now - at));
        let state = match ago(endpoint.paused_at) {
            Some(time) => format!(" class=\"bad\">paused for {time}"),
            None => ">delivering".to_owned(),
        };
        write!(
            out,
            "<tr><td>{}<td{state}<td>{}<td>{}<td>{}<td>{}<td>{}</tr>",
            Escaped(&endpoint.name),
            ago(endpoint.delivered_at).map_or_else(|| "–".to_owned(), |time| format!("{time} ago")),
            events(endpoint.waiting.unsigned_abs(), endpoint.is_estimate),
            if endpoint.waiting > 0 {
                age(endpoint.lag())
            } else {
                "–".to_owned()
            },
            number(endpoint.late.unsigned_abs()),
            number(endpoint.dead.unsigned_abs()),
        )?;
        let why = match &endpoint.last_error {
            Some(error) if endpoint.paused_at.is_some() => without_personal_data(error),
            _ if endpoint.dead > 0 => "`clerk2pg endpoints` lists the dead events".to_owned(),
            _ => continue,
        };
        write!(out, "<tr><td class=\"why\" colspan=\"7\">{}</tr>", Escaped(&why))?;
    }
    out.push_str("</tbody></table></div></section>");
    Ok(())
}

/// Writes the table of the last syncs.
fn syncs(out: &mut String, history: &History) -> fmt::Result {
    out.push_str(
        "<section><h2>Last syncs</h2><div class=\"wide\"><table><thead><tr><th><span class=\"spare\">started, </span>UTC<th>kind<th>outcome",
    );
    for (head, brief) in [("created", "new"), ("updated", "upd."), ("deleted", "del.")] {
        write!(
            out,
            "<th><span class=\"spare\">{head}</span><span class=\"brief\">{brief}</span>"
        )?;
    }
    out.push_str("<th class=\"spare\">requests<th class=\"spare\">took</tr></thead><tbody>");
    for run in &history.runs {
        sync_row(out, run)?;
    }
    if history.runs.is_empty() {
        out.push_str("<tr><td>none yet</tr>");
    }
    out.push_str("</tbody></table></div></section>");
    Ok(())
}

/// Writes one row of the table of syncs.
fn sync_row(out: &mut String, run: &LastRun) -> fmt::Result {
    let class = match run.outcome.as_str() {
        "failed" | "incomplete" | "held" => " class=\"bad\"",
        _ => "",
    };
    let took = run
        .ended_at
        .map_or_else(|| "…".to_owned(), |at| age(at - run.started_at));
    write!(
        out,
        "<tr><td><span class=\"spare\">{} </span>{}<td>{}<td{class}>{}",
        run.started_at.format("%b %e"),
        run.started_at.format("%T"),
        Escaped(&run.kind.replace('_', " ")),
        Escaped(&run.outcome.replace('_', " ")),
    )?;
    for count in [run.created, run.updated, run.deleted] {
        write!(out, "<td>{}", number(count.unsigned_abs()))?;
    }
    write!(
        out,
        "<td class=\"spare\">{}<td class=\"spare\">{took}</tr>",
        number(run.requests.unsigned_abs())
    )?;
    if let Some(error) = &run.error {
        write!(
            out,
            "<tr><td class=\"why\" colspan=\"8\">{}</tr>",
            Escaped(&without_personal_data(error))
        )?;
    }
    Ok(())
}

fn footer(out: &mut String, sources: &Sources, summary: Option<&Summary>) -> fmt::Result {
    out.push_str("<footer>");
    if let Some(Summary {
        instance_id: Some(instance),
        environment_type,
        ..
    }) = summary
    {
        write!(out, "{}", Escaped(instance))?;
        if let Some(environment) = environment_type {
            write!(out, " ({})", Escaped(environment))?;
        }
        out.push_str(" · ");
    }
    write!(
        out,
        "clerk2pg {} · {} · running since {} · this page reloads every 15 s</footer>",
        env!("CARGO_PKG_VERSION"),
        Escaped(&sources.holder),
        sources.watch.started_at().format("%F %T UTC"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped() {
        let text = Escaped("<script>alert(\"&\")</script>").to_string();
        assert_eq!(text, "&lt;script&gt;alert(&quot;&amp;&quot;)&lt;/script&gt;");
    }
}
