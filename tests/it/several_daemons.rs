//! Several daemons on one database: one leads and the others stand by. The leader may be suspended,
//! killed or cut off at any moment.

use std::time::Duration;

use clerk_sim::{Effect, Endpoint, Quirks, Rule};
use rustix::process::Signal;

use crate::support::{
    database::connect,
    fixture::Fixture,
    monitored::{ANY, MonitoredDaemon},
    process::{EVERY_SECOND, NEVER, Process},
    proxy::{Proxy, upstream},
    stalls::Stalls,
    summary::Exit,
    wait::eventually,
};

/// The lease's duration in most of these tests.
const LEASE: (&str, &str) = ("CLERK2PG_LEASE__TTL", "3s");

/// Seconds between the expiry of a leader and a takeover, at most, and for each second for which
/// the machine stalls.
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
    fixture: Fixture,
    /// The leader is the first one.
    replicas: Vec<Replica>,
    stalls: Stalls,
}

impl Replica {
    fn new(fixture: &Fixture, name: &str, environment: &[(&str, &str)]) -> Self {
        let postgres = Proxy::open(upstream(&fixture.db.url));
        let clerk = Proxy::open(upstream(&fixture.sim.url()));
        let separator = if fixture.db.url.contains('?') { '&' } else { '?' };
        let database = format!("{}{separator}application_name={name}", postgres.url(&fixture.db.url));
        let own = [
            NEVER,
            EVERY_SECOND,
            LEASE,
            ("DATABASE_URL", database.as_str()),
            ("CLERK_API_URL", &clerk.url(&fixture.sim.url())),
        ];
        Self {
            name: name.to_owned(),
            process: fixture.start_daemon(&[&own, environment].concat()),
            postgres,
            clerk,
        }
    }
}

impl Replicas {
    /// Starts three daemons. The first one leads and is in sync.
    async fn three(users: usize, environment: &[(&str, &str)]) -> Self {
        let fixture = Fixture::new(users).await;
        fixture.sim.set_faults(Quirks {
            max_page: Some(20),
            ..Quirks::default()
        });
        let leader = Replica::new(&fixture, "one", environment);
        fixture.syncs(1).await;
        let mut daemons = Self {
            stalls: Stalls::measure(&fixture.db.url).await,
            fixture,
            replicas: vec![leader],
        };
        // A leader that is alone does not extend its expiry, and a daemon that starts after the
        // expiry leads at once. A slow machine may take that long to start one.
        let long = "UPDATE clerk.leader SET expires_at = clock_timestamp() + interval '1 minute', ttl = '1 minute'";
        daemons.fixture.db.execute(long).await;
        for name in ["two", "three"] {
            daemons.replicas.push(Replica::new(&daemons.fixture, name, environment));
        }
        daemons.wait_for_standbys(2).await;
        let renewed = "SELECT count(*) FROM clerk.leader WHERE ttl < '1 minute'";
        eventually("the leader extends its expiry itself", async || {
            daemons.fixture.db.number(renewed).await == 1
        })
        .await;
        assert_eq!(daemons.leading().await, Some(0));
        daemons.fixture.db.execute(AUDIT).await;
        daemons
    }

    fn leader(&self) -> &Replica {
        &self.replicas[0]
    }

    async fn wait_for_standbys(&self, count: i64) {
        let standbys = "SELECT count(*) FROM clerk.standbys WHERE expires_at > clock_timestamp()";
        eventually(&format!("{count} stand by"), async || {
            self.fixture.db.number(standbys).await == count
        })
        .await;
    }

    /// Returns the position of the current leader.
    async fn leading(&self) -> Option<usize> {
        let holder = self
            .fixture
            .db
            .text("SELECT holder FROM clerk.leader WHERE holder IS NOT NULL")
            .await?;
        let pid: u32 = holder.split(':').nth_back(1).unwrap().parse().unwrap();
        self.replicas.iter().position(|replica| replica.process.pid() == pid)
    }

    /// Waits until another daemon leads and the mirror is in sync.
    async fn wait_for_takeover(&self) {
        eventually("another leader", async || self.leading().await.is_some_and(|at| at > 0)).await;
        let late = self.fixture.db.text("SELECT late::text FROM public.takeovers").await;
        let late: f64 = late.expect("no lease expired").parse().unwrap();
        let stall = self.stalls.longest().as_secs_f64();
        assert!(
            late < SLACK * (1.0 + stall),
            "taken over {late} s after the leader's lease had expired, although the machine never stalled longer than {stall} s"
        );
        self.fixture.sim.update_random();
        self.fixture.sim.create_random();
        eventually("in sync", async || self.is_in_sync().await).await;
        self.fixture.assert_in_sync().await;
    }

    async fn is_in_sync(&self) -> bool {
        let mut ids = self.fixture.sim.user_ids();
        ids.sort();
        let mirror = self.fixture.db.documents().await;
        let name = |id: &String| self.fixture.sim.document(id).map(|user| user["first_name"].clone());
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
        self.fixture.db.number(&writes).await
    }

    /// Brings the first daemon back. It writes nothing and stands by.
    async fn first_returns_without_writing(mut self, written: i64, again: impl FnOnce(&mut Replica)) {
        again(&mut self.replicas[0]);
        self.wait_for_standbys(2).await;
        self.fixture.sim.create_random();
        self.fixture.sim.delete_random();
        eventually("in sync", async || self.is_in_sync().await).await;
        self.fixture.assert_in_sync().await;
        assert_eq!(self.writes_of_first().await, written, "a stale leader wrote");
        assert_eq!(self.fixture.db.number("SELECT count(*) FROM public.takeovers").await, 1);
        self.end().await;
    }

    async fn end(self) {
        for replica in self.replicas {
            let ran = replica.process.stop(Signal::TERM).await;
            ran.assert_exit(Exit::Ok);
        }
        self.fixture.assert_one_at_a_time().await;
        assert_eq!(self.fixture.db.number("SELECT count(*) FROM clerk.standbys").await, 0);
        let leaders = "SELECT count(*) FROM clerk.leader WHERE holder IS NOT NULL";
        assert_eq!(self.fixture.db.number(leaders).await, 0);
    }

    /// Lets the leader request a page that will be stale when it arrives.
    async fn request_stale_page(&self) {
        let sim = &self.fixture.sim;
        let change = || {
            for id in sim.user_ids() {
                sim.update(&id, |user| user["first_name"] = "Old".into());
            }
            // The second page of the sync that sees the change.
            sim.set_faults(Rule::new(Effect::LatencyMs(1000)).on([Endpoint::List]).skip(1).next(1));
        };
        self.fixture.while_frozen(&[&self.leader().process], change).await;
        eventually("the request for a page", async || {
            sim.faults().rules.first().is_some_and(|rule| rule.next == Some(0))
        })
        .await;
    }

    fn change_users_again(&self) {
        for id in self.fixture.sim.user_ids() {
            self.fixture.sim.update(&id, |user| user["first_name"] = "New".into());
        }
    }

    /// Brings the leader into the middle of a transaction that has written users and waits for a
    /// locked table. `meanwhile` happens then.
    async fn block_leader_in_transaction(&mut self, meanwhile: impl FnOnce(&mut Replica)) {
        let other = connect(&self.fixture.db.url).await;
        other
            .batch_execute("BEGIN; LOCK TABLE clerk.events IN EXCLUSIVE MODE")
            .await
            .unwrap();
        for id in self.fixture.sim.user_ids() {
            self.fixture.sim.update(&id, |user| user["first_name"] = "Old".into());
        }
        let blocked = "SELECT count(*) FROM pg_stat_activity
            WHERE datname = current_database() AND application_name = 'one' AND wait_event_type = 'Lock'";
        eventually("it is in a transaction", async || {
            self.fixture.db.number(blocked).await > 0
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
    for id in daemons.fixture.sim.user_ids() {
        daemons.fixture.sim.update(&id, |user| user["first_name"] = CUT.into());
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
    daemons.fixture.wait_until_answered().await;
    let before = daemons.fixture.sim.requests();
    let polls = "SELECT max(expires_at) FROM clerk.standbys";
    let (mut seen, mut last) = (0, daemons.fixture.db.text(polls).await);
    eventually("the standbys have polled twice", async || {
        let now = daemons.fixture.db.text(polls).await;
        seen += i32::from(std::mem::replace(&mut last, now.clone()) != now);
        seen >= 2
    })
    .await;
    assert_eq!(daemons.leading().await, Some(0), "the test was too slow");
    assert_eq!(daemons.fixture.sim.requests(), before, "a standby asked Clerk");
    leader.signal(Signal::CONT);
    daemons.fixture.sim.create_random();
    eventually("in sync", async || daemons.is_in_sync().await).await;
    assert_eq!(daemons.leading().await, Some(0));
    daemons.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_leader_hands_over_at_once() {
    let mut daemons = Replicas::three(30, &[LONG]).await;
    let leader = daemons.replicas.remove(0);
    let started = std::time::Instant::now();
    leader.process.stop(Signal::TERM).await.assert_exit(Exit::Ok);
    eventually("another leader", async || daemons.leading().await.is_some()).await;
    let took = started.elapsed();
    assert!(took < Duration::from_secs(20), "{took:?} with a lease of 30 s");
    daemons.fixture.sim.create_random();
    eventually("in sync", async || daemons.is_in_sync().await).await;
    daemons.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_cannot_reach_clerk_hands_over() {
    let mut daemons = Replicas::three(30, &[("CLERK2PG_CLERK__TIMEOUT", "1s")]).await;
    daemons.replicas[0].clerk.refuse().await;
    eventually("another leader", async || {
        daemons.leading().await.is_some_and(|at| at > 0)
    })
    .await;
    assert_eq!(daemons.leader().process.count_in_log("syncs keep failing here"), 1);
    daemons.fixture.sim.create_random();
    eventually("in sync", async || daemons.is_in_sync().await).await;
    daemons.replicas[0].clerk.open_again();
    daemons.wait_for_standbys(2).await;
    daemons.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_reports_that_it_stands_by() {
    let fixture = Fixture::new(10).await;
    let listening = [ANY, LONG, NEVER, EVERY_SECOND];
    let leader = MonitoredDaemon::new(fixture.start_daemon(&listening)).await;
    leader.wait_until_ready("in sync").await;
    let standby = MonitoredDaemon::new(fixture.start_daemon(&listening)).await;
    standby.wait_until_ready("leads").await;
    let (status, says) = standby.probe("/readyz").await;
    let name = fixture.db.text("SELECT holder FROM clerk.leader").await.unwrap();
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
    let ran = fixture.run(&["status"]).await;
    let waiting = fixture.db.text("SELECT holder FROM clerk.standbys").await.unwrap();
    let expected = format!("{name} leads; {waiting} stands by");
    assert!(ran.stdout.lines().any(|line| line == expected), "{ran:#?}");
    let json = fixture.run(&["status", "--format", "json"]).await.json();
    assert_eq!(
        (&json["leader"], &json["standbys"]),
        (&name.into(), &serde_json::json!([waiting]))
    );

    // A single run syncs between two syncs of the leader.
    fixture.sim.create_random();
    let ran = fixture.once_with(&[LONG]).await;
    ran.assert_exit(Exit::Ok);
    fixture.assert_in_sync().await;
    for watched in [leader, standby] {
        watched.daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
    }
    fixture.assert_one_at_a_time().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_that_cannot_see_the_leader_is_not_ready() {
    let fixture = Fixture::new(10).await;
    let leader = fixture.start_incremental(&[LONG]).await;
    let mut postgres = Proxy::open(upstream(&fixture.db.url));
    let url = postgres.url(&fixture.db.url);
    let standby =
        MonitoredDaemon::new(fixture.start_daemon(&[ANY, LEASE, NEVER, EVERY_SECOND, ("DATABASE_URL", &url)])).await;
    standby.wait_until_ready("leads").await;
    postgres.refuse().await;
    standby.wait_until_not_ready("Postgres cannot be reached").await;
    postgres.open_again();
    standby.wait_until_ready("leads").await;
    for process in [leader, standby.daemon] {
        process.stop(Signal::TERM).await.assert_exit(Exit::Ok);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_with_a_wrong_key_fails_at_start() {
    let fixture = Fixture::new(10).await;
    let leader = fixture.start_incremental(&[LONG]).await;
    let ran = fixture
        .start_daemon(&[("CLERK_SECRET_KEY", "sk_live_wrong")])
        .wait_for_exit()
        .await;
    ran.assert_exit(Exit::Failed);
    assert!(ran.stderr.contains("Clerk refused the secret key"), "{ran:#?}");
    leader.stop(Signal::TERM).await.assert_exit(Exit::Ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_does_not_change_the_leader() {
    let daemons = Replicas::three(30, &[]).await;
    for replica in &daemons.replicas {
        replica.process.signal(Signal::HUP);
        replica.process.wait_for_log("configuration reloaded").await;
    }
    daemons.wait_for_standbys(2).await;
    daemons.fixture.sim.create_random();
    eventually("in sync", async || daemons.is_in_sync().await).await;
    assert_eq!(daemons.leading().await, Some(0));
    assert_eq!(
        daemons.fixture.db.number("SELECT count(*) FROM public.takeovers").await,
        0
    );
    daemons.end().await;
}
