//! Emulators of Clerk: changes are mirrored as far as they allow, nothing wrong is done, and
//! missing features are reported once.

use clerk_sim::{Effect, Endpoint, ErrorAnswer, ErrorBody, Quirks, Rule};
use rustix::process::Signal;

use crate::support::{
    changes::{now, rename},
    fixture::{Fixture, mirrored_ids},
    process::{EVERY_SECOND, NEVER, Process},
    summary::{Exit, IncrementalTotals, changed, incomplete},
    wait::eventually,
};

const NO_ORDER: &str = "this server does not list users by their last change";
const CANNOT_COUNT: &str = "users cannot be counted";
const NO_COUNT: &str = "this server does not count users; only full syncs see deletions";

/// Makes some changes, and asserts that incremental syncs mirror them.
async fn check(quirks: Quirks, users: usize, says: Option<&str>, sees_deletions: bool) {
    let name = format!("{users} users, {quirks:?}");
    let fixture = Fixture::new(users).await;
    fixture.sim.set_faults(quirks);
    let daemon = fixture.start_incremental(&[]).await;
    fixture.assert_in_sync().await;
    let ids = fixture.sim.user_ids();
    for round in 0..2 {
        fixture.sim.create_random();
        // More than the first page of an incremental sync.
        for id in &ids[..30] {
            rename(&fixture, id, &format!("Changed {round}"), now());
        }
        let gone = &ids[30 + round];
        assert!(fixture.sim.delete(gone));
        fixture.wait_for_incremental_sync().await;
        if !sees_deletions {
            assert!(mirrored_ids(&fixture).await.contains(gone), "{name}");
            fixture
                .db
                .execute(&format!("DELETE FROM clerk.users WHERE id = '{gone}'"))
                .await;
        }
        fixture.assert_in_sync().await;
    }
    fixture.wait_for_incremental_sync().await;
    for text in [NO_ORDER, NO_COUNT] {
        let times = usize::from(says == Some(text));
        assert_eq!(daemon.count_in_log(text), times, "{name}: {text}: {}", daemon.log());
    }
    let ran = daemon.stop(Signal::TERM).await;
    assert!(!ran.stderr.contains("ERROR"), "{name}: {ran:#?}");
    assert_eq!(fixture.runs("outcome = 'failed'").await, 0, "{name}");
}

fn no_order() -> Quirks {
    Quirks {
        ignore_order_by: true,
        ..Quirks::default()
    }
}

/// With few users, full syncs mirror all changes, whether the order is wrong from the start or
/// later.
async fn check_walked(fixture: Fixture, daemon: Process) {
    let ids = fixture.sim.user_ids();
    for round in 0..2 {
        let new = fixture.sim.create_random();
        ids[..30]
            .iter()
            .for_each(|id| rename(&fixture, id, &format!("Changed {round}"), now()));
        let gone = &ids[30 + round];
        assert!(fixture.sim.delete(gone));
        // The first may have begun before the change.
        let walks = "kind = 'full' AND ended_at IS NOT NULL";
        let before = fixture.runs(walks).await;
        eventually("two full syncs", async || fixture.runs(walks).await >= before + 2).await;
        let mirror = mirrored_ids(&fixture).await;
        assert!(
            mirror.contains(gone),
            "a list without its order proves that nobody is gone"
        );
        assert!(mirror.contains(&new));
        fixture
            .db
            .execute(&format!("DELETE FROM clerk.users WHERE id = '{gone}'"))
            .await;
        fixture.assert_in_sync().await;
    }
    assert_eq!(daemon.count_in_log(NO_ORDER), 1, "{}", daemon.log());
    let ran = daemon.stop(Signal::TERM).await;
    assert!(!ran.stderr.contains("ERROR"), "{ran:#?}");
    assert_eq!(fixture.runs("outcome = 'failed'").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_list_in_an_unknown_order_is_followed_by_full_syncs() {
    let from_the_start = async {
        let fixture = Fixture::new(60).await;
        fixture.sim.set_faults(no_order());
        let daemon = fixture.start_incremental(&[]).await;
        check_walked(fixture, daemon).await;
    };
    let later = async {
        let fixture = Fixture::new(60).await;
        let daemon = fixture.start_incremental(&[]).await;
        fixture.sim.set_faults(no_order());
        check_walked(fixture, daemon).await;
    };
    tokio::join!(from_the_start, later);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_list_in_an_unknown_order_is_left_to_scheduled_full_syncs() {
    let check = async |is_later: bool| {
        let fixture = Fixture::new(700).await;
        let quirks = if is_later { Quirks::default() } else { no_order() };
        fixture.sim.set_faults(quirks);
        let daemon = fixture.start_incremental(&[("RUST_LOG", "clerk2pg=debug")]).await;
        fixture.sim.set_faults(no_order());
        daemon.wait_for_log(NO_ORDER).await;
        rename(&fixture, &fixture.sim.user_ids()[0], "Changed", now());
        let ticks = daemon.count_in_log("this server does not show recent changes");
        let blind = async || daemon.count_in_log("this server does not show recent changes") >= ticks + 3;
        eventually("three more ticks", blind).await;
        assert_eq!(fixture.runs("true").await, 1, "a full sync for each tick");
        fixture.db.execute("NOTIFY clerk2pg, 'full'").await;
        fixture.syncs(2).await;
        fixture.assert_in_sync().await;
        let ran = daemon.stop(Signal::TERM).await;
        assert_eq!(ran.stderr.matches(NO_ORDER).count(), 1, "{ran:#?}");
    };
    tokio::join!(check(false), check(true));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_count_hides_deletions_only() {
    let quirks = Quirks {
        missing_count: true,
        ..Quirks::default()
    };
    check(quirks, 60, Some(NO_COUNT), false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ignored_offsets_matter_to_long_lists_only() {
    let quirks = Quirks {
        ignore_offset: true,
        ..Quirks::default()
    };
    tokio::join!(check(quirks.clone(), 60, None, true), check(quirks, 700, None, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn wrapped_lists_are_understood() {
    let quirks = Quirks {
        wrapped_lists: true,
        ..Quirks::default()
    };
    check(quirks, 60, None, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn times_in_seconds_are_understood() {
    let fixture = Fixture::new(60).await;
    fixture.sim.set_faults(Quirks {
        times_in_seconds: true,
        ..Quirks::default()
    });
    let daemon = fixture.start_incremental(&[]).await;
    let ids = fixture.sim.user_ids();
    for (round, gone) in ids[30..35].iter().enumerate() {
        let name = format!("Changed {round}");
        ids[..30].iter().for_each(|id| rename(&fixture, id, &name, now()));
        assert!(fixture.sim.delete(gone));
        let new = fixture.sim.create_random();
        fixture.wait_for_incremental_sync().await;
        for id in &ids[..30] {
            assert_eq!(fixture.first_name(id).await, name, "{id}");
        }
        let mirror = mirrored_ids(&fixture).await;
        assert!(mirror.contains(&new) && !mirror.contains(gone), "{name}");
    }
    assert_eq!(
        fixture.incremental().await,
        IncrementalTotals {
            created: 5,
            updated: 150,
            deleted: 5,
            ..IncrementalTotals::default()
        }
    );
    fixture.assert_one_full_sync().await;
    let watermark = fixture.watermark().await;
    assert!((now() - watermark).abs() < 30_000, "{watermark}");
    let ran = daemon.stop(Signal::TERM).await;
    assert!(!ran.stderr.contains("WARN"), "{ran:#?}");
}

/// Answers lists with 404, with or without Clerk's error code.
fn not_found(body: ErrorBody) -> Rule {
    Rule::new(Effect::Error(ErrorAnswer {
        status: 404,
        retry_after: None,
        body,
    }))
    .on([Endpoint::List])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_404_for_a_list_does_not_mark_it_as_unordered() {
    let fixture = Fixture::new(60).await;
    let daemon = fixture.start_incremental(&[]).await;
    for body in [ErrorBody::Html, ErrorBody::Json] {
        fixture.sim.set_faults(not_found(body).next(1));
        let changed = fixture.sim.user_ids()[3].clone();
        rename(&fixture, &changed, &format!("Changed {body:?}"), now());
        fixture.wait_for_incremental_sync().await;
        fixture.sim.clear_faults();
        eventually("the change", async || {
            fixture.first_name(&changed).await == format!("Changed {body:?}")
        })
        .await;
    }
    assert_eq!(daemon.count_in_log(NO_ORDER), 0, "{}", daemon.log());
    assert_eq!(fixture.runs("kind = 'full'").await, 1);
    daemon.stop(Signal::TERM).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_instance_is_reported() {
    let fixture = Fixture::new(5).await;
    fixture.once().await.assert_exit(Exit::Ok);
    fixture.sim.set_faults(not_found(ErrorBody::Json));
    let ran = fixture.once().await;
    ran.assert_exit(Exit::Failed);
    assert!(
        ran.stderr
            .contains("error: Clerk does not know the key's instance: GET /v1/users gave 404 resource_not_found"),
        "{ran:#?}"
    );
    assert!(
        ran.stderr
            .contains("hint: set CLERK_SECRET_KEY to a key of an instance that exists"),
        "{ran:#?}"
    );
    assert!(
        !ran.stderr.contains(NO_ORDER) && !ran.stderr.contains("api_url"),
        "{ran:#?}"
    );
    assert_eq!(fixture.users().await, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_url_with_a_version_is_accepted_and_plain_http_is_warned_of() {
    let fixture = Fixture::new(5).await;
    let url = format!("{}/v1/", fixture.sim.url());
    fixture
        .once_with(&[("CLERK_API_URL", &url)])
        .await
        .assert(Exit::Ok, changed().created(5));
    let clear = "the secret key is sent to another machine in clear text";
    let ran = fixture.run(&["check"]).await;
    assert!(!ran.stdout.contains(clear), "{ran:#?}");
    // Nothing answers at this address.
    let away = [
        ("CLERK_API_URL", "http://192.0.2.1:9"),
        ("CLERK2PG_CLERK__TIMEOUT", "100ms"),
    ];
    let ran = fixture.run_with(&["check"], &away).await;
    assert!(
        ran.stdout.contains(clear) && ran.stdout.contains("to an https:// address"),
        "{ran:#?}"
    );
    let ran = fixture.once_with(&away).await;
    assert_eq!(ran.stderr.matches(clear).count(), 1, "{ran:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_fails_to_count_is_still_mirrored() {
    let fixture = Fixture::new(40).await;
    fixture.once().await;
    let ids = fixture.sim.user_ids();
    let error = ErrorAnswer {
        status: 500,
        retry_after: None,
        body: ErrorBody::Json,
    };
    let count_error = Rule::new(Effect::Error(error)).on([Endpoint::Count]);
    fixture.sim.set_faults(count_error);
    let impatient = ("CLERK2PG_CLERK__TIMEOUT", "2s");

    // A full sync does everything but count.
    fixture.age_rows().await;
    let new = fixture.sim.create_random();
    assert!(fixture.sim.delete(&ids[3]));
    let ran = fixture.once_with(&[impatient]).await;
    ran.assert(Exit::Failed, incomplete().created(1).deleted(1).unchanged(39));
    let why = ran.json()["error"].as_str().unwrap().to_owned();
    assert!(why.contains("users could not be counted"), "{ran:#?}");
    assert!(fixture.has_user(&new).await && !fixture.has_user(&ids[3]).await);

    // Changes are mirrored, and deletions are found when the server counts again.
    let daemon = fixture.start_daemon(&[NEVER, EVERY_SECOND, impatient]);
    let new = fixture.sim.create_random();
    eventually("the new user", async || fixture.has_user(&new).await).await;
    assert!(fixture.sim.delete(&ids[4]));
    rename(&fixture, &ids[5], "Changed", now());
    let changed = format!(
        "SELECT count(*) FROM clerk.users WHERE id = '{}' AND first_name = 'Changed'",
        ids[5]
    );
    eventually("a change", async || fixture.db.number(&changed).await == 1).await;
    daemon.wait_for_log(CANNOT_COUNT).await;
    assert!(fixture.has_user(&ids[4]).await, "{}", daemon.log());
    fixture.sim.clear_faults();
    eventually("the deleted one goes", async || !fixture.has_user(&ids[4]).await).await;
    fixture.assert_in_sync().await;
    let ran = daemon.stop(Signal::TERM).await;
    assert_eq!(ran.stderr.matches(CANNOT_COUNT).count(), 1, "{ran:#?}");
    assert!(!ran.stderr.contains(NO_COUNT), "{ran:#?}");
}
