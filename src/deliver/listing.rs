//! What `clerk2pg endpoints` shows: the endpoints of the configuration and those of the database.

use serde::Serialize;

use crate::mirror::{DeadEvent, EndpointStatus};

/// An endpoint of the configuration, of the database, or of both.
#[derive(Debug, Clone, Serialize)]
pub struct ListedEndpoint {
    /// How far it is.
    #[serde(flatten)]
    pub status: EndpointStatus,
    /// Whether events are delivered to it, and why not.
    pub state: EndpointState,
    /// Its latest dead events.
    pub dead_events: Vec<DeadEvent>,
}

/// Whether events are delivered to an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EndpointState {
    /// They are.
    Delivering,
    /// It is tried only now and then: it does not work, or has asked for a pause.
    Paused,
    /// It is configured, and no daemon has delivered to it yet.
    New,
    /// They are, but this configuration does not have it.
    Unlisted,
    /// It is not configured any more.
    Removed,
}

impl EndpointState {
    /// Judges an endpoint of the database. `is_configured` is `None` if the configuration cannot be
    /// used.
    pub fn of(status: &EndpointStatus, is_configured: Option<bool>) -> Self {
        match (status.removed_at, is_configured) {
            // The daemon has not read this configuration yet.
            (Some(_), Some(true)) => EndpointState::New,
            (Some(_), _) => EndpointState::Removed,
            (None, Some(false)) => EndpointState::Unlisted,
            (None, _) if status.paused_at.is_some() => EndpointState::Paused,
            (None, _) => EndpointState::Delivering,
        }
    }
}

/// Lists all endpoints in the order of their names, without their dead events. `configured` are the
/// names in the configuration, `None` if it cannot be used.
pub fn list_endpoints(configured: Option<&[&str]>, stored: Vec<EndpointStatus>) -> Vec<ListedEndpoint> {
    let is_stored = |name: &str| stored.iter().any(|status| status.name == name);
    let names = configured.iter().copied().flatten();
    let new = names.filter(|name| !is_stored(name)).map(|name| ListedEndpoint {
        status: EndpointStatus::unknown(name),
        state: EndpointState::New,
        dead_events: Vec::new(),
    });
    let mut listed: Vec<ListedEndpoint> = new.collect();
    listed.extend(stored.into_iter().map(|status| {
        let is_configured = configured.map(|names| names.contains(&status.name.as_str()));
        ListedEndpoint {
            state: EndpointState::of(&status, is_configured),
            status,
            dead_events: Vec::new(),
        }
    }));
    listed.sort_by(|one, other| one.status.name.cmp(&other.status.name));
    listed
}

#[cfg(test)]
mod tests {
    use chrono::Utc;

    use super::*;

    fn status(name: &str, is_paused: bool, is_removed: bool) -> EndpointStatus {
        EndpointStatus {
            paused_at: is_paused.then(Utc::now),
            removed_at: is_removed.then(Utc::now),
            ..EndpointStatus::unknown(name)
        }
    }

    #[test]
    fn endpoints_of_both_sides_are_listed_once() {
        let stored = || {
            vec![
                status("app", false, false),
                status("back", false, true),
                status("gone", true, true),
                status("other", false, false),
                status("paused", true, false),
            ]
        };
        let check = |configured: Option<&[&str]>, expected: &[(&str, EndpointState)]| {
            let listed = list_endpoints(configured, stored());
            let listed: Vec<_> = listed
                .iter()
                .map(|listed| (listed.status.name.as_str(), listed.state))
                .collect();
            assert_eq!(listed, expected, "{configured:?}");
        };
        check(
            Some(&["paused", "new", "back", "app"]),
            &[
                ("app", EndpointState::Delivering),
                ("back", EndpointState::New),
                ("gone", EndpointState::Removed),
                ("new", EndpointState::New),
                ("other", EndpointState::Unlisted),
                ("paused", EndpointState::Paused),
            ],
        );
        check(
            None,
            &[
                ("app", EndpointState::Delivering),
                ("back", EndpointState::Removed),
                ("gone", EndpointState::Removed),
                ("other", EndpointState::Delivering),
                ("paused", EndpointState::Paused),
            ],
        );
    }
}
