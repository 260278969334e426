//! Incremental syncs find deletions by counting: deleted users are removed for a few requests, and
//! nobody else is.

use std::collections::BTreeMap;

use clerk_sim::{Quirks, Unstorable};

use crate::support::{fixture::Fixture, polling::PollingDaemon, wait::eventually};

/// Deletes the users at these places of a list, between two syncs, and asserts the number of
/// requests.
async fn check(name: &str, users: usize, places: &[usize], most: usize) {
    let polling = PollingDaemon::new(users, &[]).await;
    let ids = polling.fixture.sim.user_ids();
    polling.delete(places.iter().map(|&at| &ids[at])).await;
    let requests = polling.requests();
    assert!(
        requests.len() <= most,
        "{name}: {} requests: {requests:#?}",
        requests.len()
    );
    for at in places {
        let (by_ids, by_id) = (format!("user_id={}", ids[*at]), format!("/v1/users/{}", ids[*at]));
        assert!(
            requests.iter().any(|path| path.contains(&by_ids)),
            "{name}: {by_ids}: {requests:#?}"
        );
        assert!(requests.contains(&by_id), "{name}: {by_id}: {requests:#?}");
    }
    polling.stop_in_sync(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_deleted_user_among_thousands_is_found() {
    check("in the middle", 3_000, &[1_234], 20).await;
    check("near the end", 3_000, &[2_900], 20).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_user_is_found_in_a_list_counted_in_partitions() {
    let polling = PollingDaemon::new(70_000, &[]).await;
    let sim = &polling.fixture.sim;
    let ids = sim.user_ids();
    polling.delete([&ids[40_000]]).await;
    let requests = polling.requests();
    assert!(requests.len() <= 20, "{} requests: {requests:#?}", requests.len());
    let is_count = |path: &&String| path.contains("/count?");
    assert!(requests.iter().filter(is_count).count() >= 2, "{requests:#?}");
    // If each partition's count is that of the whole list, only a walk finds the deleted user.
    sim.set_faults(Quirks {
        ignore_created_at: true,
        ..Quirks::default()
    });
    polling.delete([&ids[20_000]]).await;
    sim.clear_faults();
    assert_eq!(polling.not_mirrored().await.len(), 0);
    polling.stop_in_sync(2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_and_last_users_are_found() {
    check("both ends and one between", 3_000, &[0, 700, 2_999], 20).await;
    check("on one page", 300, &[0, 1, 150, 299], 20).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_user_is_found_among_users_created_in_one_moment() {
    let polling = PollingDaemon::new(4_000, &[]).await;
    let sim = &polling.fixture.sim;
    let mut moments = BTreeMap::<i64, Vec<String>>::new();
    for id in sim.user_ids() {
        let at = sim.document(&id).unwrap()["created_at"].as_i64().unwrap();
        moments.entry(at).or_default().push(id);
    }
    let import = moments.into_values().max_by_key(Vec::len).unwrap();
    assert!(import.len() > 500, "no moment is larger than a page");
    polling.delete([&import[310]]).await;
    let requests = polling.requests();
    // All users of that moment are requested by ids.
    assert!(requests.len() <= 20, "{} requests: {requests:#?}", requests.len());
    polling.delete([&import[0], import.last().unwrap()]).await;
    polling.stop_in_sync(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_user_does_not_hide_a_deleted_one() {
    let polling = PollingDaemon::new(700, &[]).await;
    let sim = &polling.fixture.sim;
    for _ in 0..3 {
        let ids = sim.user_ids();
        let new = sim.create_random();
        polling.delete([&ids[400]]).await;
        polling.wait_until_mirrored_user(&new).await;
    }
    // A user that is created and deleted between two syncs never shows.
    let passing = sim.create_random();
    sim.delete(&passing);
    polling.delete([&sim.user_ids()[10]]).await;
    polling.stop_in_sync(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_syncs_send_two_requests_and_write_nothing() {
    let polling = PollingDaemon::new(60, &[]).await;
    polling.assert_idle("nothing happened").await;
    polling.delete([&polling.fixture.sim.user_ids()[30]]).await;
    polling.assert_idle("a user was deleted").await;
    polling.stop_in_sync(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rejected_users_do_not_disturb_the_counts() {
    let polling = PollingDaemon::new(60, &[]).await;
    let sim = &polling.fixture.sim;
    let kinds: Vec<_> = Unstorable::ALL
        .into_iter()
        .filter(|kind| *kind != Unstorable::Huge)
        .collect();
    let unstorable: Vec<String> = kinds.iter().map(|kind| sim.insert_unstorable(*kind)).collect();
    let rejected = "SELECT count(*) FROM clerk.rejected_users";
    let db = &polling.fixture.db;
    eventually("all are rejected", async || {
        db.number(rejected).await == unstorable.len() as i64
    })
    .await;
    polling.assert_idle("some are rejected").await;
    let ids = sim.user_ids();
    polling
        .delete(ids.iter().filter(|id| !unstorable.contains(id)).skip(20).take(2))
        .await;
    polling.assert_idle("others were deleted").await;
    assert_eq!(polling.not_mirrored().await, unstorable.into_iter().collect());
    assert_eq!(db.number("SELECT count(*) FROM clerk.users").await, 58);
    assert_eq!(polling.fixture.runs("kind = 'full'").await, 1);
    polling.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kept_rows_do_not_disturb_the_counts() {
    let polling = PollingDaemon::new(60, &[]).await;
    let (sim, db) = (&polling.fixture.sim, &polling.fixture.db);
    let ids = sim.user_ids();
    db.execute("CREATE TABLE orders (user_id text REFERENCES clerk.users ON DELETE RESTRICT)")
        .await;
    db.execute(&format!("INSERT INTO orders VALUES ('{}'), ('{}')", ids[5], ids[6]))
        .await;
    assert!(sim.delete(&ids[5]) && sim.delete(&ids[6]));
    let listed = "SELECT count(*) FROM clerk.rejected_users WHERE document IS NULL";
    eventually("both rows are listed", async || db.number(listed).await == 2).await;
    polling.assert_idle("rows are held back").await;
    polling.delete([&ids[7]]).await;
    polling.assert_idle("another one was deleted").await;
    assert_eq!(polling.not_mirrored().await.len(), 0);
    assert_eq!(db.number("SELECT count(*) FROM clerk.users").await, 59);
    assert_eq!(polling.fixture.runs("kind = 'full'").await, 1);
    polling.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn marked_users_are_counted_as_gone_and_come_back() {
    let polling = PollingDaemon::new(60, &[("CLERK2PG_DELETES__MODE", "mark")]).await;
    let (sim, db) = (&polling.fixture.sim, &polling.fixture.db);
    let ids = sim.user_ids();
    let document = sim.document(&ids[20]).unwrap();
    polling.delete([&ids[20], &ids[21]]).await;
    let marked = "SELECT count(*) FROM clerk.users WHERE deleted_at IS NOT NULL";
    assert_eq!(db.number(marked).await, 2);
    polling.assert_idle("two are marked").await;
    polling.assert_counted().await;

    // With the same times as before: only the count shows it, and only if it lasts.
    sim.insert(document);
    polling.wait_until_mirrored_user(&ids[20]).await;
    assert_eq!(db.number(marked).await, 1);
    polling.assert_idle("one is back").await;
    polling.delete([&ids[20]]).await;
    assert_eq!(db.number(marked).await, 2);
    polling.stop_in_sync(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keep_mode_counts_nobody() {
    let polling = PollingDaemon::new(60, &[("CLERK2PG_DELETES__MODE", "keep")]).await;
    let sim = &polling.fixture.sim;
    let before = sim.requests_by_path();
    let changed = sim.user_ids()[3].clone();
    assert!(sim.delete(&sim.user_ids()[20]));
    sim.update(&changed, |user| user["first_name"] = "Changed".into());
    polling.sync_incrementally(3).await;
    let more: Vec<_> = sim
        .requests_by_path()
        .into_iter()
        .filter(|(path, count)| before.get(path) != Some(count))
        .map(|(path, _)| path)
        .collect();
    assert_eq!(more, ["GET /v1/users"], "other requests than for recent changes");
    assert_eq!(polling.requests(), [""; 0]);
    let mirror = polling.fixture.db.documents().await;
    assert_eq!(mirror.len(), 60);
    assert_eq!(mirror[&changed]["first_name"], "Changed");
    polling.assert_counted().await;
    polling.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_counts_deletions_are_left_to_full_syncs() {
    let fixture = Fixture::new(60).await;
    fixture.sim.set_faults(Quirks {
        missing_count: true,
        ..Quirks::default()
    });
    let polling = PollingDaemon::with_fixture(fixture, &[]).await;
    let sim = &polling.fixture.sim;
    let gone = sim.user_ids()[20].clone();
    assert!(sim.delete(&gone));
    let new = sim.create_random();
    polling.wait_until_mirrored_user(&new).await;
    polling.sync_incrementally(3).await;
    assert_eq!(polling.requests(), [""; 0]);
    assert!(polling.is_mirrored(&gone).await);
    let said = polling
        .daemon
        .count_in_log("does not count users; only full syncs see deletions");
    assert_eq!(said, 1, "{}", polling.daemon.log());
    polling.fixture.db.execute("NOTIFY clerk2pg, 'full'").await;
    polling.wait_until_gone(&gone).await;
    polling.stop_in_sync(2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_added_by_hand_is_removed() {
    let polling = PollingDaemon::new(600, &[]).await;
    let ids = polling.fixture.sim.user_ids();
    let columns = "SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute
        WHERE attrelid = 'clerk.users'::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = '' AND attname <> 'id'";
    let columns = polling.fixture.db.text(columns).await.unwrap();
    let copy = format!(
        "INSERT INTO clerk.users (id, {columns}) SELECT 'user_nobody', {columns} FROM clerk.users WHERE id = '{}'",
        ids[100]
    );
    polling.fixture.db.execute(&copy).await;
    polling.delete([&ids[300]]).await;
    polling.wait_until_gone("user_nobody").await;
    // A search without a result counts the rows.
    eventually("the stored number is corrected", async || {
        polling.count_error().await == 0
    })
    .await;
    polling.stop_in_sync(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_removed_by_hand_comes_back() {
    let polling = PollingDaemon::new(60, &[]).await;
    let (sim, db) = (&polling.fixture.sim, &polling.fixture.db);
    let ids = sim.user_ids();
    let remove = async |id: &String| db.execute(&format!("DELETE FROM clerk.users WHERE id = '{id}'")).await;
    // With the user's next change. The stored number is corrected.
    remove(&ids[20]).await;
    sim.update(&ids[20], |user| user["first_name"] = "Changed".into());
    polling.wait_until_mirrored_user(&ids[20]).await;
    polling.assert_idle("one was removed").await;
    polling.assert_counted().await;
    // And with the next search for another user.
    remove(&ids[30]).await;
    remove(&ids[40]).await;
    polling.delete([&ids[50]]).await;
    polling.wait_until_mirrored_user(&ids[30]).await;
    polling.wait_until_mirrored_user(&ids[40]).await;
    // A sync that finds the number wrong corrects it, which may be the next one.
    eventually("the stored number is corrected", async || {
        polling.count_error().await == 0
    })
    .await;
    polling.stop_in_sync(1).await;
}
