//! Incremental syncs mirror changes, cost almost nothing without changes, and request a full sync
//! if they cannot continue.

use clerk_sim::{Effect, Endpoint, ErrorBody, Quirks, Rule, Unstorable};
use rustix::process::Signal;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::{
    changes::{import, now, rename},
    faults::error,
    fixture::Fixture,
    proxy::upstream,
    statement_counter::StatementCounter,
    summary::{Exit, IncrementalTotals, changed, in_sync, incomplete},
    wait::eventually,
};

#[tokio::test(flavor = "multi_thread")]
async fn incremental_syncs_mirror_creates_and_updates() {
    let fixture = Fixture::new(60).await;
    let daemon = fixture.start_incremental(&[]).await;
    assert_eq!(fixture.incremental().await, IncrementalTotals::default());
    let before = now();
    let ids = fixture.sim.user_ids();
    let mut unstorable = String::new();
    let changes = || {
        (0..3).for_each(|_| drop(fixture.sim.create_random()));
        for id in [&ids[0], &ids[20], &ids[40], &ids[59]] {
            rename(&fixture, id, "Changed", now());
        }
        unstorable = fixture.sim.insert_unstorable(Unstorable::ManyKeys);
    };
    fixture.while_frozen(&[&daemon], changes).await;
    fixture.wait_for_incremental_sync().await;
    assert_eq!(
        fixture.incremental().await,
        IncrementalTotals {
            created: 3,
            updated: 4,
            rejected: 1,
            ..IncrementalTotals::default()
        }
    );
    let rejected = "SELECT string_agg(user_id, ' ') FROM clerk.rejected_users";
    assert_eq!(fixture.db.text(rejected).await, Some(unstorable.clone()));
    // Clerk's time has whole seconds, and the watermark is not later.
    let watermark = fixture.watermark().await;
    assert!(
        (before - 1000..=now()).contains(&watermark),
        "{watermark} since {before}"
    );

    assert!(fixture.sim.delete(&unstorable));
    fixture.assert_in_sync().await;
    fixture.assert_one_full_sync().await;
    fixture.assert_one_at_a_time().await;
    let ran = daemon.stop(Signal::TERM).await;
    ran.assert_exit(Exit::Ok);
    assert_eq!(fixture.lease_holder().await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn incremental_syncs_mirror_imports_with_old_dates() {
    let fixture = Fixture::new(60).await;
    let daemon = fixture.start_incremental(&[]).await;
    for n in 0..30 {
        import(&fixture, &format!("user_import{n}"), 1_300_000_000_000 + n, now());
    }
    fixture.wait_for_incremental_sync().await;
    fixture.assert_in_sync().await;
    assert_eq!(
        fixture.incremental().await,
        IncrementalTotals {
            created: 30,
            ..IncrementalTotals::default()
        }
    );
    fixture.assert_one_full_sync().await;
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
}

/// Records every write to a table of the schema `clerk`.
const AUDIT: &str = "
    CREATE TABLE public.writes (written text);
    CREATE FUNCTION public.note_write() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN INSERT INTO public.writes VALUES (TG_OP || ' ' || TG_TABLE_NAME); RETURN NULL; END $$;
    DO $$ DECLARE name text; BEGIN
        FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'clerk' LOOP
            EXECUTE format('CREATE TRIGGER note_write AFTER INSERT OR UPDATE OR DELETE ON clerk.%I
                FOR EACH ROW EXECUTE FUNCTION public.note_write()', name);
        END LOOP;
    END $$";

/// Asserts that incremental syncs without changes send two requests and at most three statements
/// each, and write nothing.
async fn check_idle(name: &str, prepare: impl FnOnce(&Fixture)) {
    const SYNCS: usize = 8;
    let fixture = Fixture::new(60).await;
    prepare(&fixture);
    let postgres = StatementCounter::before(&fixture.db.url).await;
    // The default: a leader renews the lease twice within its duration, with one statement.
    let lease = ("CLERK2PG_LEASE__TTL", "15s");
    let daemon = fixture
        .start_incremental(&[lease, ("DATABASE_URL", &postgres.url)])
        .await;
    fixture.wait_for_incremental_sync().await;
    fixture.db.execute(AUDIT).await;
    let (versions, runs) = (fixture.db.versions().await, fixture.runs("true").await);
    let (syncs, answered, executed) = (
        fixture.incremental_syncs().len(),
        fixture.sim.log().len(),
        postgres.executed(),
    );
    eventually("more syncs", async || {
        fixture.incremental_syncs().len() >= syncs + SYNCS
    })
    .await;
    let executed = postgres.executed() - executed;
    let log = &fixture.sim.log()[answered..];

    let syncs = fixture.incremental_syncs().len() - syncs;
    let counts = log.iter().filter(|request| request.path == "/v1/users/count").count();
    // At either end, one of the two requests may be missing.
    assert!(counts.abs_diff(syncs) <= 1, "{name}: {counts} counts in {syncs} syncs");
    assert!(log.len().abs_diff(syncs + counts) <= 1, "{name}: {log:#?}");
    let most = 3 * syncs as u64 + 3;
    assert!(
        (syncs as u64..=most).contains(&executed),
        "{name}: {executed} statements in {syncs} syncs"
    );
    let written = "SELECT string_agg(DISTINCT written, ', ') FROM public.writes";
    assert_eq!(fixture.db.text(written).await, None, "{name}");
    assert_eq!(fixture.db.versions().await, versions, "{name}");
    assert_eq!(fixture.runs("true").await, runs, "{name}");

    rename(&fixture, &fixture.sim.user_ids()[0], "Changed", now());
    fixture.wait_for_incremental_sync().await;
    let written = fixture.db.text(written).await.unwrap();
    assert!(
        written.contains("UPDATE users"),
        "{name}: writes are not noted: {written}"
    );
    assert_eq!(daemon.stop(Signal::TERM).await.code, Some(0), "{name}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_incremental_sync_without_changes_writes_nothing() {
    let locked = check_idle("a locked user", |fixture| {
        fixture.sim.update(&fixture.sim.user_ids()[30], |user| {
            user["locked"] = true.into();
            user["lockout_expires_in_seconds"] = 3000.into();
        });
    });
    let unstorable = check_idle("users that cannot be stored", |fixture| {
        for kind in Unstorable::ALL {
            // This kind is slow and no different.
            if kind != Unstorable::Huge {
                fixture.sim.insert_unstorable(kind);
            }
        }
    });
    let future = check_idle("a time of the future", |fixture| {
        rename(fixture, &fixture.sim.user_ids()[30], "Later", now() + 3_600_000);
    });
    tokio::join!(check_idle("nothing", |_| ()), locked, unstorable, future);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_sync_restores_a_lost_watermark() {
    let fixture = Fixture::new(60).await;
    let daemon = fixture.start_incremental(&[]).await;
    fixture.wait_for_incremental_sync().await;
    let watermark = fixture.watermark().await;
    fixture
        .db
        .execute("UPDATE clerk.resource_state SET watermark = NULL")
        .await;
    rename(&fixture, &fixture.sim.user_ids()[0], "Changed", now());
    daemon.wait_for_log("a full sync is due").await;
    assert_eq!(
        daemon.count_in_log("how far recent changes were read is not known"),
        1,
        "{}",
        daemon.log()
    );
    fixture.syncs(2).await;
    fixture.assert_in_sync().await;
    assert!(fixture.watermark().await > watermark);

    rename(&fixture, &fixture.sim.user_ids()[1], "Changed", now());
    fixture.wait_for_incremental_sync().await;
    fixture.assert_in_sync().await;
    assert_eq!(
        fixture.incremental().await,
        IncrementalTotals {
            updated: 1,
            ..IncrementalTotals::default()
        }
    );
    assert_eq!(fixture.runs("kind = 'full'").await, 2);
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
}

/// Sends a POST request to Clerk.
async fn post(fixture: &Fixture, path: &str) {
    let mut clerk = TcpStream::connect(upstream(&fixture.sim.url())).await.unwrap();
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: clerk\r\nauthorization: Bearer {}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
        fixture.sim.secret_key()
    );
    clerk.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    clerk.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

/// Bans the user that is last in the list of changes.
async fn ban(fixture: &Fixture) -> String {
    let updated_at = |id: &String| fixture.sim.document(id).unwrap()["updated_at"].as_i64();
    let id = fixture.sim.user_ids().into_iter().min_by_key(updated_at).unwrap();
    post(fixture, &format!("/v1/users/{id}/ban")).await;
    assert_eq!(fixture.sim.document(&id).unwrap()["banned"], true);
    id
}

#[tokio::test(flavor = "multi_thread")]
async fn bans_without_a_new_updated_at_are_mirrored_by_the_next_full_sync() {
    let fixture = Fixture::new(60).await;
    let daemon = fixture.start_incremental(&[]).await;
    let id = ban(&fixture).await;
    fixture.wait_for_incremental_sync().await;
    let banned = format!("SELECT banned::int FROM clerk.users WHERE id = '{id}'");
    assert_eq!(fixture.db.number(&banned).await, 0, "then it needs no full sync");
    fixture.db.execute("NOTIFY clerk2pg, 'full'").await;
    eventually("the ban", async || fixture.db.number(&banned).await == 1).await;
    fixture.assert_in_sync().await;

    fixture.sim.set_faults(Quirks {
        bans_move_updated_at: true,
        ..Quirks::default()
    });
    ban(&fixture).await;
    fixture.wait_for_incremental_sync().await;
    fixture.assert_in_sync().await;
    assert_eq!(
        fixture.incremental().await,
        IncrementalTotals {
            updated: 1,
            ..IncrementalTotals::default()
        }
    );
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
}

/// A list that breaks in the middle of a sync is an outage, reported once. The watermark stays, and
/// the rest follows later.
async fn check_broken(effect: Effect) {
    let fixture = Fixture::new(400).await;
    let daemon = fixture.start_incremental(&[]).await;
    let (watermark, ids) = (fixture.watermark().await, fixture.sim.user_ids());
    let breaks = || {
        ids[..300].iter().for_each(|id| rename(&fixture, id, "Broken", now()));
        fixture
            .sim
            .set_faults(Rule::new(effect.clone()).on([Endpoint::List]).skip(2));
    };
    fixture.while_frozen(&[&daemon], breaks).await;
    daemon.wait_for_log("waiting until it can be reached").await;
    let mirrored = "SELECT count(*) FROM clerk.users WHERE first_name = 'Broken'";
    let some = fixture.db.number(mirrored).await;
    assert!((1..300).contains(&some), "{effect:?}: {some} before the fault");
    let asked = fixture.sim.requests();
    eventually("more attempts", async || fixture.sim.requests() >= asked + 6).await;
    assert_eq!(fixture.watermark().await, watermark, "{effect:?}");
    assert_eq!(
        fixture.runs("kind = 'incremental' AND outcome = 'failed'").await,
        1,
        "{effect:?}"
    );

    fixture.sim.clear_faults();
    daemon.wait_for_log("back to normal").await;
    fixture.wait_for_incremental_sync().await;
    let ran = daemon.stop(Signal::TERM).await;
    fixture.assert_in_sync().await;
    assert!(fixture.watermark().await > watermark, "{effect:?}");
    let twice = "SELECT count(*) FROM (SELECT FROM clerk.user_events GROUP BY user_id HAVING count(*) > 1) AS t";
    assert_eq!(fixture.db.number(twice).await, 0, "{effect:?}");
    fixture.assert_one_full_sync().await;
    for text in ["waiting until it can be reached", "back to normal"] {
        assert_eq!(ran.stderr.matches(text).count(), 1, "{effect:?}: {text}: {ran:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_list_is_an_outage_reported_once() {
    tokio::join!(
        check_broken(error(503, ErrorBody::Json)),
        check_broken(Effect::Html),
        check_broken(Effect::Truncate),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn one_broken_page_is_requested_again() {
    let fixture = Fixture::new(60).await;
    let daemon = fixture.start_incremental(&[]).await;
    for effect in [error(503, ErrorBody::Html), Effect::Html, Effect::Truncate] {
        let id = &fixture.sim.user_ids()[0];
        let name = format!("{effect:?}");
        let breaks = || {
            rename(&fixture, id, &name, now());
            fixture.sim.set_faults(Rule::new(effect).on([Endpoint::List]).next(1));
        };
        fixture.while_frozen(&[&daemon], breaks).await;
        fixture.wait_for_incremental_sync().await;
        assert_eq!(fixture.first_name(id).await, name);
    }
    assert_eq!(
        fixture.incremental().await,
        IncrementalTotals {
            updated: 3,
            ..IncrementalTotals::default()
        }
    );
    let ran = daemon.stop(Signal::TERM).await;
    assert!(!ran.stderr.contains("WARN"), "{ran:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_incomplete_full_sync_does_not_advance_the_watermark() {
    let fixture = Fixture::new(60).await;
    fixture.once().await.assert(Exit::Ok, changed().created(60));
    let watermark = fixture.watermark().await;
    rename(&fixture, &fixture.sim.user_ids()[0], "Changed", now() + 2_000);
    fixture.sim.set_faults(clerk_sim::Quirks {
        count: Some(clerk_sim::WrongCount::Offset(1)),
        ..clerk_sim::Quirks::default()
    });
    fixture
        .once()
        .await
        .assert(Exit::Failed, incomplete().updated(1).unchanged(59));
    assert_eq!(fixture.watermark().await, watermark);
    fixture.sim.clear_faults();
    fixture.once().await.assert(Exit::Ok, in_sync().unchanged(60));
    assert!(fixture.watermark().await > watermark);
}
