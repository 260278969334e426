//! A full sync brings the mirror in sync, and writes nothing if it is.

use clerk_sim::{Effect, Endpoint, Faults, Quirks, Rule};

use crate::support::{
    fixture::Fixture,
    summary::{Exit, changed, in_sync},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_full_sync_imports_then_finds_nothing_then_finds_changes() {
    let fixture = Fixture::new(10_000).await;
    fixture.once().await.assert(Exit::Ok, changed().created(10000));
    fixture.assert_in_sync().await;

    let versions = fixture.db.versions().await;
    fixture.once().await.assert(Exit::Ok, in_sync().unchanged(10000));
    assert_eq!(fixture.db.versions().await, versions, "a quiet sync wrote rows");

    for n in 0..100 {
        match n % 4 {
            0 => drop(fixture.sim.create_random()),
            1 => drop(fixture.sim.delete_random()),
            _ => drop(fixture.sim.update_random()),
        }
    }
    let ran = fixture.once().await;
    ran.assert_exit(Exit::Ok);
    assert_eq!(
        (ran.json()["created"].clone(), ran.json()["deleted"].clone()),
        (25.into(), 25.into())
    );
    fixture.assert_in_sync().await;
    let count = fixture.db.number("SELECT count(*) FROM clerk.users").await;
    assert_eq!(count as usize, fixture.sim.count());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_walk_reports_its_progress() {
    let fixture = Fixture::new(60).await;
    fixture.sim.set_faults(Faults {
        quirks: Quirks {
            max_page: Some(20),
            ..Quirks::default()
        },
        rules: vec![Rule::new(Effect::LatencyMs(5100)).on([Endpoint::List]).skip(1).next(2)],
    });
    let ran = fixture.once().await;
    ran.assert(Exit::Ok, changed().created(60));
    let lines: Vec<&str> = ran.stderr.lines().filter(|line| line.contains("syncing")).collect();
    assert!(
        matches!(lines[..], [line] if line.contains("syncing users") && line.contains("seen=40 total=60")),
        "{ran:#?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_digest_of_the_same_document_is_no_change() {
    let fixture = Fixture::new(30).await;
    fixture.once().await.assert(Exit::Ok, changed().created(30));
    let digests = "SELECT string_agg(encode(digest, 'hex'), ' ' ORDER BY id) FROM clerk.users";
    let before = fixture.db.text(digests).await;
    let changed_at = "SELECT string_agg(changed_at::text, ' ' ORDER BY id) FROM clerk.users";
    let changed = fixture.db.text(changed_at).await;

    // As after an upgrade that changes the digests.
    fixture
        .db
        .execute("UPDATE clerk.sync_state SET digest_key = sha256('another')")
        .await;
    fixture.once().await.assert(Exit::Ok, in_sync().unchanged(30));
    assert_ne!(fixture.db.text(digests).await, before, "the key makes no difference");
    assert_eq!(fixture.db.text(changed_at).await, changed);
    let events = fixture.db.number("SELECT count(*) FROM clerk.user_events").await;
    assert_eq!(events, 0);

    let versions = fixture.db.versions().await;
    fixture.once().await.assert(Exit::Ok, in_sync().unchanged(30));
    assert_eq!(fixture.db.versions().await, versions, "a quiet sync wrote rows");
}
