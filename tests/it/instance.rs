//! One database mirrors one Clerk instance, whatever `/v1/instance` returns.

use clerk_sim::{Effect, Endpoint, ErrorAnswer, ErrorBody, Options, Quirks, Rule, Sim};
use rustix::process::Signal;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use crate::support::{
    fixture::{Fixture, mirrored, mirrored_ids},
    http_server::{Server, answer},
    process::{EVERY_SECOND, NEVER},
    proxy::upstream,
    summary::{Exit, changed, held, in_sync, incomplete},
    wait::eventually,
};

/// An address whose server can be replaced.
struct Switch {
    url: String,
    to: Arc<Mutex<SocketAddr>>,
    _accepting: JoinSet<()>,
}

impl Switch {
    async fn new(url: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = format!("http://{}", listener.local_addr().unwrap());
        let to = Arc::new(Mutex::new(upstream(url)));
        let mut accepting = JoinSet::new();
        let leads = to.clone();
        accepting.spawn(async move {
            loop {
                let (mut client, _) = listener.accept().await.unwrap();
                let leads = leads.clone();
                tokio::spawn(async move {
                    let to = *leads.lock().unwrap();
                    let mut server = TcpStream::connect(to).await.unwrap();
                    let is_exchanged = async {
                        while *leads.lock().unwrap() == to {
                            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
                        }
                    };
                    // Open connections end when the server is replaced.
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
                        () = is_exchanged => {}
                    }
                });
            }
        });
        Self {
            url: own,
            to,
            _accepting: accepting,
        }
    }

    fn lead_to(&self, url: &str) {
        *self.to.lock().unwrap() = upstream(url);
    }
}

fn instance_error(status: u16) -> Rule {
    let error = ErrorAnswer {
        status,
        retry_after: None,
        body: ErrorBody::Json,
    };
    Rule::new(Effect::Error(error)).on([Endpoint::Instance])
}

async fn other(fixture: &Fixture, users: usize) -> Sim {
    Sim::start(Options {
        users,
        seed: 2,
        secret_key: fixture.sim.secret_key().to_owned(),
        ..Options::default()
    })
    .await
    .unwrap()
}

const IMPATIENT: (&str, &str) = ("CLERK2PG_CLERK__TIMEOUT", "1s");

#[tokio::test(flavor = "multi_thread")]
async fn without_an_instance_users_are_synced_and_none_deleted() {
    let fixture = mirrored(20).await;
    let gone = fixture.sim.user_ids()[3].clone();
    assert!(fixture.sim.delete(&gone));
    let new = fixture.sim.create_random();
    fixture.sim.set_faults(instance_error(500));
    let ran = fixture.once_with(&[IMPATIENT]).await;
    ran.assert(Exit::Failed, incomplete().created(1).unchanged(19));
    let why = "deletions wait until Clerk says which instance this is";
    assert!(ran.json()["error"].as_str().unwrap().contains(why), "{ran:#?}");
    assert!(fixture.has_user(&gone).await && fixture.has_user(&new).await);

    // A daemon that starts meanwhile mirrors changes, and deletes once the instance is known.
    let daemon = fixture.start_daemon(&[NEVER, EVERY_SECOND, IMPATIENT]);
    let new = fixture.sim.create_random();
    eventually("the new user", async || fixture.has_user(&new).await).await;
    assert!(fixture.has_user(&gone).await, "{}", daemon.log());
    fixture.sim.clear_faults();
    eventually("the deleted one goes", async || !fixture.has_user(&gone).await).await;
    fixture.assert_in_sync().await;
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clerk_that_stops_naming_its_instance_is_recognized_by_its_users() {
    let fixture = mirrored(20).await;
    let missing = Quirks {
        missing_instance: true,
        ..Quirks::default()
    };
    fixture.sim.set_faults(missing.clone());
    let new = fixture.sim.create_random();
    fixture
        .once()
        .await
        .assert(Exit::Ok, changed().created(1).unchanged(20));
    assert!(fixture.has_user(&new).await);
    // A server without any of the users is another instance.
    let other = other(&fixture, 4).await;
    other.set_faults(missing);
    let ran = fixture.run_with(&["--once"], &[("CLERK_API_URL", &other.url())]).await;
    ran.assert_exit(Exit::Failed);
    assert!(ran.stderr.contains("mirrors the Clerk instance"), "{ran:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_instance_behind_the_same_address_changes_nothing() {
    let fixture = Fixture::new(9).await;
    let other = other(&fixture, 4).await;
    let switch = Switch::new(&fixture.sim.url()).await;
    let daemon = fixture.start_daemon(&[NEVER, EVERY_SECOND, ("CLERK_API_URL", &switch.url)]);
    eventually("the first full sync", async || {
        fixture.runs("outcome = 'changed'").await == 1
    })
    .await;
    fixture.age_rows().await;
    let before = mirrored_ids(&fixture).await;
    switch.lead_to(&other.url());
    // Only the count is wrong: all users of the mirror seem deleted.
    daemon.wait_for_log("this database mirrors the Clerk instance").await;
    assert!(mirrored_ids(&fixture).await.is_superset(&before), "{}", daemon.log());
    switch.lead_to(&fixture.sim.url());
    let new = fixture.sim.create_random();
    daemon.signal(Signal::USR1);
    eventually("the mirrored instance is followed again", async || {
        fixture.has_user(&new).await
    })
    .await;
    assert!(mirrored_ids(&fixture).await.is_superset(&before), "{}", daemon.log());
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_404_at_the_first_sync_pins_no_address() {
    let fixture = Fixture::new(12).await;
    fixture.sim.set_faults(instance_error(404).next(1));
    fixture.once().await.assert(Exit::Ok, changed().created(12));
    let pinned = "SELECT instance_id FROM clerk.sync_state";
    assert_eq!(
        fixture.db.text(pinned).await.as_deref(),
        Some(fixture.sim.instance_id())
    );
    fixture.sim.set_faults(instance_error(404).next(1));
    fixture.once().await.assert(Exit::Ok, in_sync().unchanged(12));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_names_two_instances_pins_neither() {
    let asked = Arc::new(Mutex::new(0));
    let server = Server::start(move |head| {
        let path = head.split([' ', '?']).nth(1).unwrap();
        let body = match path {
            "/v1/instance" => {
                let mut asked = asked.lock().unwrap();
                *asked += 1;
                format!(
                    r#"{{"object":"instance","id":"ins_{}","environment_type":"production"}}"#,
                    *asked % 2
                )
            }
            "/v1/users/count" => r#"{"object":"total_count","total_count":1}"#.to_owned(),
            _ => {
                r#"[{"id":"user_a","object":"user","created_at":1600000000000,"updated_at":1600000000000}]"#.to_owned()
            }
        };
        answer("200 OK", "content-type: application/json\r\n", body.as_bytes())
    })
    .await;
    let fixture = Fixture::new(0).await;
    let ran = fixture.once_with(&[("CLERK_API_URL", &server.url)]).await;
    ran.assert_exit(Exit::Failed);
    assert!(
        ran.json()["error"].as_str().unwrap().contains("ins_1, then ins_0"),
        "{ran:#?}"
    );
    let pinned = "SELECT instance_id FROM clerk.sync_state";
    assert_eq!(fixture.db.text(pinned).await, None);
    assert_eq!(fixture.users().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_repin_every_row_waits_for_its_user() {
    let fixture = Fixture::new(12).await;
    fixture.sim.set_faults(Quirks {
        missing_instance: true,
        ..Quirks::default()
    });
    fixture.once().await.assert_exit(Exit::Ok);
    fixture.sim.clear_faults();
    let id = fixture.sim.instance_id().to_owned();
    // The same users, from a server that names its instance now.
    let ran = fixture.once().await;
    ran.assert_exit(Exit::Failed);
    assert!(ran.stderr.contains(&format!("clerk2pg repin {id}")), "{ran:#?}");
    let shown = fixture.run(&["repin"]).await;
    shown.assert_exit(Exit::Failed);
    assert!(shown.stderr.contains(&format!("clerk2pg repin {id}")), "{shown:#?}");
    fixture.run(&["repin", "ins_other"]).await.assert_exit(Exit::Failed);
    let repinned = fixture.run(&["repin", &id]).await;
    repinned.assert_exit(Exit::Ok);
    assert!(repinned.stdout.contains("12 rows are held"), "{repinned:#?}");
    fixture.once().await.assert(Exit::Ok, in_sync().unchanged(12));
    fixture.run(&["repin", &id]).await.assert_exit(Exit::Ok);

    // Another instance: its users are created, and all others are held, however few they are.
    let other = other(&fixture, 4).await;
    let there = [("CLERK_API_URL", other.url())];
    let there: Vec<(&str, &str)> = there.iter().map(|(name, url)| (*name, url.as_str())).collect();
    let repinned = fixture.run_with(&["repin", other.instance_id()], &there).await;
    repinned.assert_exit(Exit::Ok);
    fixture.once_with(&there).await.assert(Exit::Held, held(12).created(4));
}
