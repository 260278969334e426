//! Notifications, signals and approvals start a sync at once, whatever the schedule is.

use std::collections::BTreeMap;

use clerk_sim::Quirks;
use rustix::process::Signal;

use crate::support::{
    faults::slow_pages,
    fixture::Fixture,
    on_demand::{assert_clean_stop, start_on_demand},
    summary::Exit,
    wait::eventually,
};
impl Fixture {
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
    let (fixture, daemon) = start_on_demand(30).await;
    let before = fixture.sim.requests_by_path();
    let id = fixture.sync_new_user().await;
    assert_eq!(fixture.asked_since(&before), by_id(1));
    let run = "SELECT concat_ws(' ', kind, outcome, created, requests) FROM clerk.sync_runs ORDER BY id DESC LIMIT 1";
    assert_eq!(fixture.db.text(run).await.as_deref(), Some("on_demand changed 1 1"));
    fixture.assert_in_sync().await;

    fixture.rename(&id, "Changed");
    fixture.notify(&id).await;
    eventually("the change", async || fixture.is_called(&id, "Changed").await).await;
    assert_eq!(fixture.asked_since(&before), by_id(2));
    assert_eq!(
        fixture.event_names(0).await,
        [format!("user.created {id}"), format!("user.updated {id}")]
    );
    assert_clean_stop(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unchanged_user_costs_one_request_and_writes_nothing() {
    let (fixture, daemon) = start_on_demand(30).await;
    let (versions, before) = (fixture.db.versions().await, fixture.sim.requests_by_path());
    let id = fixture.sim.user_ids()[7].clone();
    fixture.notify(&id).await;
    eventually("the request", async || fixture.asked_since(&before) == by_id(1)).await;
    let new = fixture.sync_new_user().await;
    assert_eq!(fixture.asked_since(&before), by_id(2));
    assert_eq!(
        fixture.runs("kind = 'on_demand'").await,
        1,
        "a sync without a change was listed"
    );
    let mut after = fixture.db.versions().await;
    after.remove(&new);
    assert_eq!(after, versions);
    assert_clean_stop(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_user_is_removed_once_clerk_confirms_it_in_two_ways() {
    let (fixture, daemon) = start_on_demand(30).await;
    let id = fixture.sim.user_ids()[7].clone();
    // A server that confirms the deletion in one way only.
    fixture.sim.set_faults(Quirks {
        not_found_by_id: vec![id.clone()],
        ..Quirks::default()
    });
    fixture.notify(&id).await;
    eventually("a sync", async || {
        fixture.runs("kind = 'on_demand' AND ended_at IS NOT NULL").await == 1
    })
    .await;
    assert!(fixture.has_user(&id).await);
    fixture.sim.clear_faults();

    assert!(fixture.sim.delete(&id));
    let before = fixture.sim.log().len();
    fixture.notify(&id).await;
    eventually("the row goes", async || !fixture.has_user(&id).await).await;
    let asked: Vec<_> = fixture.sim.log().drain(before..).map(|request| request.path).collect();
    assert!(
        asked.iter().any(|path| path.contains(&format!("user_id={id}"))),
        "{asked:#?}"
    );
    let by_id = asked
        .iter()
        .filter(|path| path.ends_with(&format!("/users/{id}")))
        .count();
    assert_eq!(by_id, 2, "once to begin with, and once to confirm: {asked:#?}");
    assert_eq!(fixture.event_names(0).await, [format!("user.deleted {id}")]);
    fixture.assert_in_sync().await;
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_users_requested_one_by_one_are_held_as_a_mass_deletion() {
    let (fixture, daemon) = start_on_demand(40).await;
    let ids: Vec<String> = fixture.sim.user_ids().into_iter().take(20).collect();
    assert!(ids.iter().all(|id| fixture.sim.delete(id)));
    for id in &ids {
        fixture.notify(id).await;
    }
    eventually("deletions are held", async || {
        fixture.runs("outcome = 'held'").await > 0
    })
    .await;
    fixture.sync_new_user().await;
    assert!(fixture.users().await >= 31, "more than ten went");
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_payloads_are_ignored() {
    let (fixture, daemon) = start_on_demand(20).await;
    let (versions, before) = (fixture.db.versions().await, fixture.sim.requests_by_path());
    let known = fixture.sim.user_ids()[3].clone();
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
        fixture.notify(payload).await;
    }
    // These could be valid ids.
    fixture.notify("user_nobody").await;
    fixture.notify("user_0").await;
    let new = fixture.sync_new_user().await;
    assert_eq!(fixture.asked_since(&before), by_id(3));
    assert_eq!(fixture.runs("kind <> 'full'").await, 1);
    let mut after = fixture.db.versions().await;
    after.remove(&new);
    assert_eq!(after, versions);
    assert_clean_stop(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_users_requested_at_once_are_each_read_once() {
    let (fixture, daemon) = start_on_demand(20).await;
    let before = fixture.sim.requests_by_path();
    let ids: Vec<String> = (0..70).map(|_| fixture.sim.create_random()).collect();
    // Postgres sends equal notifications of one transaction once.
    let sql = "SELECT pg_notify('clerk2pg', id) FROM unnest($1::text[] || $1::text[]) AS id";
    fixture.db.client.execute(sql, &[&ids]).await.unwrap();
    eventually("all users", async || fixture.users().await == 90).await;
    fixture.assert_in_sync().await;
    assert_eq!(fixture.asked_since(&before), by_id(70));
    assert_eq!(fixture.last_event().await, 70);
    assert_clean_stop(daemon).await;
}

/// Starts a full sync of some seconds.
async fn busy(fixture: &Fixture) {
    fixture.sim.set_faults(slow_pages(5, 100));
    fixture.notify("full").await;
    eventually("a full sync is at work", async || is_busy(fixture).await).await;
}

async fn is_busy(fixture: &Fixture) -> bool {
    fixture.runs("kind = 'full' AND outcome = 'running'").await == 1
}

#[tokio::test(flavor = "multi_thread")]
async fn a_requested_user_does_not_wait_for_a_full_sync() {
    let (fixture, daemon) = start_on_demand(250).await;
    busy(&fixture).await;
    let id = fixture.sim.create_random();
    fixture.notify(&id).await;
    eventually("the user's row", async || fixture.has_user(&id).await).await;
    assert!(is_busy(&fixture).await, "it waited for the full sync");
    fixture.syncs(2).await;
    fixture.assert_in_sync().await;
    assert_eq!(fixture.event_names(0).await, [format!("user.created {id}")]);
    assert_clean_stop(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_requested_incremental_sync_does_not_wait_for_a_full_sync() {
    let (fixture, daemon) = start_on_demand(250).await;
    let id = fixture.sim.user_ids()[0].clone();
    for (name, by_signal) in [("Asked", false), ("Signalled", true)] {
        busy(&fixture).await;
        // The full sync has passed this user itself.
        let walked = |request: &clerk_sim::Request| request.path.contains("starting_after");
        let before = fixture.sim.log().iter().filter(|request| walked(request)).count();
        let goes_on = async || fixture.sim.log().iter().filter(|request| walked(request)).count() > before + 2;
        eventually("the walk goes on", goes_on).await;
        fixture.rename(&id, name);
        if by_signal {
            daemon.signal(Signal::USR1);
        } else {
            fixture.notify("sync").await;
        }
        eventually("the change", async || fixture.is_called(&id, name).await).await;
        assert!(is_busy(&fixture).await, "it waited for the full sync");
        fixture.sim.clear_faults();
        eventually("the full sync is over", async || !is_busy(&fixture).await).await;
    }
    fixture.assert_in_sync().await;
    assert_clean_stop(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_incremental_sync_runs_on_request() {
    let (fixture, daemon) = start_on_demand(40).await;
    for by_signal in [false, true] {
        fixture.sim.create_random();
        fixture.rename(
            &fixture.sim.user_ids()[5],
            if by_signal { "Signalled" } else { "Asked" },
        );
        fixture.sim.delete_random();
        let last = fixture.db.number("SELECT max(id) FROM clerk.sync_runs").await;
        if by_signal {
            daemon.signal(Signal::USR1);
        } else {
            fixture.notify("sync").await;
        }
        let done = format!("id > {last} AND kind = 'incremental' AND outcome = 'changed'");
        eventually("an incremental sync", async || fixture.runs(&done).await == 1).await;
        fixture.assert_in_sync().await;
    }
    assert_eq!(fixture.runs("kind = 'full'").await, 1);
    assert_clean_stop(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_sync_runs_on_request() {
    let (fixture, daemon) = start_on_demand(40).await;
    // Only a full sync sees this change.
    let mut document = fixture.sim.document(&fixture.sim.user_ids()[5]).unwrap();
    document["banned"] = true.into();
    fixture.sim.insert(document);
    fixture.notify("sync").await;
    fixture.sync_new_user().await;
    let banned = "SELECT count(*) FROM clerk.users WHERE banned";
    let before = fixture.db.number(banned).await;
    fixture.notify("full").await;
    eventually("the ban", async || fixture.db.number(banned).await == before + 1).await;
    eventually("the sync is over", async || {
        fixture.runs("kind = 'full' AND outcome = 'changed'").await == 2
    })
    .await;
    fixture.assert_in_sync().await;
    assert_clean_stop(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_approval_is_carried_out_at_once() {
    let (fixture, daemon) = start_on_demand(60).await;
    let gone: Vec<String> = fixture.sim.user_ids().into_iter().take(15).collect();
    assert!(gone.iter().all(|id| fixture.sim.delete(id)));
    fixture.notify("sync").await;
    let held = "SELECT plan FROM clerk.sync_runs WHERE outcome = 'held'";
    eventually("deletions are held", async || fixture.db.text(held).await.is_some()).await;
    assert_eq!(fixture.users().await, 60);
    let ran = fixture.run(&["approve", &fixture.db.text(held).await.unwrap()]).await;
    ran.assert_exit(Exit::Ok);
    eventually("the rows go", async || fixture.users().await == 45).await;
    fixture.assert_in_sync().await;
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
}
