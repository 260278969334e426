//! Notifications, signals and approvals start a sync at once, whatever the schedule is.

use std::collections::BTreeMap;

use clerk_sim::Quirks;
use rustix::process::Signal;

use crate::support::{
    faults::slow_pages,
    fixture::World,
    on_demand::{assert_clean_stop, start_on_demand},
    wait::eventually,
};
impl World {
    async fn is_called(&self, id: &str, name: &str) -> bool {
        let sql = format!("SELECT count(*) FROM clerk.users WHERE id = '{id}' AND first_name = '{name}'");
        self.db.number(&sql).await == 1
    }

    /// Returns the requests since `before`.
    fn asked_since(&self, before: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
        let mut asked = self.sim.requests_by_path();
        asked.retain(|path, count| {
            *count -= before.get(path).copied().unwrap_or_default();
            *count > 0
        });
        asked
    }
}

fn by_id(requests: u64) -> BTreeMap<String, u64> {
    BTreeMap::from([("GET /v1/users/{user_id}".to_owned(), requests)])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_user_costs_one_request() {
    let (world, daemon) = start_on_demand(30).await;
    let before = world.sim.requests_by_path();
    let id = world.sync_new_user().await;
    assert_eq!(world.asked_since(&before), by_id(1));
    let run = "SELECT concat_ws(' ', kind, outcome, created, requests) FROM clerk.sync_runs ORDER BY id DESC LIMIT 1";
    assert_eq!(world.db.text(run).await.as_deref(), Some("on_demand changed 1 1"));
    world.assert_in_sync().await;

    world.rename(&id, "Changed");
    world.notify(&id).await;
    eventually("the change", async || world.is_called(&id, "Changed").await).await;
    assert_eq!(world.asked_since(&before), by_id(2));
    assert_eq!(
        world.event_names(0).await,
        [format!("user.created {id}"), format!("user.updated {id}")]
    );
    assert_clean_stop(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unchanged_user_costs_one_request_and_writes_nothing() {
    let (world, daemon) = start_on_demand(30).await;
    let (versions, before) = (world.db.versions().await, world.sim.requests_by_path());
    let id = world.sim.user_ids()[7].clone();
    world.notify(&id).await;
    eventually("the request", async || world.asked_since(&before) == by_id(1)).await;
    let new = world.sync_new_user().await;
    assert_eq!(world.asked_since(&before), by_id(2));
    assert_eq!(
        world.runs("kind = 'on_demand'").await,
        1,
        "a sync without a change was listed"
    );
    let mut after = world.db.versions().await;
    after.remove(&new);
    assert_eq!(after, versions);
    assert_clean_stop(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_user_is_removed_once_clerk_confirms_it_in_two_ways() {
    let (world, daemon) = start_on_demand(30).await;
    let id = world.sim.user_ids()[7].clone();
    // A server that confirms the deletion in one way only.
    world.sim.set_faults(Quirks {
        not_found_by_id: vec![id.clone()],
        ..Quirks::default()
    });
    world.notify(&id).await;
    eventually("a sync", async || {
        world.runs("kind = 'on_demand' AND ended_at IS NOT NULL").await == 1
    })
    .await;
    assert!(world.has_user(&id).await);
    world.sim.clear_faults();

    assert!(world.sim.delete(&id));
    let before = world.sim.log().len();
    world.notify(&id).await;
    eventually("the row goes", async || !world.has_user(&id).await).await;
    let asked: Vec<_> = world.sim.log().drain(before..).map(|request| request.path).collect();
    assert!(
        asked.iter().any(|path| path.contains(&format!("user_id={id}"))),
        "{asked:#?}"
    );
    let by_id = asked
        .iter()
        .filter(|path| path.ends_with(&format!("/users/{id}")))
        .count();
    assert_eq!(by_id, 2, "once to begin with, and once to confirm: {asked:#?}");
    assert_eq!(world.event_names(0).await, [format!("user.deleted {id}")]);
    world.assert_in_sync().await;
    assert_eq!(daemon.stop(Signal::TERM).await.code, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_users_requested_one_by_one_are_held_as_a_mass_deletion() {
    let (world, daemon) = start_on_demand(40).await;
    let ids: Vec<String> = world.sim.user_ids().into_iter().take(20).collect();
    assert!(ids.iter().all(|id| world.sim.delete(id)));
    for id in &ids {
        world.notify(id).await;
    }
    eventually("deletions are held", async || world.runs("outcome = 'held'").await > 0).await;
    world.sync_new_user().await;
    assert!(world.users().await >= 31, "more than ten went");
    assert_eq!(daemon.stop(Signal::TERM).await.code, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_payloads_are_ignored() {
    let (world, daemon) = start_on_demand(20).await;
    let (versions, before) = (world.db.versions().await, world.sim.requests_by_path());
    let known = world.sim.user_ids()[3].clone();
    let long = format!("user_{}", "a".repeat(7_994));
    assert_eq!(long.len(), 7_999, "as long as a payload can be");
    for payload in [
        "",
        " ",
        "SYNC",
        "sync full",
        "users",
        "echo 0123456789abcdef",
        "user_../instance",
        "user_1/../../instance",
        "user_1?limit=500",
        "user_é",
        "user_1\nuser_2",
        "'; DROP TABLE clerk.users; --",
        "user_1'; DELETE FROM clerk.users; --",
        "{\"id\":\"user_1\"}",
        &format!("{known},{known}"),
        &"x".repeat(7_999),
        &long,
    ] {
        world.notify(payload).await;
    }
    // These could be valid ids.
    world.notify("user_nobody").await;
    world.notify("user_0").await;
    let new = world.sync_new_user().await;
    assert_eq!(world.asked_since(&before), by_id(3));
    assert_eq!(world.runs("kind <> 'full'").await, 1);
    let mut after = world.db.versions().await;
    after.remove(&new);
    assert_eq!(after, versions);
    assert_clean_stop(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_users_requested_at_once_are_each_read_once() {
    let (world, daemon) = start_on_demand(20).await;
    let before = world.sim.requests_by_path();
    let ids: Vec<String> = (0..70).map(|_| world.sim.create_random()).collect();
    // Postgres sends equal notifications of one transaction once.
    let sql = "SELECT pg_notify('clerk2pg', id) FROM unnest($1::text[] || $1::text[]) AS id";
    world.db.client.execute(sql, &[&ids]).await.unwrap();
    eventually("all users", async || world.users().await == 90).await;
    world.assert_in_sync().await;
    assert_eq!(world.asked_since(&before), by_id(70));
    assert_eq!(world.last_event().await, 70);
    assert_clean_stop(daemon).await;
}

/// Starts a full sync of some seconds.
async fn busy(world: &World) {
    world.sim.set_faults(slow_pages(5, 100));
    world.notify("full").await;
    eventually("a full sync is at work", async || is_busy(world).await).await;
}

async fn is_busy(world: &World) -> bool {
    world.runs("kind = 'full' AND outcome = 'running'").await == 1
}

#[tokio::test(flavor = "multi_thread")]
async fn a_requested_user_does_not_wait_for_a_full_sync() {
    let (world, daemon) = start_on_demand(250).await;
    busy(&world).await;
    let id = world.sim.create_random();
    world.notify(&id).await;
    eventually("the user's row", async || world.has_user(&id).await).await;
    assert!(is_busy(&world).await, "it waited for the full sync");
    world.syncs(2).await;
    world.assert_in_sync().await;
    assert_eq!(world.event_names(0).await, [format!("user.created {id}")]);
    assert_clean_stop(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_requested_incremental_sync_does_not_wait_for_a_full_sync() {
    let (world, daemon) = start_on_demand(250).await;
    let id = world.sim.user_ids()[0].clone();
    for (name, by_signal) in [("Asked", false), ("Signalled", true)] {
        busy(&world).await;
        // The full sync has passed this user itself.
        let walked = |request: &clerk_sim::Request| request.path.contains("starting_after");
        let before = world.sim.log().iter().filter(|request| walked(request)).count();
        let goes_on = async || world.sim.log().iter().filter(|request| walked(request)).count() > before + 2;
        eventually("the walk goes on", goes_on).await;
        world.rename(&id, name);
        if by_signal {
            daemon.signal(Signal::USR1);
        } else {
            world.notify("sync").await;
        }
        eventually("the change", async || world.is_called(&id, name).await).await;
        assert!(is_busy(&world).await, "it waited for the full sync");
        world.sim.clear_faults();
        eventually("the full sync is over", async || !is_busy(&world).await).await;
    }
    world.assert_in_sync().await;
    assert_clean_stop(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_incremental_sync_runs_on_request() {
    let (world, daemon) = start_on_demand(40).await;
    for by_signal in [false, true] {
        world.sim.create_random();
        world.rename(&world.sim.user_ids()[5], if by_signal { "Signalled" } else { "Asked" });
        world.sim.delete_random();
        let last = world.db.number("SELECT max(id) FROM clerk.sync_runs").await;
        if by_signal {
            daemon.signal(Signal::USR1);
        } else {
            world.notify("sync").await;
        }
        let done = format!("id > {last} AND kind = 'incremental' AND outcome = 'changed'");
        eventually("an incremental sync", async || world.runs(&done).await == 1).await;
        world.assert_in_sync().await;
    }
    assert_eq!(world.runs("kind = 'full'").await, 1);
    assert_clean_stop(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_sync_runs_on_request() {
    let (world, daemon) = start_on_demand(40).await;
    // Only a full sync sees this change.
    let mut document = world.sim.document(&world.sim.user_ids()[5]).unwrap();
    document["banned"] = true.into();
    world.sim.insert(document);
    world.notify("sync").await;
    world.sync_new_user().await;
    let banned = "SELECT count(*) FROM clerk.users WHERE banned";
    let before = world.db.number(banned).await;
    world.notify("full").await;
    eventually("the ban", async || world.db.number(banned).await == before + 1).await;
    eventually("the sync is over", async || {
        world.runs("kind = 'full' AND outcome = 'changed'").await == 2
    })
    .await;
    world.assert_in_sync().await;
    assert_clean_stop(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_approval_is_carried_out_at_once() {
    let (world, daemon) = start_on_demand(60).await;
    let gone: Vec<String> = world.sim.user_ids().into_iter().take(15).collect();
    assert!(gone.iter().all(|id| world.sim.delete(id)));
    world.notify("sync").await;
    let held = "SELECT plan FROM clerk.sync_runs WHERE outcome = 'held'";
    eventually("deletions are held", async || world.db.text(held).await.is_some()).await;
    assert_eq!(world.users().await, 60);
    let ran = world.run(&["approve", &world.db.text(held).await.unwrap()]).await;
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    eventually("the rows go", async || world.users().await == 45).await;
    world.assert_in_sync().await;
    assert_eq!(daemon.stop(Signal::TERM).await.code, Some(0));
}
