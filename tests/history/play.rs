//! One history from its seed to its end.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs,
    io::Write,
    ops::RangeInclusive,
    path::PathBuf,
    time::{Duration, Instant},
};

use clerk_sim::{Options, OrganizationOptions};
use fastrand::Rng;
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::{
    runtime::Handle,
    task::{JoinError, JoinSet, spawn_blocking},
};
use tokio_util::sync::CancellationToken;

use crate::{
    application,
    clerk::Clerk,
    faults, invariants, organizations,
    replica::Replica,
    server::Server,
    subscriber::Subscriber,
    subscriptions,
    support::{self, database::Database, fixture::Fixture, wait::within},
    tables::AppTable,
};

/// Steps of a history.
pub const STEPS: u64 = 60;

/// The configuration file, which has the endpoints.
const CONFIG: &str = "config.toml";

/// Makes the random numbers about endpoints others than those of the rest, which is the same with
/// and without endpoints.
const ENDPOINTS: u64 = 0x656e_6470_6f69_6e74;

/// The same for the random numbers about organizations.
const ORGANIZATIONS: u64 = 0x6f72_6761_6e69_7a65;

/// The same for the random numbers about tables of the application.
const TABLES: u64 = 0x7461_626c_6573;

/// The same for what the program has done before the first step.
const PAST: u64 = 0x7061_7374;

/// The largest list that is read again and again until the program gives it up.
const ENDLESS: RangeInclusive<usize> = 10..=120;

/// Users of the smallest instance that finds nobody by id for a while.
const FORGETFUL: usize = 20;

/// How long the second full sync waits. An answer confirms a deletion ten seconds after the row was
/// last written or, if the database's clock went back since, ten seconds after the first such
/// answer. The first sync after all faults may need either.
const COUNTS_AFTER: Duration = Duration::from_millis(10_500);

/// What determines a history.
#[derive(Clone, Debug)]
pub struct Story {
    pub seed: u64,
    /// The steps that are played. Each has its own random numbers, so that others can be left out.
    pub steps: BTreeSet<u64>,
}

impl Story {
    pub fn whole(seed: u64) -> Self {
        Self {
            seed,
            steps: (0..STEPS).collect(),
        }
    }
}

impl fmt::Display for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HISTORIES={}", self.seed)?;
        if (self.steps.len() as u64) < STEPS {
            let steps: Vec<_> = self.steps.iter().map(u64::to_string).collect();
            write!(f, " STEPS={}", steps.join(","))?;
        }
        Ok(())
    }
}

/// Faults and changes, and how often each happened.
pub type Tried = BTreeMap<&'static str, u64>;

/// Plays a history on its own thread, as some of it blocks, until its end or until `stop`. An error is
/// a panic, which is printed already.
pub async fn play(story: Story, stop: &CancellationToken) -> Result<Tried, JoinError> {
    let (runtime, stop) = (Handle::current(), stop.clone());
    let played = spawn_blocking(move || runtime.block_on(stop.run_until_cancelled(played(story))));
    Ok(played.await?.unwrap_or_default())
}

async fn played(story: Story) -> Tried {
    let dice = &mut Rng::with_seed(story.seed);
    let users = *dice.choice(&[0, 1, 30, 200, 700]).unwrap();
    let replicas = *dice.choice(&[1, 1, 2, 3]).unwrap();
    let companies = &mut Rng::with_seed(story.seed ^ ORGANIZATIONS);
    let (organizations, population) = organizations::chosen(users, companies);
    let server = match dice.u32(0..4) {
        0 => Some(Server::start(if population > users { 512 } else { 64 }).await),
        _ => None,
    };
    // A full disk lets many changes collect: it would refuse hundreds of addresses, and each is
    // searched on its own.
    let wants_unique_addresses = server.is_none() && dice.u32(0..3) == 0;
    let has_organizations = organizations.enabled;
    let mut history = History::begin(story.seed, population, organizations, server).await;
    if has_organizations {
        history.has_organizations().await;
    }
    if population > users {
        *history.tried.entry("histories with 20,000 members").or_default() += 1;
    }
    if wants_unique_addresses {
        history.wants_unique_addresses().await;
    }
    // Small instances lose a large part of their users in a history, and all their deletions would
    // be held.
    history.is_guarded = users >= 200 && dice.bool();
    history.may_lag = !history.is_guarded || dice.bool();
    if history.may_lag && dice.u32(0..3) == 0 {
        faults::lags(&history.fixture.sim, dice);
        *history
            .tried
            .entry("histories with replicas that always lag behind")
            .or_default() += 1;
    }
    if Rng::with_seed(story.seed ^ TABLES).bool() {
        history.has_tables(has_organizations).await;
    }
    let endpoints = &mut Rng::with_seed(story.seed ^ ENDPOINTS);
    let subscribers = subscriptions::chosen(endpoints).await;
    history.has_subscribers(subscribers).await;
    let mass_deletion = history.is_guarded.then(|| dice.u64(0..STEPS / 2));
    // Requests in ten seconds.
    let budget = *dice.choice(&[1000, 250, 100, 100]).unwrap();
    let mut settings = settings(dice);
    if has_organizations {
        let (name, value) = support::organizations::ALL;
        settings.push((name, value.to_owned()));
    }
    history.starts(replicas, budget, settings).await;
    // The import of a crowd takes too long.
    let past = &mut Rng::with_seed(story.seed ^ PAST);
    if past.bool() && population == users {
        history.has_run_for_an_hour().await;
    }
    // With fewer faults, more syncs end well.
    let peace = *dice.choice(&[50, 75, 90]).unwrap();
    for step in story.steps {
        if mass_deletion == Some(step) {
            history.clerk.mass_deletion(dice, users * 2 / 5);
            *history.tried.entry("mass deletions").or_default() += 1;
        }
        let of_step = story.seed ^ (step + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let dice = &mut Rng::with_seed(of_step);
        if dice.u32(0..100) < peace {
            history.happens(dice);
        } else {
            history.breaks(dice).await;
        }
        history
            .subscribers_act(step, &mut Rng::with_seed(of_step ^ ENDPOINTS))
            .await;
        if has_organizations {
            history.organizations_act(&mut Rng::with_seed(of_step ^ ORGANIZATIONS));
            history.no_organization_was_deleted_wrongly().await;
        }
        history.tables_act(&mut Rng::with_seed(of_step ^ TABLES)).await;
        // Sometimes much happens within one sync, and sometimes syncs run between.
        let pause = *dice.choice(&[0, 5, 40, 150, 400]).unwrap();
        tokio::time::sleep(Duration::from_millis(pause)).await;
        history.no_user_was_deleted_wrongly().await;
    }
    // For a busy machine.
    let patience = Duration::from_secs(120);
    history.heals().await;
    history.syncs(patience, "a").await;
    if population == users && past.u32(0..3) == 0 && history.fixture.sim.user_ids().len() >= FORGETFUL {
        history.nobody_is_found_by_id(patience, past).await;
    }
    if ENDLESS.contains(&history.fixture.sim.user_ids().len()) {
        history.no_list_keeps_a_sync(patience).await;
    }
    history.nobody_waits_for_locks(dice).await;
    history.wait_for_next_sync(patience).await;
    history.delivers(patience, endpoints).await;
    if has_organizations {
        history.organizations_agree(patience).await;
    }
    history.tables_agree(patience).await;
    if has_organizations {
        history.long_lists_are_read_in_turn(patience).await;
    }
    history.ends().await
}

fn settings(dice: &mut Rng) -> Vec<(&'static str, String)> {
    let mode = if dice.u32(0..4) == 0 { "mark" } else { "delete" };
    vec![
        ("CLERK2PG_SCHEDULE__INCREMENTAL", "* * * * * *".to_owned()),
        ("CLERK2PG_SCHEDULE__FULL", "*/3 * * * * *".to_owned()),
        ("CLERK2PG_CLERK__TIMEOUT", "500ms".to_owned()),
        ("CLERK2PG_CLERK__CONCURRENCY", dice.u32(1..5).to_string()),
        ("CLERK2PG_DELETES__MODE", mode.to_owned()),
    ]
}

/// Clerk, a database, the program once or several times, and what happened to them.
pub struct History {
    pub seed: u64,
    pub clerk: Clerk,
    /// Ended before the database is dropped.
    pub replicas: Vec<Replica>,
    pub fixture: Fixture,
    /// The first `spared` replicas are never ended.
    pub spared: usize,
    /// Mass deletions are held, as by default.
    pub is_guarded: bool,
    /// Clerk's answers may show an older state, and then users whose deletion is held.
    pub may_lag: bool,
    /// Old rows: no lagging answer can be about their users, so that every answer by id counts.
    pub is_old: bool,
    /// Requests in ten seconds that each process may send.
    budget: u32,
    /// The settings of the processes.
    pub settings: Vec<(&'static str, String)>,
    pub tried: Tried,
    /// What goes on beside the steps.
    pub meanwhile: JoinSet<()>,
    /// The history's own server, if it has one. It is declared after `fixture`, whose database is
    /// dropped first.
    pub server: Option<Server>,
    pub subscribers: Vec<Subscriber>,
    /// Tables of the application that are kept in sync.
    pub tables: Vec<AppTable>,
    /// Has the configuration file.
    folder: TempDir,
}

impl History {
    pub async fn begin(seed: u64, users: usize, organizations: OrganizationOptions, server: Option<Server>) -> Self {
        let sim = clerk_sim::Sim::start(Options {
            users,
            seed,
            organizations,
            secret_key: "sk_live_test".to_owned(),
            ..Options::default()
        });
        let db = match &server {
            Some(server) => Database::on_server(server.address()).await,
            None => Database::new().await,
        };
        let fixture = Fixture {
            db,
            sim: sim.await.unwrap(),
        };
        let ran = fixture.run(&["migrate"]).await;
        assert_eq!(ran.code, Some(0), "{ran:#?}");
        application::uses_the_mirror(&fixture).await;
        invariants::watch(&fixture).await;
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(CONFIG), "").unwrap();
        Self {
            seed,
            clerk: Clerk::new(fixture.sim.clone()),
            fixture,
            replicas: Vec::new(),
            spared: 0,
            is_guarded: false,
            may_lag: true,
            is_old: false,
            budget: 0,
            settings: Vec::new(),
            tried: Tried::new(),
            meanwhile: JoinSet::new(),
            server,
            subscribers: Vec::new(),
            tables: Vec::new(),
            folder,
        }
    }

    /// Returns the path of the configuration file.
    pub fn config(&self) -> PathBuf {
        self.folder.path().join(CONFIG)
    }

    /// Replaces the configuration file, which processes may be reading: the entries of endpoints, beside
    /// those of tables.
    pub fn configures(&self, endpoints: &str) {
        let mut file = tempfile::NamedTempFile::new_in(&self.folder).unwrap();
        let tables: String = self.tables.iter().map(AppTable::entry).collect();
        file.write_all((endpoints.to_owned() + &tables).as_bytes()).unwrap();
        file.persist(self.config()).unwrap();
    }

    /// Declares addresses unique in the application.
    pub async fn wants_unique_addresses(&mut self) {
        application::wants_unique_addresses(&self.fixture).await;
        self.clerk.are_addresses_unique = true;
        *self.tried.entry("histories with unique addresses").or_default() += 1;
    }

    /// Starts some replicas of the program.
    pub async fn starts(&mut self, replicas: usize, budget: u32, mut settings: Vec<(&'static str, String)>) {
        self.budget = budget;
        settings.extend([
            (
                "CLERK2PG_CLERK__REQUEST_BUDGET",
                (f64::from(budget) / 1000.0).to_string(),
            ),
            ("CLERK2PG_EVENTS__INITIAL", "true".to_owned()),
        ]);
        if !self.is_guarded {
            settings.push(("CLERK2PG_DELETES__MIN_COUNT", "1000000".to_owned()));
        }
        self.settings.clone_from(&settings);
        for number in 0..replicas {
            let replica = Replica::start(
                &self.fixture,
                format!("replica{number}"),
                settings.clone(),
                self.config(),
            );
            self.replicas.push(replica);
        }
    }

    /// Makes one change at Clerk.
    pub fn happens(&mut self, dice: &mut Rng) {
        *self.tried.entry(self.clerk.happen(dice)).or_default() += 1;
    }

    /// The second full sync leaves the mirror equal to Clerk, except for held deletions, if it
    /// begins when Clerk's answers count. One more full sync follows an approval. Another one
    /// writes nothing.
    pub async fn wait_for_next_sync(&mut self, patience: Duration) {
        let seed = self.seed;
        self.syncs(patience, "the first").await;
        tokio::time::sleep(COUNTS_AFTER).await;
        self.syncs(patience, "the second").await;
        let held = invariants::held(&self.fixture).await;
        self.differs_by(&held).await;
        if !held.is_empty() {
            self.no_user_was_deleted_wrongly().await;
            if self.is_guarded {
                self.growth_releases_nobody(&held, patience).await;
            }
            self.is_approved().await;
            self.syncs(patience, "one after the approval").await;
            self.differs_by(&BTreeSet::new()).await;
        }
        let versions = self.fixture.db.versions().await;
        self.syncs(patience, "a quiet").await;
        assert!(
            self.fixture.db.versions().await == versions,
            "seed {seed}: a quiet sync wrote"
        );
    }

    /// Whether the mirror has no other users than these that Clerk has not, and equals Clerk
    /// otherwise.
    pub async fn differs_by(&self, left_over: &BTreeSet<String>) {
        let mut difference = invariants::difference(&self.fixture).await;
        difference.left_over.retain(|id| !left_over.contains(id));
        if self.clerk.are_addresses_unique && !left_over.is_empty() {
            // A held row keeps its address, which another user may have by now.
            let rejected = invariants::rejected(&self.fixture).await;
            difference.lost.retain(|id| !rejected.contains(id));
            difference.differing.retain(|id| !rejected.contains(id));
        }
        if !difference.is_none() {
            let logs: Vec<String> = self.replicas.iter().map(Replica::log).collect();
            let seed = self.seed;
            panic!(
                "seed {seed}: after two full syncs, with {} held: {difference:?}\n{}",
                left_over.len(),
                logs.join("\n---\n")
            );
        }
    }

    /// Waits for a full sync that begins after this moment, and reads everything.
    pub async fn syncs(&mut self, patience: Duration, which: &str) {
        self.ends_a_sync(patience, which, "outcome IN ('in_sync', 'changed', 'held')")
            .await;
    }

    /// Waits for a full sync that begins after this moment, and ends with such an outcome.
    pub async fn ends_a_sync(&mut self, patience: Duration, which: &str, outcome: &str) {
        let Self { fixture, replicas, .. } = self;
        let last = fixture
            .db
            .number("SELECT coalesce(max(id), 0) FROM clerk.sync_runs")
            .await;
        let whole = format!("resource = 'users' AND kind = 'full' AND id > {last} AND {outcome}");
        fixture.db.execute("NOTIFY clerk2pg, 'full'").await;
        let mut asked = Instant::now();
        within(
            patience,
            &format!("seed {}: {which} full sync", self.seed),
            async || {
                for replica in &mut *replicas {
                    replica.comes_back(fixture).await;
                    // This skips the pause after a fault.
                    if asked.elapsed() > Duration::from_secs(1) {
                        replica.is_told(Signal::USR1);
                    }
                }
                if asked.elapsed() > Duration::from_secs(1) {
                    asked = Instant::now();
                }
                fixture.runs(&whole).await > 0
            },
        )
        .await;
    }

    pub async fn no_user_was_deleted_wrongly(&self) {
        invariants::no_user_was_deleted_wrongly(&self.fixture, &self.clerk, self.may_lag, self.seed).await;
    }

    /// Asserts that no process ever exceeded its budget.
    pub fn budget_is_kept(&self) {
        invariants::budget_is_kept(&self.fixture, &self.replicas, self.budget, self.seed);
    }

    pub async fn ends(mut self) -> Tried {
        for replica in &mut self.replicas {
            replica.ends().await;
        }
        let (fixture, seed) = (&self.fixture, self.seed);
        self.no_user_was_deleted_wrongly().await;
        self.budget_is_kept();
        invariants::no_row_went_back_in_time(fixture, seed).await;
        invariants::only_lease_holders_wrote(fixture, &self.replicas, seed).await;
        invariants::counts_are_true(fixture, seed).await;
        invariants::events_add_up_to_the_mirror(fixture, seed).await;
        self.rows_were_written_with_their_users().await;
        self.counts_deliveries();
        let fixture = &self.fixture;
        for (condition, what) in [
            ("outcome <> 'failed'", "syncs"),
            ("outcome = 'failed'", "syncs that failed"),
        ] {
            let syncs = fixture.runs(condition).await;
            *self.tried.entry(what).or_default() += syncs.unsigned_abs();
        }
        let sql = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
        let deadlocks = fixture.db.number(sql).await;
        *self.tried.entry("deadlocks").or_default() += deadlocks.unsigned_abs();
        // Dropping a database waits for clients that have not authenticated yet, which must not
        // delay other histories.
        let Self {
            fixture, server, tried, ..
        } = self;
        spawn_blocking(|| drop((fixture, server))).await.unwrap();
        tried
    }
}
