//! The subscribers of a history: when they are configured, and what must have reached them in the
//! end.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use clerk2pg::deliver::body;
use fastrand::Rng;
use rustix::process::Signal;

use crate::{
    faults::{self, locked, patient},
    inbox::Disorder,
    invariants::{self, MIRROR, each},
    play::{History, STEPS},
    replica::Replica,
    subscriber::{HELD_BACK, Subscriber},
    support::fixture::Fixture,
};

/// Records where endpoints began, and the events that were ever dead.
const AUDIT: &str = "
    CREATE TABLE public.beginnings (endpoint text PRIMARY KEY, position bigint NOT NULL);
    CREATE TABLE public.deaths (endpoint text NOT NULL, user_id text NOT NULL, event_id bigint NOT NULL);
    CREATE FUNCTION public.note_beginning() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO public.beginnings VALUES (NEW.name, NEW.position);
        RETURN NULL;
    END $$;
    CREATE FUNCTION public.note_death() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO public.deaths VALUES (NEW.endpoint, NEW.object_id, NEW.event_id);
        RETURN NULL;
    END $$;
    CREATE TRIGGER note_beginning AFTER INSERT ON clerk.endpoints FOR EACH ROW EXECUTE FUNCTION public.note_beginning();
    CREATE TRIGGER note_death AFTER INSERT OR UPDATE ON clerk.deliveries FOR EACH ROW
        WHEN (NEW.dead_at IS NOT NULL) EXECUTE FUNCTION public.note_death()";

/// Makes late events due. It waits for no lock that a process holds, so that there is no deadlock.
const DUE: &str = "
    UPDATE clerk.deliveries AS d SET next_attempt_at = now()
    FROM (SELECT endpoint, resource, object_id, event_id FROM clerk.deliveries
          WHERE next_attempt_at > now() FOR UPDATE SKIP LOCKED) AS late
    WHERE (d.endpoint, d.resource, d.object_id, d.event_id) = (late.endpoint, late.resource, late.object_id, late.event_id)";

/// As if the hours had passed in which late events are tried again: the next attempt of some of
/// them is the last one.
const HOURS_PASS: &str = "
    UPDATE clerk.deliveries AS d SET attempts = 7, next_attempt_at = now()
    FROM (SELECT endpoint, resource, object_id, event_id FROM clerk.deliveries
          WHERE next_attempt_at > now() AND attempts > 0 AND random() < 0.3 FOR UPDATE SKIP LOCKED) AS late
    WHERE (d.endpoint, d.resource, d.object_id, d.event_id) = (late.endpoint, late.resource, late.object_id, late.event_id)";

/// Whether each endpoint has got everything that is not dead.
const DELIVERED: &str = "
    SELECT count(*) FROM public.beginnings AS b JOIN clerk.endpoints AS e ON e.name = b.endpoint
    WHERE e.removed_at IS NULL AND e.position >= (SELECT coalesce(max(id), 0) FROM clerk.events)
      AND NOT EXISTS (SELECT FROM clerk.deliveries AS d WHERE d.endpoint = e.name AND d.dead_at IS NULL)";

/// How many endpoints are configured.
const CONFIGURED: &str = "SELECT count(*) FROM clerk.endpoints WHERE removed_at IS NULL";

/// How long it may take until the leader has the configuration.
const JOINS_WITHIN: Duration = Duration::from_secs(3);

/// What is shown if something is not delivered.
const STATE: &str = "
    SELECT concat_ws(E'\\n', (SELECT max(id) FROM clerk.events), (SELECT json_agg(e) FROM clerk.endpoints AS e),
        (SELECT json_agg(d) FROM (SELECT * FROM clerk.deliveries WHERE dead_at IS NULL LIMIT 20) AS d))";

/// Returns up to two subscribers, chosen by the seed alone.
pub async fn chosen(dice: &mut Rng) -> Vec<Subscriber> {
    let mut subscribers = Vec::new();
    let count = *dice.choice(&[0, 1, 1, 2]).unwrap();
    for name in ["first", "second"].into_iter().take(count) {
        let joins_at = if dice.bool() { 0 } else { dice.u64(1..STEPS / 2) };
        let starts_with_users = dice.bool();
        subscribers.push(Subscriber::start(name, joins_at, starts_with_users, dice).await);
    }
    subscribers
}

impl History {
    /// Adds subscribers. Those that join at once are configured.
    pub async fn has_subscribers(&mut self, subscribers: Vec<Subscriber>) {
        self.fixture.db.execute(AUDIT).await;
        self.subscribers = subscribers;
        self.joins(0);
        let what = match self.subscribers.len() {
            0 => "histories without endpoints",
            1 => "histories with one endpoint",
            _ => "histories with two endpoints",
        };
        *self.tried.entry(what).or_default() += 1;
    }

    /// Configures the subscribers that join up to a step. The processes reload the configuration.
    pub fn joins(&mut self, step: u64) {
        if self.subscribers.iter().any(|subscriber| subscriber.joins_at <= step) {
            let joined = self.subscribers.iter();
            let joined = joined.filter(|subscriber| subscriber.joins_at <= step);
            self.configures(&joined.map(Subscriber::entry).collect::<String>());
            self.replicas.iter().for_each(|replica| replica.is_told(Signal::HUP));
        }
    }

    /// Lets subscribers join in a step, and misbehave.
    pub async fn subscribers_act(&mut self, step: u64, dice: &mut Rng) {
        if step > 0 && self.subscribers.iter().any(|subscriber| subscriber.joins_at == step) {
            self.joins(step);
        }
        for subscriber in &mut self.subscribers {
            if dice.u32(0..100) < 20 {
                *self.tried.entry(subscriber.misbehaves(dice).await).or_default() += 1;
            }
        }
        if self.subscribers.is_empty() {
            return;
        }
        let what = match dice.u32(0..100) {
            0..6 => {
                patient(&self.fixture.db.url)
                    .await
                    .batch_execute(HOURS_PASS)
                    .await
                    .unwrap();
                "hours that pass for late events"
            }
            6..12 => {
                patient(&self.fixture.db.url).await.batch_execute(DUE).await.unwrap();
                "late events made due"
            }
            12 | 13 => {
                let table = locked(dice.choice(&["clerk.endpoints", "clerk.deliveries"]).unwrap());
                let pause = Duration::from_millis(dice.u64(50..1500));
                let client = patient(&self.fixture.db.url).await;
                self.meanwhile
                    .spawn(faults::one_after_the_other(client, vec![table], pause));
                "tables of deliveries locked by the application"
            }
            _ => return,
        };
        *self.tried.entry(what).or_default() += 1;
    }

    /// Waits until everything is delivered, except for dead events. In some histories these are
    /// delivered again.
    pub async fn delivers(&mut self, patience: Duration, dice: &mut Rng) {
        self.wait_until_delivered(patience).await;
        let dead = self.fixture.db.number("SELECT count(*) FROM clerk.deliveries").await;
        *self.tried.entry("dead events").or_default() += dead.unsigned_abs();
        self.assert_delivered().await;
        if dead > 0 && dice.bool() {
            for subscriber in &self.subscribers {
                let ran = self.fixture.run(&["redeliver", subscriber.name]).await;
                assert_eq!(ran.code, Some(0), "seed {}: {ran:#?}", self.seed);
            }
            self.wait_until_delivered(patience).await;
            let dead = self.fixture.db.number("SELECT count(*) FROM clerk.deliveries").await;
            assert_eq!(dead, 0, "seed {}: events that died again", self.seed);
            self.assert_delivered().await;
            *self
                .tried
                .entry("histories whose dead events are delivered again")
                .or_default() += 1;
        }
    }

    async fn wait_until_delivered(&mut self, patience: Duration) {
        let count = i64::try_from(self.subscribers.len()).unwrap();
        let (mut moved, mut joined) = (Instant::now(), Instant::now());
        let mut fewest = i64::MAX;
        while self.fixture.db.number(DELIVERED).await != count {
            // Twenty thousand created events take a while.
            let late = "SELECT count(*) FROM clerk.deliveries WHERE dead_at IS NULL";
            let late = self.fixture.db.number(late).await;
            if late < fewest {
                (fewest, moved) = (late, Instant::now());
            }
            if moved.elapsed() > patience {
                let state = self.fixture.db.text(STATE).await.unwrap_or_default();
                let logs: Vec<String> = self.replicas.iter().map(Replica::log).collect();
                let (seed, logs) = (self.seed, logs.join("\n---\n"));
                panic!("seed {seed}: not everything is delivered: {state}\n{logs}");
            }
            // The step in which a subscriber joins may be left out, and a process that begins to
            // run misses the signal.
            if joined.elapsed() > JOINS_WITHIN && self.fixture.db.number(CONFIGURED).await < count {
                self.joins(STEPS);
                joined = Instant::now();
            }
            self.fixture.db.execute(DUE).await;
            for replica in &mut self.replicas {
                replica.comes_back(&self.fixture).await;
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        for subscriber in &self.subscribers {
            subscriber.settles().await;
        }
    }

    /// Asserts that each subscriber has got each event after its beginning, or that the event is
    /// dead and listed, and that its table equals the mirror.
    async fn assert_delivered(&self) {
        let (fixture, seed) = (&self.fixture, self.seed);
        let prefixes = self
            .subscribers
            .iter()
            .map(|subscriber| subscriber.inbox(|inbox| inbox.prefix().map(str::to_owned)));
        let prefixes: BTreeSet<String> = prefixes.flatten().collect();
        assert!(
            prefixes.len() <= 1,
            "seed {seed}: ids of one database begin with {prefixes:?}"
        );
        for subscriber in &self.subscribers {
            let deaths = deaths(fixture, subscriber.name).await;
            let name = subscriber.name;
            let touched = everything_reached(fixture, subscriber, seed).await;
            subscriber.inbox(|inbox| {
                assert!(inbox.wrong.is_empty(), "seed {seed}: {name}: {:?}", inbox.wrong);
                for user in &inbox.renamed {
                    assert!(
                        deaths.contains(&(user.clone(), 0)),
                        "seed {seed}: {name} got the first event of {user} under two ids"
                    );
                }
                for Disorder { user, number, after } in &inbox.disordered {
                    assert!(
                        deaths.contains(&(user.clone(), *number)),
                        "seed {seed}: {name} accepted the event {number} of {user} first after the event {after}"
                    );
                }
            });
            self.table_equals_the_mirror(subscriber, &touched, &deaths).await;
        }
    }

    async fn table_equals_the_mirror(
        &self,
        subscriber: &Subscriber,
        touched: &BTreeSet<String>,
        deaths: &BTreeSet<(String, i64)>,
    ) {
        let may_differ: BTreeSet<&String> = deaths.iter().map(|(user, _)| user).collect();
        let mut mirror = BTreeMap::new();
        each(&self.fixture, MIRROR, |row| {
            let (id, document) = (row.get::<_, String>(0), row.get::<_, &str>(1));
            if subscriber.starts_with_users || touched.contains(&id) {
                mirror.insert(id, invariants::hash(&body(document).unwrap()));
            }
        })
        .await;
        let is_mirror = |table: &BTreeMap<String, u64>, what: &str| {
            let mut difference = difference(table, &mirror);
            difference.retain(|user| !may_differ.contains(user));
            let (seed, name) = (self.seed, subscriber.name);
            assert!(
                difference.is_empty(),
                "seed {seed}: {what} of {name} is not the mirror: {difference:?}"
            );
        };
        subscriber.inbox(|inbox| is_mirror(&inbox.table, "the table"));
        // Without two processes, nothing is sent again after what follows it, and without a network
        // that holds packets back, nothing arrives after that.
        if self.replicas.len() == 1 && !self.tried.contains_key(HELD_BACK) {
            subscriber.inbox(|inbox| is_mirror(&inbox.forgetful_table, "the table of a forgetful handler"));
        }
    }

    /// Counts what the subscribers got.
    pub fn counts_deliveries(&mut self) {
        let clocks = self.tried.contains_key("jumps of the program's clock");
        for subscriber in &self.subscribers {
            let counts = subscriber.inbox(|inbox| {
                assert!(
                    clocks || inbox.untimely == 0,
                    "seed {}: messages with a wrong time, though no clock jumped",
                    self.seed
                );
                [
                    ("events accepted", inbox.accepted() as u64),
                    ("events accepted again", inbox.repeated),
                    ("events accepted again after a newer one", inbox.overtaken),
                    ("events refused for their time", inbox.untimely),
                    (
                        "users that a table shows wrong whose handler forgets the ids of events",
                        difference(&inbox.forgetful_table, &inbox.table).len() as u64,
                    ),
                ]
            });
            for (what, times) in counts {
                *self.tried.entry(what).or_default() += times;
            }
        }
    }
}

/// Returns the events that were ever dead: users and numbers.
async fn deaths(fixture: &Fixture, endpoint: &str) -> BTreeSet<(String, i64)> {
    let sql = "SELECT DISTINCT user_id, event_id FROM public.deaths WHERE endpoint = $1";
    let rows = fixture.db.client.query(sql, &[&endpoint]).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// Asserts that each event after the beginning was accepted, or is listed as dead, with its body,
/// and that there were no others. Returns the users that these events are about.
async fn everything_reached(fixture: &Fixture, subscriber: &Subscriber, seed: u64) -> BTreeSet<String> {
    let name = subscriber.name;
    let (mut touched, mut seen) = (BTreeSet::new(), 0);
    let sql = format!(
        // The endpoints get events about users only.
        "SELECT e.id, e.object_id, e.payload::text, d.dead_at IS NOT NULL FROM clerk.events AS e
         LEFT JOIN clerk.deliveries AS d ON d.endpoint = '{name}' AND d.event_id = e.id AND d.object_id = e.object_id
         WHERE e.resource = 'users' AND e.id > (SELECT position FROM public.beginnings WHERE endpoint = '{name}')"
    );
    each(fixture, &sql, |row| {
        let (id, user, payload, is_dead): (i64, String, &str, bool) = (row.get(0), row.get(1), row.get(2), row.get(3));
        let accepted = subscriber.inbox(|inbox| inbox.has_accepted(id, &body(payload).unwrap()));
        assert!(
            is_dead || accepted == Some(true),
            "seed {seed}: {name}: the event {id} about {user} was not accepted, and is not dead: {accepted:?}"
        );
        seen += usize::from(accepted.is_some());
        touched.insert(user);
    })
    .await;
    let numbered = subscriber.inbox(|inbox| inbox.numbered());
    assert_eq!(
        numbered, seen,
        "seed {seed}: {name}: events under other ids, or from before its beginning"
    );
    touched
}

/// Returns the users whose documents differ.
fn difference<'a>(one: &'a BTreeMap<String, u64>, other: &'a BTreeMap<String, u64>) -> BTreeSet<&'a String> {
    let ids = one.keys().chain(other.keys());
    ids.filter(|id| one.get(*id) != other.get(*id)).collect()
}
