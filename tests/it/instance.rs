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
    fixture::{World, mirrored, mirrored_ids},
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

async fn other(world: &World, users: usize) -> Sim {
    Sim::start(Options {
        users,
        seed: 2,
        secret_key: world.sim.secret_key().to_owned(),
        ..Options::default()
    })
    .await
    .unwrap()
}

const IMPATIENT: (&str, &str) = ("CLERK2PG_CLERK__TIMEOUT", "500ms");

#[tokio::test(flavor = "multi_thread")]
async fn without_an_instance_users_are_synced_and_none_deleted() {
    let world = mirrored(20).await;
    let gone = world.sim.user_ids()[3].clone();
    assert!(world.sim.delete(&gone));
    let new = world.sim.create_random();
    world.sim.set_faults(instance_error(500));
    let ran = world.once_with(&[IMPATIENT]).await;
    ran.assert(Exit::Failed, incomplete().created(1).unchanged(19));
    let why = "deletions wait until Clerk says which instance this is";
    assert!(ran.json()["error"].as_str().unwrap().contains(why), "{ran:#?}");
    assert!(world.has_user(&gone).await && world.has_user(&new).await);

    // A daemon that starts meanwhile mirrors changes, and deletes once the instance is known.
    let daemon = world.start_daemon(&[NEVER, EVERY_SECOND, IMPATIENT]);
    let new = world.sim.create_random();
    eventually("the new user", async || world.has_user(&new).await).await;
    assert!(world.has_user(&gone).await, "{}", daemon.log());
    world.sim.clear_faults();
    eventually("the deleted one goes", async || !world.has_user(&gone).await).await;
    world.assert_in_sync().await;
    assert_eq!(daemon.stop(Signal::TERM).await.code, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clerk_that_stops_naming_its_instance_is_recognized_by_its_users() {
    let world = mirrored(20).await;
    let missing = Quirks {
        missing_instance: true,
        ..Quirks::default()
    };
    world.sim.set_faults(missing.clone());
    let new = world.sim.create_random();
    world.once().await.assert(Exit::Ok, changed().created(1).unchanged(20));
    assert!(world.has_user(&new).await);
    // A server without any of the users is another instance.
    let other = other(&world, 4).await;
    other.set_faults(missing);
    let ran = world.run_with(&["--once"], &[("CLERK_API_URL", &other.url())]).await;
    assert_eq!(ran.code, Some(1), "{ran:#?}");
    assert!(ran.stderr.contains("mirrors the Clerk instance"), "{ran:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_instance_behind_the_same_address_changes_nothing() {
    let world = World::new(9).await;
    let other = other(&world, 4).await;
    let switch = Switch::new(&world.sim.url()).await;
    let daemon = world.start_daemon(&[NEVER, EVERY_SECOND, ("CLERK_API_URL", &switch.url)]);
    eventually("the first full sync", async || {
        world.runs("outcome = 'changed'").await == 1
    })
    .await;
    world.age_rows().await;
    let before = mirrored_ids(&world).await;
    switch.lead_to(&other.url());
    // Only the count is wrong: all users of the mirror seem deleted.
    daemon.wait_for_log("this database mirrors the Clerk instance").await;
    assert!(mirrored_ids(&world).await.is_superset(&before), "{}", daemon.log());
    switch.lead_to(&world.sim.url());
    let new = world.sim.create_random();
    daemon.signal(Signal::USR1);
    eventually("the mirrored instance is followed again", async || {
        world.has_user(&new).await
    })
    .await;
    assert!(mirrored_ids(&world).await.is_superset(&before), "{}", daemon.log());
    assert_eq!(daemon.stop(Signal::TERM).await.code, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_404_at_the_first_sync_pins_no_address() {
    let world = World::new(12).await;
    world.sim.set_faults(instance_error(404).next(1));
    world.once().await.assert(Exit::Ok, changed().created(12));
    let pinned = "SELECT instance_id FROM clerk.sync_state";
    assert_eq!(world.db.text(pinned).await.as_deref(), Some(world.sim.instance_id()));
    world.sim.set_faults(instance_error(404).next(1));
    world.once().await.assert(Exit::Ok, in_sync().unchanged(12));
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
    let world = World::new(0).await;
    let ran = world.once_with(&[("CLERK_API_URL", &server.url)]).await;
    assert_eq!(ran.code, Some(1), "{ran:#?}");
    assert!(
        ran.json()["error"].as_str().unwrap().contains("ins_1, then ins_0"),
        "{ran:#?}"
    );
    let pinned = "SELECT instance_id FROM clerk.sync_state";
    assert_eq!(world.db.text(pinned).await, None);
    assert_eq!(world.users().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_repin_every_row_waits_for_its_user() {
    let world = World::new(12).await;
    world.sim.set_faults(Quirks {
        missing_instance: true,
        ..Quirks::default()
    });
    assert_eq!(world.once().await.code, Some(0));
    world.sim.clear_faults();
    let id = world.sim.instance_id().to_owned();
    // The same users, from a server that names its instance now.
    let ran = world.once().await;
    assert_eq!(ran.code, Some(1), "{ran:#?}");
    assert!(ran.stderr.contains(&format!("clerk2pg repin {id}")), "{ran:#?}");
    let shown = world.run(&["repin"]).await;
    assert_eq!(shown.code, Some(1), "{shown:#?}");
    assert!(shown.stderr.contains(&format!("clerk2pg repin {id}")), "{shown:#?}");
    assert_eq!(world.run(&["repin", "ins_other"]).await.code, Some(1));
    let repinned = world.run(&["repin", &id]).await;
    assert_eq!(repinned.code, Some(0), "{repinned:#?}");
    assert!(repinned.stdout.contains("12 rows are held"), "{repinned:#?}");
    world.once().await.assert(Exit::Ok, in_sync().unchanged(12));
    assert_eq!(world.run(&["repin", &id]).await.code, Some(0));

    // Another instance: its users are created, and all others are held, however few they are.
    let other = other(&world, 4).await;
    let there = [("CLERK_API_URL", other.url())];
    let there: Vec<(&str, &str)> = there.iter().map(|(name, url)| (*name, url.as_str())).collect();
    let repinned = world.run_with(&["repin", other.instance_id()], &there).await;
    assert_eq!(repinned.code, Some(0), "{repinned:#?}");
    world.once_with(&there).await.assert(Exit::Held, held(12).created(4));
}
