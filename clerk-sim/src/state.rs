//! The state that all requests share.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;
use tokio::sync::watch;

use crate::faults::Faults;
use crate::limit::{Limiter, RateLimit};
use crate::stats::Stats;
use crate::store::Store;

/// The settings of a simulator.
#[derive(Clone, Debug)]
pub struct Options {
    /// The number of users at the start.
    pub users: usize,
    /// The seed of the users: the same seed gives the same users.
    pub seed: u64,
    /// The port to listen on, on 127.0.0.1. 0 takes a free port.
    pub port: u16,
    /// The rate limit.
    pub rate_limit: RateLimit,
    /// The latency that is added to each answer under `/v1`.
    pub latency: Duration,
    /// Random changes per second. `None` if there are none.
    pub churn: Option<f64>,
    /// The secret key that is accepted.
    pub secret_key: String,
    /// The id of the instance. If empty, it is derived from the seed.
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

/// The state of a simulator.
pub(crate) struct State {
    pub(crate) options: Options,
    pub(crate) churn: watch::Sender<Option<f64>>,
    store: RwLock<Store>,
    faults: Mutex<Faults>,
    limiter: Mutex<Limiter>,
    stats: Mutex<Stats>,
    data_rng: Mutex<ChaCha8Rng>,
    request_rng: Mutex<ChaCha8Rng>,
    next_user: AtomicU64,
}

/// Locks a mutex, also after a panic elsewhere, such as in a closure of the caller.
///
/// Each change is made in one piece, so what the mutex holds is whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    /// The state of a simulator with these users.
    pub(crate) fn new(options: Options, store: Store) -> Self {
        Self {
            store: RwLock::new(store),
            faults: Mutex::default(),
            limiter: Mutex::new(Limiter::new(options.rate_limit)),
            stats: Mutex::default(),
            data_rng: Mutex::new(ChaCha8Rng::seed_from_u64(options.seed)),
            request_rng: Mutex::new(ChaCha8Rng::seed_from_u64(!options.seed)),
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

    /// The random numbers that decide what happens to users.
    pub(crate) fn data_rng(&self) -> MutexGuard<'_, ChaCha8Rng> {
        lock(&self.data_rng)
    }

    /// The random numbers that decide what happens to requests.
    ///
    /// They are separate, so that requests do not change what happens to users.
    pub(crate) fn request_rng(&self) -> MutexGuard<'_, ChaCha8Rng> {
        lock(&self.request_rng)
    }

    /// The number of the next user to be generated.
    pub(crate) fn next_user(&self) -> u64 {
        self.next_user.fetch_add(1, Ordering::Relaxed)
    }
}
