//! The endpoints, and what commands have sent to them.

use std::io::{self, Write};

use anstyle::Style;
use chrono::{DateTime, Utc};
use serde::Serialize;

use super::{
    json,
    style::{BOLD, GREEN, YELLOW},
};
use crate::{
    cli::Format,
    deliver::{Attempt, EndpointState, ListedEndpoint},
    humanize::{age, are, duration, events, number, them},
    mirror::{DeadEvent, EndpointStatus, FROM_MIRROR, Redelivery, schema},
    printable::printable,
};

/// Prints all endpoints: `endpoints`.
pub fn endpoints(format: Format, endpoints: &[ListedEndpoint]) -> io::Result<()> {
    let mut out = anstream::stdout().lock();
    if format == Format::Json {
        #[derive(Serialize)]
        struct EndpointsReport<'a> {
            endpoints: &'a [ListedEndpoint],
        }
        return json(&mut out, &EndpointsReport { endpoints });
    }
    if endpoints.is_empty() {
        return writeln!(out, "No endpoints are configured.");
    }
    for (at, listed) in endpoints.iter().enumerate() {
        if at > 0 {
            writeln!(out)?;
        }
        print_endpoint(&mut out, &listed.status, listed.state)?;
        print_dead(&mut out, listed)?;
    }
    Ok(())
}

/// Prints how far an endpoint is.
pub(super) fn print_endpoint(out: &mut impl Write, status: &EndpointStatus, state: EndpointState) -> io::Result<()> {
    let name = printable(&status.name);
    let ago = |at: DateTime<Utc>| age(status.now - at);
    let (style, words) = match state {
        EndpointState::Delivering if status.late > 0 && status.last_error.is_some() => {
            (YELLOW, "events are delivered, but some are not accepted".to_owned())
        }
        EndpointState::Delivering => (Style::new(), "events are delivered".to_owned()),
        EndpointState::Unlisted => (
            YELLOW,
            "events are delivered, but this configuration has no such endpoint".to_owned(),
        ),
        EndpointState::New => (YELLOW, "no daemon has delivered to it yet".to_owned()),
        EndpointState::Removed => {
            let since = status
                .removed_at
                .map(|at| format!(" for {}", ago(at)))
                .unwrap_or_default();
            let words = format!("not configured any more{since}; events do not wait for it");
            (Style::new(), words)
        }
        EndpointState::Paused => (YELLOW, pause(status)),
    };
    writeln!(out, "{BOLD}{name}{BOLD:#}: {style}{words}{style:#}")?;
    if matches!(state, EndpointState::New | EndpointState::Removed) {
        return Ok(());
    }
    print_waiting(out, status)?;
    print_last_attempt(out, status)?;
    match status.dead.unsigned_abs() {
        0 => Ok(()),
        dead => writeln!(
            out,
            "  {YELLOW}{} {} dead{YELLOW:#}; to deliver {} again, run: clerk2pg redeliver {name}",
            events(dead, false),
            are(dead),
            them(dead)
        ),
    }
}

/// Says since when an endpoint is paused, and when it is tried again.
fn pause(status: &EndpointStatus) -> String {
    let since = status.paused_at.map(|at| age(status.now - at)).unwrap_or_default();
    match status.next_attempt_at.filter(|at| *at > status.now) {
        Some(next) => format!("paused for {since}; tried again in {}", age(next - status.now)),
        None => format!("paused for {since}; tried again now"),
    }
}

fn print_waiting(out: &mut impl Write, status: &EndpointStatus) -> io::Result<()> {
    write!(out, "  at event {}; ", number(status.position.unsigned_abs()))?;
    let [waiting, late] = [status.waiting, status.late].map(i64::unsigned_abs);
    match waiting {
        0 => return writeln!(out, "no event waits"),
        1 => write!(out, "1 event waits")?,
        waiting => write!(out, "{} wait", events(waiting, status.is_estimate))?,
    }
    if late > 0 {
        write!(out, ", {} of them late", number(late))?;
    }
    writeln!(out, "; the oldest for {}", age(status.lag()))
}

fn print_last_attempt(out: &mut impl Write, status: &EndpointStatus) -> io::Result<()> {
    let ago = |at: DateTime<Utc>| age(status.now - at);
    let Some(at) = status.last_attempt_at else {
        return writeln!(out, "  nothing was sent to it yet");
    };
    match (&status.last_error, status.last_status) {
        (Some(error), _) => write!(out, "  last attempt {} ago: {}", ago(at), printable(error))?,
        (None, Some(code)) => return writeln!(out, "  last attempt {} ago: it answered {code}", ago(at)),
        (None, None) => return writeln!(out, "  last attempt {} ago", ago(at)),
    }
    match status.delivered_at {
        Some(at) => writeln!(out, "; last delivered {} ago", ago(at)),
        None => writeln!(out, "; nothing was delivered yet"),
    }
}

/// Prints the latest dead events of an endpoint.
fn print_dead(out: &mut impl Write, listed: &ListedEndpoint) -> io::Result<()> {
    let ListedEndpoint {
        status, dead_events, ..
    } = listed;
    for DeadEvent {
        event_id,
        object_id,
        dead_at,
        last_error,
        ..
    } in dead_events
    {
        let event = match *event_id {
            FROM_MIRROR => "created".to_owned(),
            id => id.to_string(),
        };
        writeln!(
            out,
            "    {event}  {}  {} ago: {}",
            printable(object_id),
            age(status.now - *dead_at),
            printable(last_error.as_deref().unwrap_or("unknown"))
        )?;
    }
    match status.dead.unsigned_abs().saturating_sub(dead_events.len() as u64) {
        0 => Ok(()),
        more => writeln!(out, "    … and {} more in {}.deliveries", number(more), schema()),
    }
}

/// Prints how many events are delivered again: `redeliver`.
pub fn redelivered(format: Format, endpoint: &str, what: &Redelivery, queued: u64) -> io::Result<()> {
    let mut out = anstream::stdout().lock();
    if format == Format::Json {
        let object = serde_json::json!({"endpoint": endpoint, "queued": queued});
        return json(&mut out, &object);
    }
    match queued {
        0 => writeln!(out, "No event is queued for {endpoint}.")?,
        queued => writeln!(
            out,
            "{} {} queued for {endpoint}. The daemon that leads sends {} within seconds, unless {endpoint} is paused.",
            events(queued, false),
            are(queued),
            them(queued)
        )?,
    }
    match what {
        Redelivery::Ids(ids) if (ids.len() as u64) > queued => writeln!(
            out,
            "The others do not exist any more, are of types that {endpoint} does not get, or are still to be delivered."
        ),
        Redelivery::Dead if queued == 0 => writeln!(out, "It has no dead events. Events that are late are tried now."),
        Redelivery::Since(_) | Redelivery::Within(_) if queued == 0 => writeln!(
            out,
            "No event since then is of a type that {endpoint} gets, or all are still to be delivered."
        ),
        Redelivery::Everything if queued == 0 => {
            writeln!(out, "The mirror is empty, or {endpoint} does not get created events.")
        }
        _ => Ok(()),
    }
}

/// Prints what an endpoint answered to a test: `send-test`. For people, `main` prints a failure on
/// stderr.
pub fn tested(format: Format, endpoint: &str, id: &str, attempt: &Attempt) -> io::Result<()> {
    let mut out = anstream::stdout().lock();
    let (status, error) = attempt.outcome.describe();
    let milliseconds = attempt.took.as_millis();
    match format {
        Format::Json => {
            let object = serde_json::json!({
                "endpoint": endpoint, "id": id, "status": status, "duration_ms": milliseconds as u64, "error": error,
            });
            json(&mut out, &object)
        }
        Format::Human if error.is_none() => writeln!(
            out,
            "{GREEN}{endpoint}{GREEN:#} answered {} after {}.",
            status.unwrap_or_default(),
            duration(attempt.took)
        ),
        Format::Human => Ok(()),
    }
}
