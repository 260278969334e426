//! What all requests share.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;
use serde_json::Value;
use tokio::sync::watch;

use crate::document::Entry;
use crate::faults::Faults;
use crate::generate;
use crate::limit::{Limiter, RateLimit};
use crate::stats::Stats;
use crate::store::Store;

/// How a simulator is set up.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many users there are at the start.
    pub users: usize,
    /// Which users they are: the same seed gives the same ones.
    pub seed: u64,
    /// Where to listen, on 127.0.0.1; 0 takes a free port.
    pub port: u16,
    /// The rate limit.
    pub rate_limit: RateLimit,
    /// How much longer every answer under `/v1` takes.
    pub latency: Duration,
    /// How many changes happen by themselves in a second.
    pub churn: Option<f64>,
    /// The secret key that is accepted.
    pub secret_key: String,
    /// The id of the instance; derived from the seed when empty.
    pub instance_id: String,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            users: 100,
            seed: 1,
            port: 0,
            rate_limit: RateLimit::Off,
            latency: Duration::ZERO,
            churn: None,
            secret_key: "sk_test_clerk_sim".to_owned(),
            instance_id: String::new(),
        }
    }
}

pub(crate) struct State {
    pub(crate) options: Options,
    pub(crate) churn: watch::Sender<Option<f64>>,
    store: RwLock<Store>,
    faults: Mutex<Faults>,
    limiter: Mutex<Limiter>,
    stats: Mutex<Stats>,
    dice: Mutex<ChaCha8Rng>,
    noise: Mutex<ChaCha8Rng>,
    next_user: AtomicU64,
}

/// Unix milliseconds.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// A panic elsewhere, in a closure of the caller's perhaps, must not take the simulator down: each change is made in one piece.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    pub(crate) fn new(mut options: Options) -> Self {
        if options.instance_id.is_empty() {
            options.instance_id = generate::instance_id(options.seed);
        }
        Self {
            store: RwLock::new(generate::store(options.seed, options.users, now())),
            faults: Mutex::default(),
            limiter: Mutex::new(Limiter::new(options.rate_limit)),
            stats: Mutex::default(),
            dice: Mutex::new(ChaCha8Rng::seed_from_u64(options.seed)),
            noise: Mutex::new(ChaCha8Rng::seed_from_u64(!options.seed)),
            next_user: AtomicU64::new(options.users as u64),
            churn: watch::Sender::new(options.churn),
            options,
        }
    }

    pub(crate) fn read(&self) -> RwLockReadGuard<'_, Store> {
        self.store.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, Store> {
        self.store.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn faults(&self) -> MutexGuard<'_, Faults> {
        lock(&self.faults)
    }

    pub(crate) fn limiter(&self) -> MutexGuard<'_, Limiter> {
        lock(&self.limiter)
    }

    pub(crate) fn stats(&self) -> MutexGuard<'_, Stats> {
        lock(&self.stats)
    }

    /// Decides what happens to users.
    pub(crate) fn dice(&self) -> MutexGuard<'_, ChaCha8Rng> {
        lock(&self.dice)
    }

    /// Decides what happens to requests: apart from the dice, so that requests do not change what becomes of users.
    pub(crate) fn noise(&self) -> MutexGuard<'_, ChaCha8Rng> {
        lock(&self.noise)
    }

    /// The number of the next user to be generated.
    pub(crate) fn next_user(&self) -> u64 {
        self.next_user.fetch_add(1, Ordering::Relaxed)
    }
}

/// Whether an edit moves `updated_at`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Touch {
    /// To now, unless the edit itself moved it.
    Updated,
    /// No.
    Silent,
}

/// Changes a document in place; false where there is none that can be edited.
pub(crate) fn edit(store: &mut Store, id: &str, touch: Touch, change: impl FnOnce(&mut Value)) -> bool {
    let now = now();
    let Some(old) = store.get(id).cloned() else {
        return false;
    };
    let Some(mut document) = old.value(now) else {
        return false;
    };
    let lock = |document: &Value| {
        (
            document.get("locked").cloned(),
            document.get("lockout_expires_in_seconds").cloned(),
        )
    };
    let (updated_at, locked) = (document.get("updated_at").cloned(), lock(&document));
    change(&mut document);
    if touch == Touch::Updated
        && document.get("updated_at") == updated_at.as_ref()
        && let Some(user) = document.as_object_mut()
    {
        user.insert("updated_at".to_owned(), now.into());
    }
    let lock_ends_at = match lock(&document) {
        same if same == locked => old.lock_ends_at(),
        (Some(Value::Bool(true)), Some(Value::Number(seconds))) => seconds.as_i64().map(|seconds| now + seconds * 1000),
        _ => None,
    };
    let mut entry = Entry::new(id, &document, lock_ends_at).odd(old.oddity);
    if document.get("created_at").and_then(Value::as_i64).is_none() {
        entry.created_at = old.created_at;
    }
    store.put(entry, now);
    true
}
