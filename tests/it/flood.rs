//! Floods of notifications and failing syncs delay no other user.

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::{Arc, Mutex},
    time::Duration,
};

use clerk_sim::Request;
use rustix::process::Signal;

use crate::support::{
    database::connect,
    faults::slow_pages,
    fixture::Fixture,
    http_server::{Server, answer},
    monitored::{ANY, MonitoredDaemon},
    on_demand::{DEBUG, LISTENING},
    process::{EVERY_SECOND, NEVER},
    summary::Exit,
    wait::{eventually, within},
};

/// Requests in ten seconds, all of which may be sent.
const LIMIT: (&str, &str) = ("CLERK2PG_CLERK__RATE_LIMIT", "200");

/// The part of them that notifications may use.
const PART: usize = 50;

/// How long a change may take on a busy machine. An idle one takes a second or two.
const SOON: Duration = Duration::from_secs(20);

/// Sends notifications with unknown ids until it is dropped.
struct Flood {
    role: String,
    sending: tokio::task::JoinHandle<()>,
}

impl Flood {
    /// As a role without any privilege.
    async fn begin(fixture: &Fixture) -> Self {
        let role = format!("flood_{}", fixture.db.text("SELECT md5(random()::text)").await.unwrap());
        fixture.db.execute(&format!("CREATE ROLE {role}")).await;
        let client = connect(&fixture.db.url).await;
        client.batch_execute(&format!("SET ROLE {role}")).await.unwrap();
        let sending = tokio::spawn(async move {
            let sql = "SELECT pg_notify('clerk2pg', 'user_flood' || md5(random()::text)) FROM generate_series(1, 150)";
            while client.execute(sql, &[]).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        });
        Self { role, sending }
    }

    async fn end(self, fixture: &Fixture) {
        self.sending.abort();
        let _ = self.sending.await;
        let left = format!("DROP ROLE {}", self.role);
        eventually("the role can go", async || {
            fixture.db.client.batch_execute(&left).await.is_ok()
        })
        .await;
    }
}

impl Fixture {
    /// Returns the reads of unknown ids.
    fn read_in_vain(&self) -> Vec<Request> {
        let mut log = self.sim.log();
        log.retain(|request| request.path.contains("user_flood"));
        log
    }

    /// Asserts that no ten seconds contain more reads by id than [`PART`].
    fn assert_notifications_keep_to_their_part(&self) {
        let reads = self.read_in_vain();
        for first in &reads {
            let window = first.at..first.at + 10_000;
            let within = reads.iter().filter(|request| window.contains(&request.at)).count();
            assert!(within <= PART, "{within} reads by id in ten seconds");
        }
    }

    /// Creates, changes and deletes one user each, and waits until the mirror shows it.
    async fn keeps_up(&self) {
        let users = self.users().await;
        let new = self.sim.create_random();
        let changed = self.sim.user_ids()[0].clone();
        self.rename(&changed, &new);
        let gone = self.sim.user_ids()[1].clone();
        assert!(self.sim.delete(&gone));
        let sql = format!("SELECT count(*) FROM clerk.users WHERE first_name = '{new}'");
        within(SOON, "the changes", async || {
            self.has_user(&new).await && !self.has_user(&gone).await && self.db.number(&sql).await == 1
        })
        .await;
        assert_eq!(self.users().await, users);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_notifications_delays_no_other_user() {
    let fixture = Fixture::new(40).await;
    let watched = MonitoredDaemon::start(&fixture, &[EVERY_SECOND, LIMIT, DEBUG]).await;
    watched.wait_until_ready("in sync").await;
    watched.daemon.wait_for_log(LISTENING).await;
    let flood = Flood::begin(&fixture).await;
    eventually("it is asked for", async || fixture.read_in_vain().len() >= PART).await;
    for _ in 0..5 {
        fixture.keeps_up().await;
    }
    // An incremental sync needs two requests. Those that notifications ask for must fit into the
    // same part.
    let before = fixture.incremental_syncs().len();
    within(SOON, "the schedule goes on", async || {
        fixture.incremental_syncs().len() >= before + 5
    })
    .await;
    eventually("more are asked for, a window later", async || {
        fixture.read_in_vain().len() >= 2 * PART
    })
    .await;
    watched.wait_until_ready("in sync").await;
    flood.end(&fixture).await;
    fixture.assert_notifications_keep_to_their_part();
    watched.daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_during_a_full_sync_delays_neither_it_nor_changes() {
    let fixture = Fixture::new(100).await;
    let watched = MonitoredDaemon::start(&fixture, &[EVERY_SECOND, LIMIT, DEBUG]).await;
    watched.wait_until_ready("in sync").await;
    watched.daemon.wait_for_log(LISTENING).await;
    let flood = Flood::begin(&fixture).await;
    eventually("it is asked for", async || !fixture.read_in_vain().is_empty()).await;
    fixture.sim.set_faults(slow_pages(5, 200));
    let walked = async || {
        fixture
            .runs("kind = 'full' AND outcome IN ('in_sync', 'changed')")
            .await
    };
    let before = walked().await;
    fixture.notify("full").await;
    eventually("a full sync is at work", async || {
        fixture.runs("kind = 'full' AND outcome = 'running'").await == 1
    })
    .await;
    let new = fixture.sim.create_random();
    within(SOON, "the new user", async || fixture.has_user(&new).await).await;
    eventually("the full sync ends", async || walked().await > before).await;
    flood.end(&fixture).await;
    fixture.assert_notifications_keep_to_their_part();
    watched.daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn endless_requests_for_syncs_are_throttled() {
    let fixture = Fixture::new(40).await;
    let daemon = fixture.start_daemon(&[NEVER, LIMIT, DEBUG]);
    daemon.wait_for_log(LISTENING).await;
    fixture.syncs(1).await;
    let before = (fixture.incremental_syncs().len(), std::time::Instant::now());
    for _ in 0..100 {
        fixture.notify("sync").await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // Each takes two of five requests a second.
    let most = before.1.elapsed().as_secs_f64() / 0.4 + 1.0;
    let syncs = fixture.incremental_syncs().len() - before.0;
    assert!(syncs > 0 && syncs as f64 <= most, "{syncs} syncs");
    // The last one is not forgotten.
    let id = fixture.sim.create_random();
    fixture.notify("sync").await;
    eventually("the user's row", async || fixture.has_user(&id).await).await;
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_id_is_not_read_again_at_once() {
    let fixture = Fixture::new(40).await;
    let daemon = fixture.start_daemon(&[NEVER, DEBUG]);
    daemon.wait_for_log(LISTENING).await;
    fixture.syncs(1).await;
    let id = "user_flood0123456789abcdef";
    let reads = || {
        fixture
            .read_in_vain()
            .iter()
            .map(|request| request.at)
            .collect::<Vec<_>>()
    };
    fixture.notify(id).await;
    eventually("the first read", async || reads().len() == 1).await;
    for _ in 0..20 {
        fixture.notify(id).await;
        fixture.sync_new_user().await;
    }
    // A user may have this id by then.
    eventually("the second read", async || reads().len() == 2).await;
    let times = reads();
    assert!(times[1] - times[0] >= 9_000, "{times:?}");
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
}

/// Makes every sync of a kind fail that has something to write.
fn fails(kind: &str) -> String {
    format!(
        "CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not this kind'; END $$;
         CREATE TRIGGER refuse BEFORE INSERT ON clerk.sync_runs FOR EACH ROW
             WHEN (NEW.kind = '{kind}') EXECUTE FUNCTION public.refuse()"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_full_sync_delays_no_change() {
    let fixture = Fixture::new(40).await;
    let watched = MonitoredDaemon::new(fixture.start_daemon(&[NEVER, EVERY_SECOND, ANY, DEBUG])).await;
    watched.wait_until_ready("in sync").await;
    watched.daemon.wait_for_log(LISTENING).await;
    fixture.db.execute(&fails("full")).await;
    fixture.notify("full").await;
    watched.wait_until_not_ready("not this kind").await;
    for _ in 0..3 {
        fixture.keeps_up().await;
        let new = fixture.sim.create_random();
        fixture.notify(&new).await;
        within(SOON, "the new user", async || fixture.has_user(&new).await).await;
    }
    watched.wait_until_not_ready("not this kind").await;
    fixture.db.execute("DROP FUNCTION public.refuse CASCADE").await;
    watched.wait_until_ready("in sync").await;
    let ran = watched.daemon.stop(Signal::TERM).await;
    assert_eq!(ran.stderr.matches("ERROR").count(), 1, "{ran:#?}");
    assert_eq!(ran.stderr.matches("back to normal").count(), 1, "{ran:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_sync_on_demand_delays_no_other_user() {
    let fixture = Fixture::new(40).await;
    let watched = MonitoredDaemon::new(fixture.start_daemon(&[NEVER, EVERY_SECOND, ANY, DEBUG])).await;
    watched.wait_until_ready("in sync").await;
    watched.daemon.wait_for_log(LISTENING).await;
    fixture.db.execute(&fails("on_demand")).await;
    // A ban does not change `updated_at`: only a read by id shows it.
    let id = fixture.sim.user_ids()[5].clone();
    let mut document = fixture.sim.document(&id).unwrap();
    document["banned"] = true.into();
    fixture.sim.insert(document);
    fixture.notify(&id).await;
    watched.daemon.wait_for_log("a sync on demand failed").await;
    for _ in 0..3 {
        fixture.keeps_up().await;
    }
    watched.wait_until_ready("in sync").await;
    fixture.db.execute("DROP FUNCTION public.refuse CASCADE").await;
    let banned = format!("SELECT count(*) FROM clerk.users WHERE banned AND id = '{id}'");
    eventually("it is tried again", async || fixture.db.number(&banned).await == 1).await;
    let ran = watched.daemon.stop(Signal::TERM).await;
    assert_eq!(
        (ran.code, ran.stderr.matches("ERROR").count()),
        (Some(0), 0),
        "{ran:#?}"
    );
}

/// Forwards a request and returns the response unchanged.
fn forward(address: &str, head: &str) -> Vec<u8> {
    tokio::task::block_in_place(|| {
        let mut stream = TcpStream::connect(address).unwrap();
        let head = head.replacen("\r\n", "\r\nconnection: close\r\n", 1);
        stream.write_all(head.as_bytes()).unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        bytes
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrapped_user_is_stored() {
    let fixture = Fixture::new(20).await;
    let address = fixture.sim.url().trim_start_matches("http://").to_owned();
    let wrapped = Arc::<Mutex<Option<(String, String)>>>::default();
    let by_id = wrapped.clone();
    let clerk = Server::start(move |head| match &*by_id.lock().unwrap() {
        Some((id, document)) if head.starts_with(&format!("GET /v1/users/{id} ")) => {
            let body = format!(r#"{{"data":{document}}}"#);
            answer("200 OK", "content-type: application/json\r\n", body.as_bytes())
        }
        _ => forward(&address, head),
    })
    .await;
    let daemon = fixture
        .start_on_demand_with(&[("CLERK_API_URL", clerk.url.as_str())])
        .await;
    let new = fixture.sim.create_random();
    let document = fixture.sim.document(&new).unwrap().to_string();
    *wrapped.lock().unwrap() = Some((new.clone(), document));
    fixture.notify(&new).await;
    eventually("the user is in", async || fixture.has_user(&new).await).await;
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
    fixture.assert_in_sync().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_answered_with_another_user_delays_nobody() {
    const WRONG: &str = "GET /v1/users/user_wrong";
    let fixture = Fixture::new(40).await;
    let stranger = fixture.sim.document(&fixture.sim.user_ids()[0]).unwrap().to_string();
    let address = fixture.sim.url().trim_start_matches("http://").to_owned();
    let clerk = Server::start(move |head| match head.starts_with(WRONG) {
        true => answer("200 OK", "content-type: application/json\r\n", stranger.as_bytes()),
        false => forward(&address, head),
    })
    .await;
    let tried = || clerk.requests().iter().filter(|head| head.starts_with(WRONG)).count();
    let environment = [NEVER, EVERY_SECOND, ANY, DEBUG, ("CLERK_API_URL", clerk.url.as_str())];
    let watched = MonitoredDaemon::new(fixture.start_daemon(&environment)).await;
    watched.wait_until_ready("in sync").await;
    watched.daemon.wait_for_log(LISTENING).await;
    fixture.notify("user_wrong").await;
    eventually("it is read", async || tried() > 0).await;
    for _ in 0..3 {
        fixture.keeps_up().await;
        let new = fixture.sim.create_random();
        fixture.notify(&new).await;
        within(SOON, "the new user", async || fixture.has_user(&new).await).await;
    }
    eventually("it is tried again", async || tried() >= 3).await;
    watched.wait_until_ready("in sync").await;
    let ran = watched.daemon.stop(Signal::TERM).await;
    assert_eq!(
        (ran.code, ran.stderr.matches("ERROR").count()),
        (Some(0), 0),
        "{ran:#?}"
    );
}
