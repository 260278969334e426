//! The status page in a browser: in each state, axe finds nothing, nothing is too wide for a phone,
//! and a keyboard reaches everything.

use std::{path::PathBuf, time::Duration};

use clerk_sim::{Effect, Endpoint, OrganizationOptions, Rule, Unstorable};
use clerk2pg::{
    mirror::{Mirror, MirrorSettings, SyncKind},
    resource::USERS,
    watch::{
        Condition, View,
        page::{MirrorReport, Page, ProcessReport, policy, render},
    },
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::support::{
    app_table::AppTable,
    fixture::{Fixture, mirrored},
    monitored::{ANY, MonitoredDaemon},
    node_app::NodeApp,
    organizations::company,
    process::{EVERY_SECOND, NEVER},
    proxy::{Proxy, upstream},
    receiver::{Receiver, endpoint},
    wait::eventually,
};

/// Where a browser that tests can drive may be.
const BROWSERS: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// A folder for screenshots, if somebody wants to look at the states.
const SCREENSHOTS: &str = "STATUS_PAGE_SCREENSHOTS";

/// Returns the browser.
fn chromium() -> PathBuf {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&folders)
        .flat_map(|folder| BROWSERS.map(|name| folder.join(name)))
        .find(|path| path.is_file());
    found.expect("Chromium is missing, in which the status page is tested: as root, run apt-get install chromium")
}

/// A daemon whose page is in a state. What it works with lives as long.
struct State {
    name: &'static str,
    watched: MonitoredDaemon,
    fixture: Fixture,
    /// The rest of what it works with.
    _held: Vec<Box<dyn std::any::Any + Send>>,
}

impl State {
    fn new(name: &'static str, watched: MonitoredDaemon, fixture: Fixture) -> Self {
        Self {
            name,
            watched,
            fixture,
            _held: Vec::new(),
        }
    }

    /// Waits until the page has this headline and this text.
    async fn showing(self, headline: &str, text: &str) -> Self {
        let title = format!("<h1>{headline}</h1>");
        eventually(&format!("{title} {text}"), async || {
            let page = self.watched.get("/").await.body;
            page.contains(&title) && page.contains(text)
        })
        .await;
        self
    }

    /// What the browser opens.
    fn request(&self) -> Value {
        json!({"name": self.name, "url": format!("http://{}/", self.watched.address)})
    }
}

const SLOW: (&str, &str) = ("CLERK2PG_CLERK__TIMEOUT", "10m");

/// Clerk has not answered yet.
async fn fresh() -> State {
    let fixture = Fixture::new(5).await;
    fixture.sim.set_faults(Rule::new(Effect::Stall));
    let watched = MonitoredDaemon::start(&fixture, &[SLOW]).await;
    let state = State::new("fresh", watched, fixture);
    state.showing("No sync yet", "nothing is stored yet").await
}

/// Clerk answers some pages of the first full sync.
async fn importing() -> State {
    let fixture = Fixture::new(3_000).await;
    let stall = Rule::new(Effect::Stall).on([Endpoint::List]).skip(4);
    fixture.sim.set_faults(stall);
    let watched = MonitoredDaemon::start(&fixture, &[SLOW]).await;
    let state = State::new("importing", watched, fixture);
    state.showing("Importing", "of 3,000 users</p><progress ").await
}

/// Everything is mirrored, with organizations, tables and an endpoint, and users change.
async fn in_sync() -> State {
    let receiver = Receiver::start().await;
    let tables = "[[tables]]\nname = \"people\"\nkey = \"id\"\n[tables.set]\nname = \"u.first_name\"\n";
    let endpoint = format!(
        "{}start = \"everything\"\nevents = [\"user.*\"]",
        receiver.endpoint("app")
    );
    let company = company(40, OrganizationOptions::number(5)).await;
    let schema = "CREATE TABLE people (id text PRIMARY KEY, name text)";
    let app = AppTable::with_organizations(company, schema, &format!("{tables}{endpoint}")).await;
    let watched = MonitoredDaemon::new(app.start_daemon(&[NEVER, EVERY_SECOND, ANY])).await;
    watched.wait_until_ready("in sync").await;
    for _ in 0..5 {
        drop((app.fixture.sim.create_random(), app.fixture.sim.update_random()));
    }
    receiver.wait_for_accepted(45).await;
    let (fixture, directory) = app.into_parts();
    let mut state = State::new("in sync", watched, fixture);
    state._held.push(Box::new(receiver));
    state._held.push(Box::new(directory));
    state.showing("In sync", "<rect class=\"updated\"").await
}

/// Everything that can wait for a person does.
async fn held() -> State {
    let closed = Receiver::closed_address().await;
    let config = format!(
        "{}\n{}",
        "[[tables]]\nname = \"people\"\nkey = \"id\"\n[tables.set]\nname = \"u.first_name\"\n",
        endpoint("billing", &format!("http://{closed}/hooks"))
    );
    let fixture = mirrored(60).await;
    let ids = fixture.sim.user_ids();
    assert!(fixture.sim.update(&ids[30], |user| user["first_name"] = Value::Null));
    fixture.sim.insert_unstorable(Unstorable::ManyKeys);
    let schema = "CREATE TABLE people (id text PRIMARY KEY, name text NOT NULL); INSERT INTO people VALUES ('user_of_nobody', 'Eve')";
    let app = AppTable::with(fixture, schema, &config).await;
    let watched = MonitoredDaemon::new(app.start_daemon(&[NEVER, EVERY_SECOND, ANY])).await;
    watched.wait_until_ready("in sync").await;
    ids.iter().take(15).for_each(|id| assert!(app.fixture.sim.delete(id)));
    watched.wait_until_ready("in sync, but deletions are held").await;
    let dead = "INSERT INTO clerk.deliveries (endpoint, resource, object_id, event_id, attempts, dead_at, last_error)
        VALUES ('billing', 'users', 'user_a', 1, 8, now(), 'it answered 400')";
    app.fixture.db.execute(dead).await;
    assert!(
        app.fixture
            .sim
            .update(&ids[40], |user| user["last_name"] = "Lovelace".into())
    );
    let (fixture, directory) = app.into_parts();
    let mut state = State::new("held", watched, fixture);
    state._held.push(Box::new(directory));
    let paused = "<strong>The endpoint billing is paused for ";
    let state = state.showing("In sync, but 15 deletions are held", paused).await;
    let page = state.watched.get("/").await.body;
    for command in [
        "--dry-run<",
        "approve ",
        "status<",
        "send-test billing<",
        "endpoints<",
        "redeliver billing<",
    ] {
        assert!(page.contains(&format!("<code>clerk2pg {command}")), "{command}: {page}");
    }
    assert_eq!(page.matches("<code>clerk2pg approve ").count(), 2, "{page}");
    state
}

/// The database cannot be reached any more.
async fn failing() -> State {
    let fixture = mirrored(10).await;
    let mut postgres = Proxy::open(upstream(&fixture.db.url));
    let url = postgres.url(&fixture.db.url);
    let watched = MonitoredDaemon::start(&fixture, &[("DATABASE_URL", &url), EVERY_SECOND]).await;
    watched.wait_until_ready("in sync").await;
    postgres.refuse().await;
    watched.wait_until_not_ready("Postgres cannot be reached").await;
    let mut state = State::new("failing", watched, fixture);
    state._held.push(Box::new(postgres));
    state.showing("Failing", "run <code>clerk2pg check</code>").await
}

/// Another daemon has the lease.
async fn standby() -> State {
    let fixture = mirrored(10).await;
    let taken = "UPDATE clerk.sync_state SET lease_holder = 'other-host:1:5f3a', lease_epoch = lease_epoch + 1,
                     lease_ttl = '1 hour', lease_expires_at = now() + interval '1 hour'";
    fixture.db.execute(taken).await;
    let watched = MonitoredDaemon::start(&fixture, &[EVERY_SECOND]).await;
    let state = State::new("standby", watched, fixture);
    state
        .showing("Standing by", "other-host:1:5f3a is syncing this database")
        .await
}

/// Renders the page of a daemon that is late: a real one would need two minutes for that. The rest is
/// what the database of another state has.
async fn late(state: &State) -> Value {
    let settings = MirrorSettings {
        url: state.fixture.db.url.clone().into(),
        variables: [("PGSSLMODE".to_owned(), "disable".to_owned().into())].into(),
        max_connections: 1,
        application_name: "late",
        tables: Vec::new(),
    };
    let mirror = Mirror::new(&settings, &USERS).unwrap();
    let (overview, view) = (mirror.overview(), View::of_query(None));
    let page = Page {
        view,
        condition: Condition::Late {
            kind: SyncKind::Incremental,
            without_success: Duration::from_secs(185),
        },
        since_success: Some(Duration::from_secs(185)),
        progress: None,
        process: ProcessReport {
            holder: "host:1:0abc".to_owned(),
            started_at: chrono::Utc::now(),
            requests_per_second: 25.0,
            budget_used: 0.04,
            rate_limited: 3,
        },
        summary: Ok(overview.summary().await.unwrap()),
        report: Ok(MirrorReport {
            recent: overview.recent(15).await.unwrap(),
            activity: overview
                .activity(view.range.periods(), view.range.period())
                .await
                .unwrap(),
            resources: overview.resources().await.unwrap(),
            tables: Vec::new(),
            endpoints: mirror.deliveries().active().await.unwrap(),
            held: Vec::new(),
            rejections: Vec::new(),
        }),
    };
    let html = render(&page, "late").unwrap();
    assert!(html.contains("<h1>Late</h1>"), "{html}");
    let headers = json!({"content-type": "text/html; charset=utf-8", "content-security-policy": policy("late")});
    json!({"name": "late", "html": html, "headers": headers})
}

#[derive(Debug, Deserialize)]
struct Inspected {
    /// Pages times widths times colour schemes.
    checked: usize,
    problems: Vec<String>,
}

#[tokio::test(flavor = "multi_thread")]
async fn every_state_is_accessible_and_fits_a_phone() {
    let browser = chromium();
    let Some(app) = NodeApp::install_from("tests/it/browser").await else {
        return;
    };
    let (fresh, importing, in_sync, held, failing, standby) =
        tokio::join!(fresh(), importing(), in_sync(), held(), failing(), standby());
    let mut pages: Vec<Value> = [&fresh, &importing, &in_sync, &held, &failing, &standby]
        .map(State::request)
        .into();
    pages.push(late(&in_sync).await);
    for range in ["15m", "7d"] {
        let url = format!("http://{}/?range={range}", in_sync.watched.address);
        pages.push(json!({"name": format!("in sync {range}"), "url": url, "reloads": range == "7d"}));
    }
    let screenshots = std::env::var(SCREENSHOTS).ok();
    let mut arguments = vec![browser.to_str().unwrap()];
    arguments.extend(screenshots.as_deref());
    let input = serde_json::to_vec(&pages).unwrap();
    let output = app.answer("inspect.mjs", &arguments, &input).await;
    let inspected: Inspected = serde_json::from_slice(&output).unwrap();
    assert!(inspected.problems.is_empty(), "{:#?}", inspected.problems);
    assert_eq!(inspected.checked, 4 * pages.len());
}
