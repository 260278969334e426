//! The section with the plots, and the links that choose their range.

use std::fmt::{self, Write};

use chrono::TimeDelta;

use super::{
    html::{Escaped, ago_of},
    plot,
};
use crate::{
    humanize::age,
    mirror::{Activity, Summary},
    watch::view::{Range, View},
};

/// Writes the plots.
pub(super) fn write(out: &mut String, view: View, summary: &Summary, activity: &Activity) -> fmt::Result {
    let range = view.range;
    write!(
        out,
        "<section class=\"activity\"><div class=\"bar\"><h2>The last {}</h2>",
        range.title()
    )?;
    links(out, view)?;
    out.push_str("</div>");
    let length = TimeDelta::from_std(range.length()).unwrap_or_default();
    match activity.begins_at {
        Some(at) if summary.now - at < length => write!(
            out,
            "<p class=\"note\">The first sync that is shown began {}; nothing is known from before.</p>",
            ago_of(summary.now - at)
        )?,
        _ => {}
    }
    let period = age(TimeDelta::from_std(range.period()).unwrap_or_default());
    write!(
        out,
        "<div class=\"plots\">\
         <figure><h3>Age of changes when committed</h3>{}\
         <figcaption>in {period}:<i class=\"median\"></i>median<i class=\"worst\"></i>oldest</figcaption></figure>\
         <figure><h3>Users changed</h3>{}\
         <figcaption>in {period}:<i class=\"created\"></i>created<i class=\"updated\"></i>updated<i class=\"deleted\"></i>deleted\
         </figcaption></figure></div></section>",
        plot::freshness(range, &activity.periods)?,
        plot::changes(range, &activity.periods)?,
    )
}

/// Writes a link for each range.
fn links(out: &mut String, view: View) -> fmt::Result {
    out.push_str("<nav aria-label=\"Range of the plots\"><ul>");
    for range in Range::ALL {
        let current = if range == view.range {
            " aria-current=\"true\""
        } else {
            ""
        };
        let query = View { range, ..view }.query();
        write!(
            out,
            "<li><a href=\"{}\"{current}>{}</a></li>",
            Escaped(&query),
            range.title()
        )?;
    }
    out.push_str("</ul></nav>");
    Ok(())
}
