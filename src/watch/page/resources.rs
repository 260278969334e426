//! The table of resources: users, organizations and what belongs to them.

use std::fmt::{self, Write};

use super::{
    MirrorReport,
    html::{Escaped, Table, ago},
};
use crate::{
    humanize::number,
    mirror::{ResourceStatus, Summary},
    resource::USERS,
    secret::without_personal_data,
};

const TABLE: Table<'_> = Table {
    title: "Resources",
    caption: "What is mirrored, and when a full sync of it was last complete",
    text_columns: 2,
    heads: &["resource", "last complete", "objects", "rejected", "held"],
};

/// Writes a line for users, and one for each other resource if there is anything of it.
pub(super) fn write(out: &mut String, summary: &Summary, report: &MirrorReport) -> fmt::Result {
    let users = ResourceStatus {
        resource: USERS.name.to_owned(),
        objects: summary.users,
        held: summary.held,
        approved: summary.approved,
        rejected: summary.rejected,
        last_success_at: report.recent.last_full_at,
        error: None,
        plan: None,
    };
    TABLE.begin(out)?;
    row(out, &users, summary)?;
    let is_shown =
        |status: &&ResourceStatus| status.objects + status.held + status.rejected > 0 || status.error.is_some();
    for status in report.resources.iter().filter(is_shown) {
        row(out, status, summary)?;
        if let Some(error) = &status.error {
            TABLE.explain(out, &without_personal_data(error))?;
        }
    }
    TABLE.end(out);
    Ok(())
}

fn row(out: &mut String, status: &ResourceStatus, summary: &Summary) -> fmt::Result {
    write!(
        out,
        "<tr><th scope=\"row\">{}<td>{}<td>{}<td>{}<td>{}</tr>",
        Escaped(&status.resource.replace('_', " ")),
        ago(summary.now, status.last_success_at),
        number(status.objects.unsigned_abs()),
        number(status.rejected.unsigned_abs()),
        number(status.held.unsigned_abs()),
    )
}
