//! Wrong counts and misleading lists while incremental syncs look for deletions: nobody is lost,
//! few requests are sent, and deletions follow afterwards.

use clerk_sim::{Effect, Endpoint, Faults, Quirks, Rule, WrongCount};

use crate::support::{polling::PollingDaemon, summary::Exit, wait::eventually};

/// More users than a page holds.
const USERS: usize = 600;

fn count(wrong: WrongCount) -> Quirks {
    Quirks {
        count: Some(wrong),
        ..Quirks::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_wrong_for_a_moment_delete_nobody() {
    let polling = PollingDaemon::new(USERS, &[]).await;
    let sim = &polling.fixture.sim;
    for wrong in [
        WrongCount::Offset(-1),
        WrongCount::Offset(1),
        WrongCount::Offset(-40),
        WrongCount::Fixed(0),
    ] {
        for times in [1, 2, 3] {
            let name = format!("{times} counts are {wrong:?}");
            let (asked, gone) = (polling.requests().len(), sim.user_ids()[300].clone());
            sim.set_faults(
                Rule::new(Effect::Quirks(Box::new(count(wrong))))
                    .on([Endpoint::Count])
                    .next(times),
            );
            eventually(&name, async || sim.faults().rules[0].next == Some(0)).await;
            polling.sync_incrementally(1).await;
            assert_eq!(polling.not_mirrored().await.len(), 0, "{name}");
            // At worst all users are requested by ids.
            let more = polling.requests().split_off(asked);
            assert!(more.len() <= 10, "{name}: {} requests: {more:#?}", more.len());
            sim.clear_faults();
            polling.delete([&gone]).await;
        }
    }
    polling.stop_in_sync(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_count_of_zero_does_not_read_everybody_by_id() {
    let polling = PollingDaemon::new(3_000, &[]).await;
    let sim = &polling.fixture.sim;
    sim.set_faults(
        Rule::new(Effect::Quirks(Box::new(count(WrongCount::Fixed(0)))))
            .on([Endpoint::Count])
            .next(2),
    );
    eventually("the counts", async || sim.faults().rules[0].next == Some(0)).await;
    polling.daemon.wait_for_log("a full sync is due").await;
    polling.fixture.syncs(2).await;
    polling.sync_incrementally(2).await;
    // A full sync of seven pages. By ids there would be thirty requests.
    let asked = polling.requests();
    assert!(asked.len() <= 15, "{} requests: {asked:#?}", asked.len());
    polling.stop_in_sync(2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_permanently_small_count_causes_few_searches() {
    let polling = PollingDaemon::new(USERS, &[]).await;
    let sim = &polling.fixture.sim;
    sim.set_faults(count(WrongCount::Offset(-2)));
    polling.wait_for_scheduled_syncs(13).await;
    // At once, after five seconds, and after ten more.
    let searches = polling.fixture.runs("kind = 'incremental'").await;
    assert!(
        (2..=3).contains(&searches),
        "{searches} searches: {}",
        polling.daemon.log()
    );
    let asked = polling.requests();
    assert!(asked.len() <= 9, "{} requests: {asked:#?}", asked.len());
    assert_eq!(polling.not_mirrored().await.len(), 0);
    polling.delete([&sim.user_ids()[300], &sim.user_ids()[301]]).await;
    polling.stop_in_sync(1).await;
}

/// Delays every answer so long that a sync is due before a search is over.
fn slowly(quirks: Quirks) -> Faults {
    Faults {
        quirks,
        rules: vec![Rule::new(Effect::LatencyMs(400))],
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn new_users_do_not_explain_a_small_count() {
    let polling = PollingDaemon::new(USERS, &[]).await;
    let sim = &polling.fixture.sim;
    sim.set_faults(slowly(count(WrongCount::Offset(-2))));
    let begun = std::time::Instant::now();
    while begun.elapsed() < std::time::Duration::from_secs(12) {
        sim.create_random();
        tokio::time::sleep(std::time::Duration::from_millis(700)).await;
    }
    let searches = polling.requests();
    let searches = searches
        .iter()
        .filter(|path| path.starts_with("/v1/users/count?"))
        .count();
    // At once, after five seconds, and after ten more; one more if a user signs up between the list
    // and the count.
    assert!(
        (2..=4).contains(&searches),
        "{searches} searches: {}",
        polling.daemon.log()
    );
    sim.clear_faults();
    polling.stop_in_sync(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_deleted_during_a_search_is_found_by_the_next_one() {
    // No incremental sync is scheduled.
    let polling = PollingDaemon::new(USERS, &[("CLERK2PG_SCHEDULE__INCREMENTAL", "")]).await;
    let sim = &polling.fixture.sim;
    let ids = sim.user_ids();
    sim.set_faults(slowly(Quirks::default()));
    let sync = async || polling.fixture.db.execute("NOTIFY clerk2pg, 'sync'").await;
    assert!(sim.delete(&ids[100]));
    sync().await;
    let is_searching = async || polling.requests().iter().any(|path| path.contains("limit=500"));
    eventually("a page of the search", is_searching).await;
    assert!(sim.delete(&ids[500]));
    sync().await;
    polling.wait_until_gone(&ids[100]).await;
    polling.wait_until_gone(&ids[500]).await;
    sim.clear_faults();
    polling.stop_in_sync(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_permanently_large_count_causes_few_searches() {
    let polling = PollingDaemon::new(USERS, &[]).await;
    let sim = &polling.fixture.sim;
    sim.set_faults(count(WrongCount::Offset(2)));
    // A user may have been created a moment ago: the search waits until that must have shown.
    polling.wait_for_scheduled_syncs(5).await;
    assert_eq!(polling.requests(), [""; 0]);
    polling.delete([&sim.user_ids()[300]]).await;
    let before = polling.fixture.runs("kind = 'incremental'").await;
    polling.wait_for_scheduled_syncs(13).await;
    let searches = polling.fixture.runs("kind = 'incremental'").await - before;
    assert!(
        (1..=3).contains(&searches),
        "{searches} searches: {}",
        polling.daemon.log()
    );
    assert_eq!(polling.not_mirrored().await.len(), 0);
    // A user that is counted but not listed may hide a deleted one.
    polling.delete([&sim.user_ids()[400]]).await;
    polling.stop_in_sync_after_any_full_sync().await;
}

/// Deletes a user while a server misbehaves for some syncs. No other user may be deleted, this one
/// is deleted afterwards at the latest, and at most `most` requests are sent.
async fn check(polling: &PollingDaemon, name: &str, faults: impl Into<Faults>, most: usize) {
    let sim = &polling.fixture.sim;
    let ids = sim.user_ids();
    let gone = &ids[ids.len() - 20];
    let asked = polling.requests().len();
    sim.set_faults(faults);
    polling.sync_incrementally(1).await;
    assert!(sim.delete(gone));
    polling.wait_for_scheduled_syncs(3).await;
    assert_eq!(
        polling.not_mirrored().await.len(),
        0,
        "{name}: {}",
        polling.daemon.log()
    );
    let more = polling.requests().split_off(asked);
    assert!(more.len() <= most, "{name}: {} requests: {more:#?}", more.len());
    sim.clear_faults();
    // The next scheduled attempt may be a minute away.
    polling.sync_incrementally(1).await;
    polling.wait_until_gone(gone).await;
    polling.sync_incrementally(1).await;
    polling.fixture.assert_in_sync().await;
    polling.assert_counted().await;
}

fn with(change: impl FnOnce(&mut Quirks)) -> Quirks {
    let mut quirks = Quirks::default();
    change(&mut quirks);
    quirks
}

#[tokio::test(flavor = "multi_thread")]
async fn short_pages_delete_nobody() {
    let polling = PollingDaemon::new(USERS, &[]).await;
    check(&polling, "pages of 50", with(|q| q.max_page = Some(50)), 30).await;
    check(&polling, "pages of 7", with(|q| q.max_page = Some(7)), 120).await;
    check(&polling, "pages of any length", with(|q| q.random_pages = true), 60).await;
    // Nobody is missing, but the list does not show its last users.
    let short_and_wrong = with(|q| {
        q.max_page = Some(298);
        q.count = Some(WrongCount::Offset(-2));
    });
    check(&polling, "short pages and a wrong count", short_and_wrong, 20).await;
    polling.stop_in_sync_after_any_full_sync().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lagging_and_empty_lists_delete_nobody() {
    let polling = PollingDaemon::new(USERS, &[]).await;
    check(&polling, "lists that lag", with(|q| q.stale_lists_ms = 3_000), 20).await;
    check(&polling, "empty lists", with(|q| q.empty_lists = true), 20).await;
    polling.stop_in_sync_after_any_full_sync().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn users_mirrored_before_lists_show_them_are_kept() {
    let polling = PollingDaemon::new(60, &[]).await;
    let sim = &polling.fixture.sim;
    sim.set_faults(with(|q| q.stale_lists_ms = 5_000));
    polling.sync_incrementally(1).await;
    let new: Vec<String> = (0..3).map(|_| sim.create_random()).collect();
    for id in &new {
        polling.fixture.db.execute(&format!("NOTIFY clerk2pg, '{id}'")).await;
        polling.wait_until_mirrored_user(id).await;
    }
    polling.wait_for_scheduled_syncs(3).await;
    assert_eq!(polling.not_mirrored().await.len(), 0, "{}", polling.daemon.log());
    sim.clear_faults();
    polling.assert_idle("the lists show them").await;
    polling.stop_in_sync(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ignored_filters_delete_nobody() {
    let polling = PollingDaemon::new(USERS, &[]).await;
    check(&polling, "names are ignored", with(|q| q.ignore_user_id = true), 8).await;
    check(&polling, "times are ignored", with(|q| q.ignore_created_at = true), 30).await;
    check(&polling, "offsets are ignored", with(|q| q.ignore_offset = true), 30).await;
    polling.stop_in_sync_after_any_full_sync().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hidden_users_are_kept() {
    let polling = PollingDaemon::new(USERS, &[]).await;
    let sim = &polling.fixture.sim;
    let hidden = vec![sim.user_ids()[100].clone(), sim.user_ids()[550].clone()];
    let hiding = with(|q| q.hidden_from_lists = hidden);
    check(&polling, "hidden from lists", hiding.clone(), 20).await;
    let uncounted = Quirks {
        count: Some(WrongCount::Offset(-2)),
        ..hiding
    };
    // Three searches: one without a result, one for the deleted user, and one at once for what that
    // one did not explain.
    check(&polling, "hidden from lists and counts", uncounted, 30).await;
    polling.stop_in_sync_after_any_full_sync().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unconfirmed_deletions_wait() {
    let polling = PollingDaemon::new(USERS, &[]).await;
    let not_by_id = with(|q| q.not_found_by_id = polling.fixture.sim.user_ids());
    check(&polling, "nobody is found by id", not_by_id, 14).await;
    check(&polling, "404 by a proxy", with(|q| q.html_not_found = true), 14).await;
    let nobody_by_name = Rule::new(Effect::Quirks(Box::new(with(|q| q.empty_lists = true)))).on([Endpoint::List]);
    check(&polling, "lists hold nobody", nobody_by_name, 14).await;
    check(&polling, "a refused key", with(|q| q.unauthorized = true), 0).await;
    polling.stop_in_sync_after_any_full_sync().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_during_a_confirmation_deletes_nobody() {
    let polling = PollingDaemon::new(60, &[]).await;
    let sim = &polling.fixture.sim;
    let gone = sim.user_ids()[20].clone();
    let by_id = || {
        sim.requests_by_path()
            .get("GET /v1/users/{user_id}")
            .copied()
            .unwrap_or(0)
    };
    let before = by_id();
    sim.set_faults(Rule::new(Effect::DropBefore).on([Endpoint::Get]));
    assert!(sim.delete(&gone));
    eventually("the question by id", async || by_id() > before).await;
    // Clerk left the user out of a list and then became unreachable.
    sim.set_faults(Rule::new(Effect::DropBefore));
    eventually("the sync fails", async || {
        polling.fixture.runs("outcome = 'failed'").await == 1
    })
    .await;
    assert!(polling.is_mirrored(&gone).await);
    sim.clear_faults();
    polling.wait_until_gone(&gone).await;
    polling.stop_in_sync(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn held_users_are_counted_again_when_lists_show_them() {
    let polling = PollingDaemon::new(60, &[]).await;
    let sim = &polling.fixture.sim;
    let ids = sim.user_ids();
    let held = "SELECT count(*) FROM clerk.missing_users WHERE held_at IS NOT NULL";
    let held = async || polling.fixture.db.number(held).await;
    sim.set_faults(with(|q| {
        q.empty_lists = true;
        q.count = Some(WrongCount::Fixed(0));
    }));
    eventually("all are held", async || held().await == 60).await;
    polling.assert_idle("all are held").await;
    polling.fixture.age_rows().await;
    sim.clear_faults();
    // One of them is deleted. The others are released, and this one waits for an approval.
    assert!(sim.delete(&ids[20]));
    eventually("one is held", async || held().await == 1).await;
    eventually("a full sync", async || {
        polling.fixture.runs("kind = 'full' AND held = 1").await == 1
    })
    .await;
    assert!(polling.is_mirrored(&ids[20]).await);
    let status = polling.fixture.run(&["status", "--format", "json"]).await.json();
    let ran = polling
        .fixture
        .run(&["approve", status["plan"].as_str().unwrap()])
        .await;
    ran.assert_exit(Exit::Ok);
    polling.wait_until_gone(&ids[20]).await;
    assert_eq!(polling.not_mirrored().await.len(), 0);
    polling.delete([&ids[30]]).await;
    polling.stop_in_sync(3).await;
}
