//! The Clerk side: what a few requests tell of the server, the key and its instance.

use std::time::Instant;

use chrono::{DateTime, TimeDelta, Utc};

use super::{Finding, STEP, within};
use crate::{
    clerk::{Client, Instance, Page},
    failure::{Cause, Failure},
    humanize::number,
    reconcile::walk::{Query, Range, Walk},
    sync::same_instance,
};

/// Users that are read to see whether a list is in the order asked for.
const RECENT: u32 = 10;

/// What Clerk said.
pub(super) struct Seen {
    /// Whether Clerk answers, and takes the key.
    pub(super) answer: Finding,
    identity: Option<Identity>,
    /// How many users it counts.
    pub(super) users: Option<u64>,
    /// How far its clock is ahead of this machine's.
    pub(super) ahead: Option<TimeDelta>,
}

/// Whom the key belongs to.
struct Identity {
    instance: Instance,
    is_told: bool,
    is_live_key: bool,
    /// What the server does not do.
    lacks: Vec<&'static str>,
}

impl Seen {
    pub(super) fn nothing(answer: Finding) -> Self {
        Self {
            answer,
            identity: None,
            users: None,
            ahead: None,
        }
    }

    /// Which instance it is, and whether the database mirrors that very one; `pinned` is none where that is not known.
    pub(super) fn instance(&self, pinned: Option<&Option<String>>) -> Finding {
        let name = "instance";
        let Some(identity) = &self.identity else {
            return Finding::skipped(name, "nothing is known from Clerk");
        };
        let Instance { id, environment_type } = &identity.instance;
        let pin = pinned.map(Option::as_deref);
        if let Err(failure) = same_instance(pin.flatten(), id) {
            return Finding::of(name, &failure);
        }
        let users = self
            .users
            .map_or_else(String::new, |users| format!(", {} users", number(users)));
        let mirrored = match pin {
            None => "; whether this database mirrors it cannot be told",
            Some(None) => "; this database mirrors none yet",
            Some(Some(_)) => "; this database mirrors it",
        };
        if !identity.is_told {
            let lacks = match identity.lacks.as_slice() {
                [] => String::new(),
                lacks => format!("; it lacks {}", lacks.join(" and ")),
            };
            let says = format!(
                "this server does not say which instance it is, so that its address stands for it{users}{lacks}{mirrored}"
            );
            return Finding::warn(name, says)
                .hint("nothing, if it is an emulator: clerk2pg does without what it lacks");
        }
        let says = format!("{id} ({environment_type}){users}{mirrored}");
        if !identity.lacks.is_empty() {
            return Finding::warn(name, format!("{says}; it lacks {}", identity.lacks.join(" and ")))
                .hint("is clerk.api_url (CLERK_API_URL) Clerk's own address?");
        }
        let contradicts = match environment_type.as_str() {
            "production" => !identity.is_live_key,
            "development" => identity.is_live_key,
            _ => false,
        };
        if contradicts {
            let kind = if identity.is_live_key { "sk_live_" } else { "sk_test_" };
            return Finding::warn(name, format!("{says}; the key begins with {kind}, as those of the other kind do"))
                .hint("is it the key that was meant? clerk.request_budget goes by its beginning, unless clerk.rate_limit is set");
        }
        Finding::ok(name, says)
    }
}

/// Asks.
pub(super) async fn ask(client: &Client, is_live_key: bool) -> Seen {
    match answers(client, is_live_key).await {
        Ok(seen) => seen,
        Err(failure) => Seen::nothing(Finding::of("clerk", &failure)),
    }
}

async fn answers(client: &Client, is_live_key: bool) -> Result<Seen, Failure> {
    let late = || {
        let message = format!(
            "Clerk cannot be reached: no answer within {} s, at {}",
            STEP.as_secs(),
            client.api_url()
        );
        Failure::new(Cause::ClerkAway, message)
            .hint("is clerk.api_url (CLERK_API_URL) right, and can this machine reach it?")
    };
    let started = Instant::now();
    let told = within(STEP, late, client.instance()).await?;
    let took = started.elapsed().as_millis();
    let asked = Utc::now();
    // A wrong address answers 404 to everything, and must not be taken for an emulator.
    let page = within(STEP, late, client.list(&Walk::new().query(), 1)).await?;
    let ahead = page.date.and_then(|date| ahead(date, asked, Utc::now()));
    let users = within(STEP, late, client.count(Range::ALL)).await?;
    let mut lacks = Vec::new();
    if users.is_none() {
        lacks.push("counts of users (only full syncs see deletions)");
    }
    let is_told = told.is_some();
    // Clerk has cursors; of an emulator one does not know.
    if !is_told && let Some(first) = id(&page) {
        let query = Query {
            after: Some(first.to_owned()),
            created_after: None,
            offset: 0,
        };
        match within(STEP, late, client.list(&query, 1)).await {
            Ok(next) if id(&next) != Some(first) => {}
            _ => lacks.push("cursors (other ways stand in for them)"),
        }
        let asked = within(STEP, late, client.named(&[first])).await;
        if !asked.is_ok_and(|page| page.users().iter().all(|raw| raw.id.as_deref() == Some(first))) {
            lacks.push("the filter user_id (a deletion takes two answers for its id, ten seconds apart)");
        }
        let recent = within(STEP, late, client.recent(0, RECENT)).await;
        if !recent.is_ok_and(|page| page.users().is_sorted_by(|a, b| a.updated_at >= b.updated_at)) {
            lacks.push("lists by the last change (only full syncs see changes)");
        }
    }
    Ok(Seen {
        answer: Finding::ok(
            "clerk",
            format!("{} takes the key, and answers in {took} ms", client.api_url()),
        ),
        identity: Some(Identity {
            instance: told.unwrap_or_else(|| client.address_as_instance()),
            is_told,
            is_live_key,
            lacks,
        }),
        users,
        ahead,
    })
}

fn id(page: &Page) -> Option<&str> {
    page.users().first()?.id.as_deref()
}

/// How far a clock is ahead that told whole seconds some time between these moments.
fn ahead(date: i64, asked: DateTime<Utc>, answered: DateTime<Utc>) -> Option<TimeDelta> {
    let told = DateTime::from_timestamp_millis(date)? + TimeDelta::milliseconds(500);
    Some(told - (asked + (answered - asked) / 2))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::CheckStatus;

    fn seen(id: &str, environment_type: &str, is_live_key: bool) -> Seen {
        Seen {
            answer: Finding::ok("clerk", ""),
            identity: Some(Identity {
                instance: Instance {
                    id: id.to_owned(),
                    environment_type: environment_type.to_owned(),
                },
                is_told: true,
                is_live_key,
                lacks: Vec::new(),
            }),
            users: Some(1234),
            ahead: None,
        }
    }

    #[test]
    fn the_instance_is_held_against_the_pin_and_the_key() {
        let check = |environment, is_live, pinned: Option<Option<&str>>, status, says: &str| {
            let pinned = pinned.map(|pin| pin.map(str::to_owned));
            let finding = seen("ins_a", environment, is_live).instance(pinned.as_ref());
            assert_eq!(finding.status, status, "{finding:?}");
            assert!(finding.says.contains(says), "{finding:?}");
        };
        let production = "ins_a (production), 1,234 users; ";
        check(
            "production",
            true,
            Some(None),
            CheckStatus::Ok,
            &format!("{production}this database mirrors none yet"),
        );
        check(
            "production",
            true,
            Some(Some("ins_a")),
            CheckStatus::Ok,
            &format!("{production}this database mirrors it"),
        );
        check("production", true, None, CheckStatus::Ok, "cannot be told");
        check("staging", true, Some(None), CheckStatus::Ok, "staging");
        check(
            "production",
            true,
            Some(Some("ins_b")),
            CheckStatus::Failed,
            "mirrors the Clerk instance ins_b, but the key is of ins_a",
        );
        check("production", false, Some(None), CheckStatus::Warn, "sk_test_");
        check("development", true, Some(None), CheckStatus::Warn, "sk_live_");
        check("development", false, Some(None), CheckStatus::Ok, "development");
    }

    #[test]
    fn whole_seconds_are_taken_in_their_middle() {
        let at = |text: &str| text.parse::<DateTime<Utc>>().unwrap();
        let told = at("2026-01-01T00:00:10Z").timestamp_millis();
        let found = ahead(told, at("2026-01-01T00:00:05Z"), at("2026-01-01T00:00:06Z")).unwrap();
        assert_eq!(found, TimeDelta::seconds(5));
    }
}
