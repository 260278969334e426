//! Checks whether Clerk lists organizations and what belongs to them, and how many there are.

use super::{
    finding::Finding,
    time_limit::{STEP, within},
};
use crate::{
    clerk::{Client, Error},
    failure::{Cause, Failure},
    humanize::{duration, objects},
    reconcile::range::Range,
    resource::Resource,
};

/// What was found about the resources other than users.
#[derive(Default)]
pub(super) struct ListFindings {
    /// `None` if none of them is configured.
    pub(super) finding: Option<Finding>,
    /// How many objects Clerk has of each.
    pub(super) totals: Vec<(&'static Resource, u64)>,
}

/// Asks for the number of objects of each resource.
pub(super) async fn check_lists(client: &Client, resources: &[&'static Resource]) -> ListFindings {
    let name = "organizations";
    let mut totals = Vec::new();
    for &resource in resources {
        let late = || {
            let message = format!("Clerk does not answer within {}", duration(STEP));
            Failure::new(Cause::ClerkUnavailable, message)
        };
        // Its error says whether they are switched off.
        let asked = async { Ok::<_, Failure>(client.count(resource, Range::ALL).await) };
        let finding = match within(STEP, late, asked).await {
            Ok(Ok(total)) => {
                totals.push((resource, total.unwrap_or_default()));
                continue;
            }
            Ok(Err(error)) if error.is_switched_off() => Finding::ok(
                name,
                "switched off at Clerk for this instance; clerk2pg asks again once an hour",
            ),
            Ok(Err(Error::NotFound(_))) => Finding::warn(name, "this server does not know organizations")
                .hint("set mirror.resources to [\"users\"]"),
            Ok(Err(error)) => Finding::of(name, &Failure::from(error)),
            Err(failure) => Finding::of(name, &failure),
        };
        return ListFindings {
            finding: Some(finding),
            totals: Vec::new(),
        };
    }
    let counted = totals.iter().map(|(resource, total)| objects(*total, resource));
    let counted: Vec<String> = counted.collect();
    ListFindings {
        finding: (!counted.is_empty()).then(|| Finding::ok(name, counted.join(", "))),
        totals,
    }
}
