//! The time from a change of a membership at Clerk until the mirror has it. Clerk lists memberships by
//! their creation only.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use clerk_sim::{Kind, OrganizationOptions, PerOrganization};
use fastrand::Rng;

use crate::{
    options::Options,
    requests::{Requests, now_ms},
    server::Server,
    table::{Table, percentile},
    world::{Schedule, World},
};

/// Members of each organization.
const MEMBERS: usize = 10;

/// The time between two changes, and between two looks at the mirror.
const PAUSE: Duration = Duration::from_millis(500);
const LOOK: Duration = Duration::from_millis(20);

/// The wanted p99 of what each sync sees.
const WITHIN: Duration = Duration::from_secs(6);

/// Memberships on a page.
const PAGE: usize = 500;

/// The seed of the changes. They are the same in every run.
const SEED: u64 = 1;

/// What happens to memberships.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Happens {
    Roles,
    CreationsAndRemovals,
}

/// A change that the mirror does not have yet.
struct Expected {
    /// The role that the mirror is to have; `None` if the membership is to be gone.
    role: Option<String>,
    at: Instant,
}

pub async fn run(options: &Options, server: &Server, table: &mut Table) -> Result<()> {
    let syncs = |memberships: usize| Schedule::Default.period() * memberships.div_ceil(PAGE) as u32;
    for (memberships, happens, wanted, what) in [
        (200, Happens::Roles, WITHIN, "a change of role, 200 memberships"),
        (
            100_000,
            Happens::CreationsAndRemovals,
            WITHIN,
            "a creation or removal, 100,000 memberships",
        ),
        (
            5_000,
            Happens::Roles,
            syncs(5_000) + (WITHIN - Schedule::Default.period()),
            "a change of role, 5,000 memberships",
        ),
    ] {
        let organizations = OrganizationOptions {
            members: PerOrganization::Sizes(vec![MEMBERS]),
            ..OrganizationOptions::number(memberships / MEMBERS)
        };
        let users = (memberships / MEMBERS).max(100);
        let name = format!("bench_{memberships}_{happens:?}").to_lowercase();
        let mut world = World::with_organizations(users, organizations, &name, server).await?;
        world.ensure_daemon(Schedule::Default).await?;
        let from = now_ms();
        let times = observe(&mut world, happens, options.seconds.min(60)).await?;
        let requests = Requests::since(&world.sim, from);
        let latest = times.last().copied().unwrap_or_default().as_secs_f64();
        println!(
            "{} changes, {what}; at most {latest:.2} s; {} requests",
            times.len(),
            requests.count()
        );
        table.within(format!("{what}: p50"), wanted, percentile(&times, 50));
        table.within(format!("{what}: p99"), wanted, percentile(&times, 99));
        let busiest = format!("requests in the busiest 10 s, {what}");
        table.at_most(busiest, Schedule::Default.budget(), requests.busiest_window());
        world.end().await?;
    }
    Ok(())
}

/// Makes changes for some seconds, and returns how long each took to arrive, sorted.
async fn observe(world: &mut World, happens: Happens, seconds: u64) -> Result<Vec<Duration>> {
    let mut rng = Rng::with_seed(SEED);
    let mut untouched = world.sim.ids(Kind::OrganizationMemberships);
    let (users, organizations) = (world.sim.user_ids(), world.sim.ids(Kind::Organizations));
    let mut expected: HashMap<String, Expected> = HashMap::new();
    let mut times = Vec::new();
    let (began, mut next) = (Instant::now(), Instant::now());
    let lasts = Duration::from_secs(seconds);
    let mut made = 0;
    while began.elapsed() < lasts || !expected.is_empty() {
        ensure!(
            began.elapsed() < lasts + Duration::from_secs(120),
            "{} changes never arrived",
            expected.len()
        );
        if Instant::now() >= next && began.elapsed() < lasts {
            next += PAUSE;
            made += 1;
            let sim = &world.sim;
            let at = Instant::now();
            let (id, role) = match happens {
                Happens::CreationsAndRemovals if made % 2 == 0 => {
                    let (organization, user) = (rng.choice(&organizations), rng.choice(&users));
                    let added = organization
                        .zip(user)
                        .and_then(|(organization, user)| sim.add_member(organization, user, "org:member"));
                    // Most are not members of that organization.
                    let Some(id) = added else { continue };
                    (id, Some("org:member".to_owned()))
                }
                _ if untouched.is_empty() => continue,
                Happens::CreationsAndRemovals => {
                    let id = untouched.swap_remove(rng.usize(..untouched.len()));
                    sim.delete_object(Kind::OrganizationMemberships, &id);
                    (id, None)
                }
                Happens::Roles => {
                    let id = untouched.swap_remove(rng.usize(..untouched.len()));
                    let role = format!("org:role_{made}");
                    sim.update_object(Kind::OrganizationMemberships, &id, |membership| {
                        membership["role"] = role.clone().into();
                    });
                    (id, Some(role))
                }
            };
            expected.insert(id, Expected { role, at });
        }
        world.sleep(LOOK).await?;
        let ids: Vec<&String> = expected.keys().collect();
        let sql = "SELECT id, role FROM clerk.organization_memberships WHERE id = ANY ($1)";
        let rows = world.database.client.query(sql, &[&ids]).await?;
        let roles: HashMap<String, Option<String>> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        expected.retain(|id, Expected { role, at }| {
            let has_arrived = match role {
                None => !roles.contains_key(id),
                Some(role) => roles.get(id).is_some_and(|found| found.as_ref() == Some(role)),
            };
            if has_arrived {
                times.push(at.elapsed());
            }
            !has_arrived
        });
    }
    times.sort_unstable();
    Ok(times)
}
