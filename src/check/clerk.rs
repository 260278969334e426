//! Checks Clerk with a few requests: the server, the key and its instance.

use std::time::Instant;

use chrono::{DateTime, TimeDelta, Utc};

use super::{
    finding::Finding,
    time_limit::{STEP, within},
};
use crate::{
    clerk::{Client, Instance, Page},
    failure::{Cause, Failure},
    humanize::{duration, users},
    reconcile::{
        range::Range,
        walk::{ListQuery, Walk},
    },
    resource::USERS,
    sync::same_instance,
};

/// Users that are read to find out whether a list has the requested order.
const RECENT: u32 = 10;

/// What was found about Clerk.
pub(super) struct ClerkFindings {
    /// Whether Clerk answers and accepts the key.
    pub(super) answer: Finding,
    key_identity: Option<KeyIdentity>,
    /// How many users it counts; `None` if it does not say.
    pub(super) users: Option<u64>,
    /// How far its clock is ahead of this machine's; `None` if unknown.
    pub(super) ahead: Option<TimeDelta>,
}

/// The instance that a key belongs to.
struct KeyIdentity {
    instance: Instance,
    /// Whether the server said which instance it is; an emulator may not.
    is_known: bool,
    is_live_key: bool,
    /// What the server does not support.
    lacks: Vec<&'static str>,
}

impl ClerkFindings {
    /// Only a finding: nothing else is known.
    pub(super) fn nothing(answer: Finding) -> Self {
        Self {
            answer,
            key_identity: None,
            users: None,
            ahead: None,
        }
    }

    /// Reports which instance it is, and whether the database mirrors it. `pinned` is the instance
    /// that the database mirrors, if any; `None` if that is unknown.
    pub(super) fn instance(&self, pinned: Option<&Option<String>>) -> Finding {
        let name = "instance";
        let Some(identity) = &self.key_identity else {
            return Finding::skipped(name, "Clerk gave no answer");
        };
        let Instance { id, environment_type } = &identity.instance;
        let pin = pinned.map(Option::as_deref);
        if let Err(failure) = same_instance(pin.flatten(), id) {
            return Finding::of(name, &failure);
        }
        let users = self
            .users
            .map_or_else(String::new, |total| format!(", {}", users(total)));
        let mirrored = match pin {
            None => "; it is unknown whether this database mirrors it",
            Some(None) => "; this database mirrors no instance yet",
            Some(Some(_)) => "; this database mirrors it",
        };
        if !identity.is_known {
            let lacks = match identity.lacks.as_slice() {
                [] => String::new(),
                lacks => format!("; it lacks {}", lacks.join(" and ")),
            };
            let message = format!(
                "this server does not say which instance it is, so its address is used instead{users}{lacks}{mirrored}"
            );
            return Finding::warn(name, message)
                .hint("ignore this if it is an emulator: clerk2pg works without what it lacks");
        }
        let message = format!("{id} ({environment_type}){users}{mirrored}");
        if !identity.lacks.is_empty() {
            return Finding::warn(name, format!("{message}; it lacks {}", identity.lacks.join(" and ")))
                .hint("is clerk.api_url (CLERK_API_URL) Clerk's own address?");
        }
        let contradicts = match environment_type.as_str() {
            "production" => !identity.is_live_key,
            "development" => identity.is_live_key,
            _ => false,
        };
        if contradicts {
            let kind = if identity.is_live_key { "sk_live_" } else { "sk_test_" };
            return Finding::warn(
                name,
                format!("{message}; the key begins with {kind}, as those of the other kind do"),
            )
            .hint("is it the right key? its prefix decides the rate limit unless clerk.rate_limit is set");
        }
        Finding::ok(name, message)
    }
}

/// Asks Clerk.
pub(super) async fn check_clerk(client: &Client, is_live_key: bool) -> ClerkFindings {
    match answers(client, is_live_key).await {
        Ok(findings) => findings,
        Err(failure) => ClerkFindings::nothing(Finding::of("clerk", &failure)),
    }
}

async fn answers(client: &Client, is_live_key: bool) -> Result<ClerkFindings, Failure> {
    let late = || {
        let message = format!(
            "Clerk cannot be reached: no answer within {} s, at {}",
            STEP.as_secs(),
            client.api_url()
        );
        Failure::new(Cause::ClerkUnavailable, message)
            .hint("is clerk.api_url (CLERK_API_URL) right, and can this machine reach it?")
    };
    let started = Instant::now();
    let known = within(STEP, late, client.instance()).await?;
    let took = started.elapsed();
    let asked = Utc::now();
    // A wrong address answers 404 to every request, and must not pass for an emulator.
    let page = within(STEP, late, client.list(&USERS, &Walk::new().query(), 1)).await?;
    let ahead = page.date.and_then(|date| ahead(date, asked, Utc::now()));
    let users = within(STEP, late, client.count(&USERS, Range::ALL)).await?;
    let mut lacks = Vec::new();
    if users.is_none() {
        lacks.push("counts of users (only full syncs see deletions)");
    }
    let is_known = known.is_some();
    // Clerk supports these; an emulator may not.
    if !is_known && let Some(first) = id(&page) {
        let query = ListQuery {
            after: Some(first.to_owned()),
            created_after: None,
            offset: 0,
        };
        match within(STEP, late, client.list(&USERS, &query, 1)).await {
            Ok(next) if id(&next) != Some(first) => {}
            _ => lacks.push("cursors (other parameters are used instead)"),
        }
        let asked = within(STEP, late, client.by_ids(&USERS, &[first])).await;
        if !asked.is_ok_and(|page| page.objects().iter().all(|raw| raw.id.as_deref() == Some(first))) {
            lacks.push("the filter user_id (a deletion takes two answers for its id, ten seconds apart)");
        }
        let recent = within(STEP, late, client.recent(&USERS, 0, RECENT)).await;
        if !recent.is_ok_and(|page| page.objects().is_sorted_by(|a, b| a.updated_at >= b.updated_at)) {
            lacks.push("lists by the last change (only full syncs see changes)");
        }
    }
    Ok(ClerkFindings {
        answer: Finding::ok(
            "clerk",
            format!(
                "{} accepts the key, and answers in {}",
                client.api_url(),
                duration(took)
            ),
        ),
        key_identity: Some(KeyIdentity {
            instance: known.unwrap_or_else(|| client.address_as_instance()),
            is_known,
            is_live_key,
            lacks,
        }),
        users,
        ahead,
    })
}

fn id(page: &Page) -> Option<&str> {
    page.objects().first()?.id.as_deref()
}

/// Returns how far a clock is ahead that showed `date`, in whole seconds, between two moments.
fn ahead(date: i64, asked: DateTime<Utc>, answered: DateTime<Utc>) -> Option<TimeDelta> {
    let shown = DateTime::from_timestamp_millis(date)? + TimeDelta::milliseconds(500);
    Some(shown - (asked + (answered - asked) / 2))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::finding::CheckStatus;

    fn findings(id: &str, environment_type: &str, is_live_key: bool) -> ClerkFindings {
        ClerkFindings {
            answer: Finding::ok("clerk", ""),
            key_identity: Some(KeyIdentity {
                instance: Instance {
                    id: id.to_owned(),
                    environment_type: environment_type.to_owned(),
                },
                is_known: true,
                is_live_key,
                lacks: Vec::new(),
            }),
            users: Some(1234),
            ahead: None,
        }
    }

    #[test]
    fn the_instance_is_compared_with_the_pin_and_the_key() {
        let check = |environment, is_live, pinned: Option<Option<&str>>, status, message: &str| {
            let pinned = pinned.map(|pin| pin.map(str::to_owned));
            let finding = findings("ins_a", environment, is_live).instance(pinned.as_ref());
            assert_eq!(finding.status, status, "{finding:?}");
            assert!(finding.message.contains(message), "{finding:?}");
        };
        let production = "ins_a (production), 1,234 users; ";
        check(
            "production",
            true,
            Some(None),
            CheckStatus::Ok,
            &format!("{production}this database mirrors no instance yet"),
        );
        check(
            "production",
            true,
            Some(Some("ins_a")),
            CheckStatus::Ok,
            &format!("{production}this database mirrors it"),
        );
        check("production", true, None, CheckStatus::Ok, "it is unknown whether");
        check("staging", true, Some(None), CheckStatus::Ok, "staging");
        check(
            "production",
            true,
            Some(Some("ins_b")),
            CheckStatus::Failed,
            "mirrors the Clerk instance ins_b, but the key belongs to ins_a",
        );
        check("production", false, Some(None), CheckStatus::Warn, "sk_test_");
        check("development", true, Some(None), CheckStatus::Warn, "sk_live_");
        check("development", false, Some(None), CheckStatus::Ok, "development");
    }

    #[test]
    fn whole_seconds_count_from_their_middle() {
        let at = |text: &str| text.parse::<DateTime<Utc>>().unwrap();
        let date = at("2026-01-01T00:00:10Z").timestamp_millis();
        let found = ahead(date, at("2026-01-01T00:00:05Z"), at("2026-01-01T00:00:06Z")).unwrap();
        assert_eq!(found, TimeDelta::seconds(5));
    }
}
