//! An application that gets events at its endpoint, and misbehaves.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use fastrand::Rng;
use tokio::task::JoinSet;

use crate::{
    inbox::{Inbox, hash_of},
    support::{
        proxy::Proxy,
        receiver::{ReceivedEvent, Receiver, Reply, endpoint},
    },
};

/// A subscriber, with a network of its own.
pub struct Subscriber {
    pub name: &'static str,
    /// The step in which it is configured.
    pub joins_at: u64,
    /// Whether it begins with an event for each user of the mirror.
    pub starts_with_users: bool,
    concurrency: u32,
    network: Proxy,
    route: Arc<Mutex<Route>>,
    /// Stops when it is dropped.
    receiver: Receiver,
}

/// What answers requests.
struct Route {
    inbox: Inbox,
    mood: Mood,
    /// The part of the requests that it treats by its mood.
    share: f64,
    dice: Rng,
    /// Messages that are being worked on although the sender may have given up.
    late: JoinSet<()>,
}

/// How a subscriber treats what comes.
#[derive(Debug, Clone, Copy)]
enum Mood {
    /// It accepts everything at once.
    Good,
    /// It accepts everything, and answers after this time, which may be too late.
    Slow(Duration),
    /// It accepts everything after this time, when the sender has given up.
    CommitsLate(Duration),
    /// It never answers, and accepts half of it.
    Hangs,
    /// It answers 500.
    Fails,
    /// It refuses all events of some users with 400.
    RefusesUsers(u64),
    /// It answers 429 or 503, and asks for a pause of so many seconds.
    Throttles(u64),
    /// It closes the connection.
    Closes,
    /// It accepts everything, and closes the connection before the answer.
    AcceptsAndCloses,
    /// It sends half a body after 200, or after 500.
    HalfBodies,
}

/// What a subscriber does whose messages arrive later than they were sent.
pub const HELD_BACK: &str = "endpoints whose packets are held back";

/// One of so many users is refused.
const REFUSED: u64 = 6;

impl Subscriber {
    /// A subscriber that is configured in this step.
    pub async fn start(name: &'static str, joins_at: u64, starts_with_users: bool, dice: &mut Rng) -> Self {
        let route = Arc::new(Mutex::new(Route {
            inbox: Inbox::new(),
            mood: Mood::Good,
            share: 0.0,
            dice: Rng::with_seed(dice.u64(..)),
            late: JoinSet::new(),
        }));
        let answering = route.clone();
        let answer = move |message: &ReceivedEvent| lock(&answering).answer(message, &answering);
        let receiver = Receiver::without_log(answer).await;
        Self {
            name,
            joins_at,
            starts_with_users,
            concurrency: dice.u32(1..=8),
            network: Proxy::open(receiver.address),
            route,
            receiver,
        }
    }

    /// Returns its entry of `[[endpoints]]`.
    pub fn entry(&self) -> String {
        let start = if self.starts_with_users { "everything" } else { "now" };
        let concurrency = self.concurrency;
        let entry = endpoint(self.name, &self.network.url(&self.receiver.url()));
        format!("{entry}start = {start:?}\nconcurrency = {concurrency}\ntimeout = \"1s\"\nevents = [\"user.*\"]\n")
    }

    /// Changes how it behaves. Returns what it does.
    pub async fn misbehaves(&mut self, dice: &mut Rng) -> &'static str {
        self.network.open_again();
        let (what, mood) = match dice.u32(0..18) {
            0..4 => ("endpoints that work", Mood::Good),
            4 | 5 => {
                let delay = Duration::from_millis(dice.u64(20..1300));
                ("endpoints that are slow", Mood::Slow(delay))
            }
            6 | 16 => {
                let delay = Duration::from_millis(dice.u64(1100..4000));
                ("endpoints that commit late", Mood::CommitsLate(delay))
            }
            17 => ("endpoints that hang", Mood::Hangs),
            7 => ("endpoints that answer 500", Mood::Fails),
            8 | 9 => {
                let which = dice.u64(0..REFUSED);
                ("endpoints that refuse some users", Mood::RefusesUsers(which))
            }
            10 => {
                let seconds = dice.u64(0..4);
                ("endpoints that ask for a pause", Mood::Throttles(seconds))
            }
            11 => ("endpoints that close connections", Mood::Closes),
            12 => ("endpoints that accept and close connections", Mood::AcceptsAndCloses),
            13 => ("endpoints that send half a body", Mood::HalfBodies),
            14 => {
                self.network.refuse().await;
                ("endpoints that are down", Mood::Good)
            }
            _ => {
                self.network.hold();
                (HELD_BACK, Mood::Good)
            }
        };
        let mut route = lock(&self.route);
        route.mood = mood;
        route.share = *dice.choice(&[0.2, 0.5, 1.0, 1.0]).unwrap();
        what
    }

    /// Accepts everything from now on.
    pub fn behaves(&mut self) {
        self.network.open_again();
        lock(&self.route).mood = Mood::Good;
    }

    /// Waits until it works on nothing.
    pub async fn settles(&self) {
        let mut late = std::mem::take(&mut lock(&self.route).late);
        while let Some(done) = late.join_next().await {
            done.unwrap();
        }
    }

    /// Looks into what it has accepted.
    pub fn inbox<T>(&self, look: impl FnOnce(&Inbox) -> T) -> T {
        look(&lock(&self.route).inbox)
    }
}

impl Route {
    /// Answers a message that came to `this`.
    fn answer(&mut self, message: &ReceivedEvent, this: &Arc<Mutex<Self>>) -> Reply {
        let Some(event) = self.inbox.read(message) else {
            return Reply::status(400);
        };
        let mood = match self.mood {
            Mood::RefusesUsers(_) => self.mood,
            mood if self.dice.f64() < self.share => mood,
            _ => Mood::Good,
        };
        let (accepts, reply) = match mood {
            Mood::Good => (true, Reply::ok()),
            Mood::Slow(delay) => (true, Reply::ok().after(delay)),
            Mood::CommitsLate(delay) => {
                let (this, event) = (this.clone(), event.clone());
                self.inbox.arrives(&event);
                self.late.spawn(async move {
                    tokio::time::sleep(delay).await;
                    lock(&this).inbox.accept(event);
                });
                while self.late.try_join_next().is_some() {}
                (false, Reply::hang())
            }
            Mood::Hangs => (self.dice.bool(), Reply::hang()),
            Mood::Fails => (false, Reply::status(500)),
            Mood::RefusesUsers(which) => match hash_of(&event.user) % REFUSED == which {
                true => (false, Reply::status(400)),
                false => (true, Reply::ok()),
            },
            Mood::Throttles(seconds) => {
                let status = *self.dice.choice(&[429, 503]).unwrap();
                (false, Reply::status(status).header("retry-after", seconds))
            }
            Mood::Closes => (false, Reply::close()),
            Mood::AcceptsAndCloses => (true, Reply::close()),
            Mood::HalfBodies => match self.dice.bool() {
                true => (true, Reply::ok().half_body()),
                false => (false, Reply::status(500).half_body()),
            },
        };
        if accepts {
            self.inbox.arrives(&event);
            self.inbox.accept(event);
        }
        reply
    }
}

fn lock(route: &Mutex<Route>) -> MutexGuard<'_, Route> {
    route.lock().unwrap_or_else(PoisonError::into_inner)
}
