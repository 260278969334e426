//! Several daemons on one database: one leads and the others stand by. The leader may be suspended,
//! killed or cut off at any moment.

use std::time::Duration;

use clerk_sim::{Effect, Endpoint, Quirks, Rule};
use rustix::process::Signal;

use crate::support::{
    database::connect,
    fixture::World,
    monitored::{ANY, MonitoredDaemon},
    process::{EVERY_SECOND, NEVER, Process},
    proxy::{Proxy, upstream},
    wait::eventually,
};

/// The lease's duration in most of these tests.
const LEASE: (&str, &str) = ("CLERK2PG_LEASE__TTL", "3s");

/// Seconds between the expiry of a leader and a takeover, at most, on a busy machine.
const SLACK: f64 = 2.0;

/// Longer than a takeover takes that waits for no expiry.
const LONG: (&str, &str) = ("CLERK2PG_LEASE__TTL", "30s");

/// Records the writer of each user, and each takeover of an expired leader.
const AUDIT: &str = "
    CREATE TABLE public.writes (number bigint GENERATED ALWAYS AS IDENTITY, writer text NOT NULL);
    CREATE FUNCTION public.note_write() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN INSERT INTO public.writes (writer) VALUES (current_setting('application_name')); RETURN NULL; END $$;
    CREATE TRIGGER note_write AFTER INSERT OR UPDATE OR DELETE ON clerk.users FOR EACH ROW EXECUTE FUNCTION public.note_write();
    CREATE TABLE public.takeovers (leader text, late double precision);
    CREATE FUNCTION public.note_takeover() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO public.takeovers VALUES (NEW.holder, extract(epoch FROM clock_timestamp() - OLD.expires_at));
            RETURN NULL;
        END $$;
    CREATE TRIGGER note_takeover AFTER UPDATE ON clerk.leader FOR EACH ROW
        WHEN (NEW.holder IS DISTINCT FROM OLD.holder) EXECUTE FUNCTION public.note_takeover()";

/// One of several daemons, with its own network connections.
struct Replica {
    name: String,
    process: Process,
    postgres: Proxy,
    clerk: Proxy,
}

struct Replicas {
    world: World,
    /// The leader is the first one.
    replicas: Vec<Replica>,
}

impl Replica {
    fn new(world: &World, name: &str, environment: &[(&str, &str)]) -> Self {
        let postgres = Proxy::open(upstream(&world.db.url));
        let clerk = Proxy::open(upstream(&world.sim.url()));
        let separator = if world.db.url.contains('?') { '&' } else { '?' };
        let database = format!("{}{separator}application_name={name}", postgres.url(&world.db.url));
        let own = [
            NEVER,
            EVERY_SECOND,
            LEASE,
            ("DATABASE_URL", database.as_str()),
            ("CLERK_API_URL", &clerk.url(&world.sim.url())),
        ];
        Self {
            name: name.to_owned(),
            process: world.start_daemon(&[&own, environment].concat()),
            postgres,
            clerk,
        }
    }
}

impl Replicas {
    /// Starts three daemons. The first one leads and is in sync.
    async fn three(users: usize, environment: &[(&str, &str)]) -> Self {
        let world = World::new(users).await;
        world.sim.set_faults(Quirks {
            max_page: Some(20),
            ..Quirks::default()
        });
        let leader = Replica::new(&world, "one", environment);
        world.syncs(1).await;
        let mut daemons = Self {
            world,
            replicas: vec![leader],
        };
        for name in ["two", "three"] {
            daemons.replicas.push(Replica::new(&daemons.world, name, environment));
        }
        daemons.wait_for_standbys(2).await;
        daemons.world.db.execute(AUDIT).await;
        daemons
    }

    fn leader(&self) -> &Replica {
        &self.replicas[0]
    }

    async fn wait_for_standbys(&self, count: i64) {
        let standbys = "SELECT count(*) FROM clerk.standbys WHERE expires_at > clock_timestamp()";
        eventually(&format!("{count} stand by"), async || {
            self.world.db.number(standbys).await == count
        })
        .await;
    }

    /// Returns the position of the current leader.
    async fn leading(&self) -> Option<usize> {
        let holder = self
            .world
            .db
            .text("SELECT holder FROM clerk.leader WHERE holder IS NOT NULL")
            .await?;
        let pid: u32 = holder.split(':').nth_back(1).unwrap().parse().unwrap();
        self.replicas.iter().position(|replica| replica.process.pid() == pid)
    }

    /// Waits until another daemon leads and the mirror is in sync.
    async fn wait_for_takeover(&self) {
        eventually("another leader", async || self.leading().await.is_some_and(|at| at > 0)).await;
        let late = self.world.db.text("SELECT late::text FROM public.takeovers").await;
        let late: f64 = late.expect("no lease expired").parse().unwrap();
        assert!(late < SLACK, "taken over {late} s after the leader's lease had expired");
        self.world.sim.update_random();
        self.world.sim.create_random();
        eventually("in sync", async || self.is_in_sync().await).await;
        self.world.assert_in_sync().await;
    }

    async fn is_in_sync(&self) -> bool {
        let mut ids = self.world.sim.user_ids();
        ids.sort();
        let mirror = self.world.db.documents().await;
        let name = |id: &String| self.world.sim.document(id).map(|user| user["first_name"].clone());
        mirror.keys().eq(ids.iter())
            && ids
                .iter()
                .all(|id| name(id).as_ref() == Some(&mirror[id]["first_name"]))
    }

    /// Counts the users written by the first daemon.
    async fn writes_of_first(&self) -> i64 {
        let writes = format!(
            "SELECT count(*) FROM public.writes WHERE writer = '{}'",
            self.leader().name
        );
        self.world.db.number(&writes).await
    }

    /// Brings the first daemon back. It writes nothing and stands by.
    async fn first_returns_without_writing(self, written: i64, again: impl FnOnce(&mut Replica)) {
        let Self { world, mut replicas } = self;
        again(&mut replicas[0]);
        let daemons = Self { world, replicas };
        daemons.wait_for_standbys(2).await;
        daemons.world.sim.create_random();
        daemons.world.sim.delete_random();
        eventually("in sync", async || daemons.is_in_sync().await).await;
        daemons.world.assert_in_sync().await;
        assert_eq!(daemons.writes_of_first().await, written, "a stale leader wrote");
        assert_eq!(
            daemons.world.db.number("SELECT count(*) FROM public.takeovers").await,
            1
        );
        daemons.end().await;
    }

    async fn end(self) {
        for replica in self.replicas {
            let ran = replica.process.stop(Signal::TERM).await;
            assert_eq!(ran.code, Some(0), "{ran:#?}");
        }
        self.world.assert_one_at_a_time().await;
        assert_eq!(self.world.db.number("SELECT count(*) FROM clerk.standbys").await, 0);
        let leaders = "SELECT count(*) FROM clerk.leader WHERE holder IS NOT NULL";
        assert_eq!(self.world.db.number(leaders).await, 0);
    }

    /// Lets the leader request a page that will be stale when it arrives.
    async fn request_stale_page(&self) {
        let sim = &self.world.sim;
        let change = || {
            for id in sim.user_ids() {
                sim.update(&id, |user| user["first_name"] = "Old".into());
            }
            // The second page of the sync that sees the change.
            sim.set_faults(Rule::new(Effect::LatencyMs(1000)).on([Endpoint::List]).skip(1).next(1));
        };
        self.world.while_frozen(&[&self.leader().process], change).await;
        eventually("the request for a page", async || {
            sim.faults().rules.first().is_some_and(|rule| rule.next == Some(0))
        })
        .await;
    }

    fn change_users_again(&self) {
        for id in self.world.sim.user_ids() {
            self.world.sim.update(&id, |user| user["first_name"] = "New".into());
        }
    }

    /// Brings the leader into the middle of a transaction that has written users and waits for a
    /// locked table. `meanwhile` happens then.
    async fn block_leader_in_transaction(&mut self, meanwhile: impl FnOnce(&mut Replica)) {
        let other = connect(&self.world.db.url).await;
        other
            .batch_execute("BEGIN; LOCK TABLE clerk.user_events IN EXCLUSIVE MODE")
            .await
            .unwrap();
        for id in self.world.sim.user_ids() {
            self.world.sim.update(&id, |user| user["first_name"] = "Old".into());
        }
        let blocked = "SELECT count(*) FROM pg_stat_activity
            WHERE datname = current_database() AND application_name = 'one' AND wait_event_type = 'Lock'";
        eventually("it is in a transaction", async || {
            self.world.db.number(blocked).await > 0
        })
        .await;
        meanwhile(&mut self.replicas[0]);
        other.batch_execute("ROLLBACK").await.unwrap();
        self.change_users_again();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_suspended_in_a_sync_writes_nothing_when_resumed() {
    let daemons = Replicas::three(60, &[]).await;
    daemons.request_stale_page().await;
    daemons.leader().process.signal(Signal::STOP);
    let written = daemons.writes_of_first().await;
    daemons.change_users_again();
    daemons.wait_for_takeover().await;
    daemons
        .first_returns_without_writing(written, |first| first.process.signal(Signal::CONT))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_suspended_in_a_transaction_writes_nothing_when_resumed() {
    let mut daemons = Replicas::three(60, &[]).await;
    daemons
        .block_leader_in_transaction(|leader| leader.process.signal(Signal::STOP))
        .await;
    daemons.wait_for_takeover().await;
    assert_eq!(daemons.writes_of_first().await, 0, "its transaction was rolled back");
    daemons
        .first_returns_without_writing(0, |first| first.process.signal(Signal::CONT))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_replaces_a_killed_leader() {
    for in_transaction in [false, true] {
        let mut daemons = Replicas::three(60, &[]).await;
        if in_transaction {
            daemons
                .block_leader_in_transaction(|leader| leader.process.signal(Signal::KILL))
                .await;
        } else {
            daemons.request_stale_page().await;
            daemons.leader().process.signal(Signal::KILL);
            daemons.change_users_again();
        }
        daemons.wait_for_takeover().await;
        daemons.wait_for_standbys(1).await;
        let dead = daemons.replicas.remove(0);
        assert_eq!(dead.process.wait_for_exit().await.code, None);
        daemons.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_replaces_a_leader_without_connections() {
    let mut daemons = Replicas::three(60, &[]).await;
    daemons.request_stale_page().await;
    let written = daemons.writes_of_first().await;
    daemons.replicas[0].postgres.refuse().await;
    daemons.change_users_again();
    daemons.wait_for_takeover().await;
    daemons
        .first_returns_without_writing(written, |first| first.postgres.open_again())
        .await;
}

/// What the leader sent before the network failed arrives after a takeover.
#[tokio::test(flavor = "multi_thread")]
async fn statements_of_an_old_leader_that_arrive_late_write_nothing() {
    let mut daemons = Replicas::three(60, &[]).await;
    daemons
        .block_leader_in_transaction(|leader| leader.postgres.hold())
        .await;
    daemons.wait_for_takeover().await;
    assert_eq!(daemons.writes_of_first().await, 0, "its transaction was rolled back");
    daemons
        .first_returns_without_writing(0, |first| first.postgres.open_again())
        .await;
}

/// For Postgres the statement is running, and its timeouts do not apply until the rest of the
/// message arrives.
#[tokio::test(flavor = "multi_thread")]
async fn a_standby_replaces_a_leader_cut_off_within_a_message() {
    const CUT: &str = "Cut off here";
    let daemons = Replicas::three(60, &[]).await;
    daemons.leader().postgres.hold_after(CUT);
    for id in daemons.world.sim.user_ids() {
        daemons.world.sim.update(&id, |user| user["first_name"] = CUT.into());
    }
    eventually("it is cut off", async || daemons.leader().postgres.is_holding()).await;
    daemons.change_users_again();
    daemons.wait_for_takeover().await;
    assert_eq!(daemons.writes_of_first().await, 0, "its transaction was rolled back");
    daemons
        .first_returns_without_writing(0, |first| first.postgres.open_again())
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_leader_sends_requests_to_clerk() {
    // The standbys check the leader three times before they take over.
    let daemons = Replicas::three(30, &[("CLERK2PG_LEASE__TTL", "9s")]).await;
    let leader = &daemons.leader().process;
    leader.signal(Signal::STOP);
    daemons.world.wait_until_answered().await;
    let before = daemons.world.sim.requests();
    let polls = "SELECT max(expires_at) FROM clerk.standbys";
    let (mut seen, mut last) = (0, daemons.world.db.text(polls).await);
    eventually("the standbys have polled twice", async || {
        let now = daemons.world.db.text(polls).await;
        seen += i32::from(std::mem::replace(&mut last, now.clone()) != now);
        seen >= 2
    })
    .await;
    assert_eq!(daemons.leading().await, Some(0), "the test was too slow");
    assert_eq!(daemons.world.sim.requests(), before, "a standby asked Clerk");
    leader.signal(Signal::CONT);
    daemons.world.sim.create_random();
    eventually("in sync", async || daemons.is_in_sync().await).await;
    assert_eq!(daemons.leading().await, Some(0));
    daemons.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_leader_hands_over_at_once() {
    let mut daemons = Replicas::three(30, &[LONG]).await;
    let leader = daemons.replicas.remove(0);
    let started = std::time::Instant::now();
    assert_eq!(leader.process.stop(Signal::TERM).await.code, Some(0));
    eventually("another leader", async || daemons.leading().await.is_some()).await;
    let took = started.elapsed();
    assert!(took < Duration::from_secs(20), "{took:?} with a lease of 30 s");
    daemons.world.sim.create_random();
    eventually("in sync", async || daemons.is_in_sync().await).await;
    daemons.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_cannot_reach_clerk_hands_over() {
    let mut daemons = Replicas::three(30, &[("CLERK2PG_CLERK__TIMEOUT", "500ms")]).await;
    daemons.replicas[0].clerk.refuse().await;
    eventually("another leader", async || {
        daemons.leading().await.is_some_and(|at| at > 0)
    })
    .await;
    assert_eq!(daemons.leader().process.count_in_log("syncs keep failing here"), 1);
    daemons.world.sim.create_random();
    eventually("in sync", async || daemons.is_in_sync().await).await;
    daemons.replicas[0].clerk.open_again();
    daemons.wait_for_standbys(2).await;
    daemons.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_reports_that_it_stands_by() {
    let world = World::new(10).await;
    let listening = [ANY, LONG, NEVER, EVERY_SECOND];
    let leader = MonitoredDaemon::new(world.start_daemon(&listening)).await;
    leader.wait_until_ready("in sync").await;
    let standby = MonitoredDaemon::new(world.start_daemon(&listening)).await;
    standby.wait_until_ready("leads").await;
    let (status, says) = standby.probe("/readyz").await;
    let name = world.db.text("SELECT holder FROM clerk.leader").await.unwrap();
    assert_eq!((status, says), (200, format!("standing by: {name} leads")));
    for (watched, leads) in [(&leader, 1.0), (&standby, 0.0)] {
        let metrics = watched.metrics().await;
        assert_eq!(metrics.value("clerk2pg_leader"), leads);
        assert_eq!(metrics.value("clerk2pg_standing_by"), 1.0 - leads);
        assert_eq!(metrics.value("clerk2pg_ready"), 1.0);
    }
    let page = standby.get("/").await.body;
    assert!(
        page.contains("<h1>Standing by</h1>") && page.contains("another one stands by"),
        "{page}"
    );
    let ran = world.run(&["status"]).await;
    let waiting = world.db.text("SELECT holder FROM clerk.standbys").await.unwrap();
    let expected = format!("{name} leads; {waiting} stands by");
    assert!(ran.stdout.lines().any(|line| line == expected), "{ran:#?}");
    let json = world.run(&["status", "--format", "json"]).await.json();
    assert_eq!(
        (&json["leader"], &json["standbys"]),
        (&name.into(), &serde_json::json!([waiting]))
    );

    // A single run syncs between two syncs of the leader.
    world.sim.create_random();
    let ran = world.once_with(&[LONG]).await;
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    world.assert_in_sync().await;
    for watched in [leader, standby] {
        assert_eq!(watched.daemon.stop(Signal::TERM).await.code, Some(0));
    }
    world.assert_one_at_a_time().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_that_cannot_see_the_leader_is_not_ready() {
    let world = World::new(10).await;
    let leader = world.start_incremental(&[LONG]).await;
    let mut postgres = Proxy::open(upstream(&world.db.url));
    let url = postgres.url(&world.db.url);
    let standby =
        MonitoredDaemon::new(world.start_daemon(&[ANY, LEASE, NEVER, EVERY_SECOND, ("DATABASE_URL", &url)])).await;
    standby.wait_until_ready("leads").await;
    postgres.refuse().await;
    standby.wait_until_not_ready("Postgres cannot be reached").await;
    postgres.open_again();
    standby.wait_until_ready("leads").await;
    for process in [leader, standby.daemon] {
        assert_eq!(process.stop(Signal::TERM).await.code, Some(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_with_a_wrong_key_fails_at_start() {
    let world = World::new(10).await;
    let leader = world.start_incremental(&[LONG]).await;
    let ran = world
        .start_daemon(&[("CLERK_SECRET_KEY", "sk_live_wrong")])
        .wait_for_exit()
        .await;
    assert_eq!(ran.code, Some(1), "{ran:#?}");
    assert!(ran.stderr.contains("Clerk refused the secret key"), "{ran:#?}");
    assert_eq!(leader.stop(Signal::TERM).await.code, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_does_not_change_the_leader() {
    let daemons = Replicas::three(30, &[]).await;
    for replica in &daemons.replicas {
        replica.process.signal(Signal::HUP);
        replica.process.wait_for_log("configuration reloaded").await;
    }
    daemons.wait_for_standbys(2).await;
    daemons.world.sim.create_random();
    eventually("in sync", async || daemons.is_in_sync().await).await;
    assert_eq!(daemons.leading().await, Some(0));
    assert_eq!(
        daemons.world.db.number("SELECT count(*) FROM public.takeovers").await,
        0
    );
    daemons.end().await;
}
