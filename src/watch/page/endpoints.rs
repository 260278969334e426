//! The table of endpoints.

use std::fmt::{self, Write};

use super::html::{Escaped, NONE, Table, ago};
use crate::{
    humanize::{age, events, number},
    mirror::EndpointStatus,
    secret::without_personal_data,
};

const TABLE: Table<'_> = Table {
    title: "Endpoints",
    caption: "How far events are delivered to each endpoint; the lag is how long the oldest event has been waiting",
    text_columns: 3,
    heads: &["endpoint", "state", "last delivered", "waiting", "lag", "late", "dead"],
};

/// Writes a line for each endpoint, if there are any.
pub(super) fn write(out: &mut String, endpoints: &[EndpointStatus]) -> fmt::Result {
    if endpoints.is_empty() {
        return Ok(());
    }
    TABLE.begin(out)?;
    for endpoint in endpoints {
        let state = match endpoint.paused_at {
            Some(at) => format!(" class=\"bad\">paused for {}", age(endpoint.now - at)),
            None => ">delivering".to_owned(),
        };
        write!(
            out,
            "<tr><th scope=\"row\">{}<td{state}<td>{}<td>{}<td>{}<td>{}<td>{}</tr>",
            Escaped(&endpoint.name),
            ago(endpoint.now, endpoint.delivered_at),
            events(endpoint.waiting.unsigned_abs(), endpoint.is_estimate),
            if endpoint.waiting > 0 {
                age(endpoint.lag())
            } else {
                NONE.to_owned()
            },
            number(endpoint.late.unsigned_abs()),
            number(endpoint.dead.unsigned_abs()),
        )?;
        if let Some(error) = endpoint.last_error.as_ref().filter(|_| endpoint.paused_at.is_some()) {
            TABLE.explain(out, &without_personal_data(error))?;
        }
    }
    TABLE.end(out);
    Ok(())
}
