//! Clerk may answer from a lagging replica: no user is deleted for it, and no older state replaces
//! a newer one.

use std::time::{Duration, Instant};

use clerk_sim::{Effect, Endpoint, Quirks, Replicas, Rule};
use rustix::process::Signal;

use crate::support::{
    fixture::{Fixture, mirrored, mirrored_ids},
    on_demand::start_on_demand,
    process::{EVERY_SECOND, NEVER},
    summary::{Exit, changed},
    wait::eventually,
};

fn lagging(lag_ms: u64) -> Quirks {
    Quirks {
        replicas: Some(Replicas { lag_ms, share: 0.5 }),
        ..Quirks::default()
    }
}

/// Returns a user's events in order: type and `updated_at` in the payload.
async fn events_of(fixture: &Fixture, id: &str) -> Vec<(String, i64)> {
    let sql = "SELECT type, coalesce((payload->'data'->>'updated_at')::bigint, 0) FROM clerk.user_events
               WHERE user_id = $1 ORDER BY id";
    let rows = fixture.db.client.query(sql, &[&id]).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lagging_replica_deletes_no_new_user_and_reverts_no_change() {
    let fixture = mirrored(60).await;
    fixture.sim.set_faults(lagging(2_000));
    // Records each deleted row with its age.
    fixture
        .db
        .execute(
            "CREATE TABLE went (id text, at timestamptz DEFAULT clock_timestamp());
             CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
                 $$ BEGIN INSERT INTO went (id) VALUES (OLD.id); RETURN OLD; END $$;
             CREATE TRIGGER note BEFORE DELETE ON clerk.users FOR EACH ROW EXECUTE FUNCTION note();",
        )
        .await;
    let daemon = fixture.start_daemon(&[NEVER, EVERY_SECOND]);
    let mut new = Vec::new();
    let mut gone = Vec::new();
    let changing = fixture.sim.user_ids()[5].clone();
    let started = Instant::now();
    let mut round = 0;
    while started.elapsed() < Duration::from_secs(25) {
        new.extend((0..3).map(|_| fixture.sim.create_random()));
        round += 1;
        fixture
            .sim
            .update(&changing, |user| user["first_name"] = format!("Round {round}").into());
        if round % 8 == 0 {
            gone.push(new.remove(0));
            assert!(fixture.sim.delete(gone.last().unwrap()));
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    fixture.sim.clear_faults();
    eventually("all new users are in, and the deleted ones are not", async || {
        let mirror = mirrored_ids(&fixture).await;
        new.iter().all(|id| mirror.contains(id)) && gone.iter().all(|id| !mirror.contains(id))
    })
    .await;
    let went = fixture.db.client.query("SELECT id FROM went", &[]).await.unwrap();
    let wrongly: Vec<String> = went
        .iter()
        .map(|row| row.get(0))
        .filter(|id| new.contains(id))
        .collect();
    assert!(wrongly.is_empty(), "{wrongly:?} exist: {}", daemon.log());
    let events = events_of(&fixture, &changing).await;
    assert!(events.len() > 3 && events.is_sorted_by_key(|(_, at)| *at), "{events:?}");
    eventually("the last change", async || {
        fixture.first_name(&changing).await == format!("Round {round}")
    })
    .await;
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_unknown_to_a_replica_is_not_held() {
    let fixture = mirrored(40).await;
    for _ in 0..15 {
        fixture.sim.create_random();
    }
    fixture
        .once()
        .await
        .assert(Exit::Ok, changed().created(15).unchanged(40));
    fixture.sim.set_faults(Quirks {
        replicas: Some(Replicas {
            lag_ms: 6_000,
            share: 1.0,
        }),
        ..Quirks::default()
    });
    let ran = fixture.once().await;
    assert_eq!(ran.json()["held"], 0, "{ran:#?}");
    assert_eq!(fixture.users().await, 55);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recent_row_is_deleted_ten_seconds_later() {
    let (fixture, daemon) = start_on_demand(20).await;
    let id = fixture.sim.create_random();
    fixture.notify(&id).await;
    eventually("the row", async || fixture.has_user(&id).await).await;
    assert!(fixture.sim.delete(&id));
    fixture.notify(&id).await;
    eventually("the row goes", async || !fixture.has_user(&id).await).await;
    let age = "SELECT (extract(epoch FROM max(d.recorded_at) - min(c.recorded_at)) * 1000)::bigint
               FROM clerk.user_events d, clerk.user_events c
               WHERE d.type = 'user.deleted' AND c.type = 'user.created' AND c.user_id = d.user_id";
    let age = fixture.db.number(age).await;
    assert!((10_000..40_000).contains(&age), "{age} ms: {}", daemon.log());
    fixture.assert_in_sync().await;
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_run_waits_for_recent_rows() {
    let fixture = Fixture::new(20).await;
    fixture.once().await.assert_exit(Exit::Ok);
    assert!(fixture.sim.delete_random().is_some());
    let started = Instant::now();
    fixture
        .once()
        .await
        .assert(Exit::Ok, changed().deleted(1).unchanged(19));
    assert!(started.elapsed() > Duration::from_secs(5), "{:?}", started.elapsed());
    fixture.age_rows().await;
    assert!(fixture.sim.delete_random().is_some());
    let ran = fixture.once().await;
    ran.assert(Exit::Ok, changed().deleted(1).unchanged(18));
    assert!(ran.json()["duration_ms"].as_u64().unwrap() < 9_000, "{ran:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_clock_that_goes_back_protects_no_row() {
    let fixture = mirrored(20).await;
    fixture
        .db
        .execute("UPDATE clerk.users SET changed_at = now() + interval '30 minutes'")
        .await;
    assert!(fixture.sim.delete_random().is_some());
    let started = Instant::now();
    fixture
        .once()
        .await
        .assert(Exit::Ok, changed().deleted(1).unchanged(19));
    assert!(started.elapsed() >= Duration::from_secs(10));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_state_is_stored_if_clerk_confirms_it_later() {
    let fixture = mirrored(20).await;
    let id = fixture.sim.user_ids()[4].clone();
    let old = fixture.sim.document(&id).unwrap();
    fixture.sim.update(&id, |user| user["first_name"] = "Newer".into());
    fixture
        .once()
        .await
        .assert(Exit::Ok, changed().updated(1).unchanged(19));
    // As after Clerk restored a backup.
    fixture.sim.insert(old.clone());
    let started = Instant::now();
    fixture
        .once()
        .await
        .assert(Exit::Ok, changed().updated(1).unchanged(20));
    assert!(started.elapsed() >= Duration::from_secs(10));
    fixture.assert_in_sync().await;

    let daemon = fixture.start_incremental(&[]).await;
    fixture.sim.update(&id, |user| user["first_name"] = "Newer".into());
    eventually("the change", async || fixture.first_name(&id).await == "Newer").await;
    fixture.sim.insert(old);
    fixture.notify(&id).await;
    eventually("the older state", async || fixture.first_name(&id).await != "Newer").await;
    fixture.assert_in_sync().await;
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_ignore_user_id_confirm_a_deletion_by_two_answers() {
    let fixture = mirrored(30).await;
    fixture.sim.set_faults(Quirks {
        ignore_user_id: true,
        ..Quirks::default()
    });
    let gone = fixture.sim.user_ids()[9].clone();
    assert!(fixture.sim.delete(&gone));
    let by_id = |fixture: &Fixture| {
        let mut log = fixture.sim.log();
        log.retain(|request| request.path.ends_with(&format!("/users/{gone}")));
        log.len()
    };
    let started = Instant::now();
    fixture
        .once()
        .await
        .assert(Exit::Ok, changed().deleted(1).unchanged(29));
    assert!(started.elapsed() >= Duration::from_secs(10), "{:?}", started.elapsed());
    assert!(by_id(&fixture) >= 2, "{}", by_id(&fixture));

    // A daemon does so, too, after the guard agrees.
    let daemon = fixture.start_incremental(&[]).await;
    assert!(fixture.sim.delete_random().is_some());
    eventually("the row goes", async || fixture.users().await == 28).await;
    let many: Vec<String> = fixture.sim.user_ids().into_iter().take(12).collect();
    assert!(many.iter().all(|id| fixture.sim.delete(id)));
    fixture.notify("full").await;
    eventually("deletions are held", async || fixture.runs("held = 12").await > 0).await;
    assert_eq!(fixture.users().await, 28);
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_deletion_is_confirmed_where_most_users_are_not_found_by_id() {
    let fixture = mirrored(30).await;
    let gone = fixture.sim.user_ids()[9].clone();
    assert!(fixture.sim.delete(&gone));
    let ids = fixture.sim.user_ids();
    // One witness is found. Two are needed if ids can only be read one by one.
    fixture.sim.set_faults(Quirks {
        ignore_user_id: true,
        not_found_by_id: ids[..ids.len() - 1].to_vec(),
        ..Quirks::default()
    });
    let ran = fixture.once().await;
    ran.assert_exit(Exit::Failed);
    assert!(fixture.has_user(&gone).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn unconfirmed_deletions_delay_no_other_user() {
    let fixture = mirrored(100).await;
    let gone: Vec<String> = fixture.sim.user_ids().into_iter().skip(20).take(20).collect();
    assert!(gone.iter().all(|id| fixture.sim.delete(id)));
    let broken = Effect::Error(clerk_sim::ErrorAnswer {
        status: 500,
        retry_after: None,
        body: clerk_sim::ErrorBody::Json,
    });
    fixture.sim.set_faults(Rule::new(broken).on([Endpoint::Get]));
    let ran = fixture.once().await;
    assert_eq!((ran.code, &ran.json()["deleted"]), (Some(1), &0.into()), "{ran:#?}");
    let took = ran.json()["duration_ms"].as_u64().unwrap();
    assert!(took < 50_000, "{took} ms");
}
