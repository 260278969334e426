//! The state that all requests share.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;
use tokio::sync::watch;

use crate::faults::Faults;
use crate::limit::{Limiter, RateLimit};
use crate::organizations::options::OrganizationOptions;
use crate::stats::Stats;
use crate::stores::Stores;

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
    /// Random changes of users per second. `None` if there are none.
    pub churn: Option<f64>,
    /// The organizations. They are off by default.
    pub organizations: OrganizationOptions,
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
            organizations: OrganizationOptions::default(),
            secret_key: "sk_test_clerk_sim".to_owned(),
            instance_id: String::new(),
        }
    }
}

/// The state of a simulator.
pub(crate) struct State {
    pub(crate) options: Options,
    pub(crate) churn: watch::Sender<Option<f64>>,
    pub(crate) organization_churn: watch::Sender<Option<f64>>,
    organizations_enabled: AtomicBool,
    stores: RwLock<Stores>,
    faults: Mutex<Faults>,
    limiter: Mutex<Limiter>,
    stats: Mutex<Stats>,
    data_rng: Mutex<ChaCha8Rng>,
    organization_rng: Mutex<ChaCha8Rng>,
    request_rng: Mutex<ChaCha8Rng>,
    next_user: AtomicU64,
    next_organization: AtomicU64,
}

/// Locks a mutex, also after a panic elsewhere, such as in a closure of the caller.
///
/// Each change is made in one piece, so what the mutex holds is whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    /// The state of a simulator with these objects.
    pub(crate) fn new(options: Options, stores: Stores) -> Self {
        Self {
            stores: RwLock::new(stores),
            faults: Mutex::default(),
            limiter: Mutex::new(Limiter::new(options.rate_limit)),
            stats: Mutex::default(),
            data_rng: Mutex::new(ChaCha8Rng::seed_from_u64(options.seed)),
            organization_rng: Mutex::new(ChaCha8Rng::seed_from_u64(options.seed.wrapping_add(1 << 32))),
            request_rng: Mutex::new(ChaCha8Rng::seed_from_u64(!options.seed)),
            next_user: AtomicU64::new(options.users as u64),
            next_organization: AtomicU64::new(options.organizations.number as u64),
            churn: watch::Sender::new(options.churn),
            organization_churn: watch::Sender::new(options.organizations.churn),
            organizations_enabled: AtomicBool::new(options.organizations.enabled),
            options,
        }
    }

    pub(crate) fn read(&self) -> RwLockReadGuard<'_, Stores> {
        self.stores.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, Stores> {
        self.stores.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn organizations_are_enabled(&self) -> bool {
        self.organizations_enabled.load(Ordering::Relaxed)
    }

    /// Switches organizations on or off.
    pub(crate) fn enable_organizations(&self, enabled: bool) {
        self.organizations_enabled.store(enabled, Ordering::Relaxed);
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

    /// The random numbers that decide what happens to organizations.
    ///
    /// They are separate, so that organizations do not change what happens to users.
    pub(crate) fn organization_rng(&self) -> MutexGuard<'_, ChaCha8Rng> {
        lock(&self.organization_rng)
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

    /// The number of the next organization to be generated.
    pub(crate) fn next_organization(&self) -> u64 {
        self.next_organization.fetch_add(1, Ordering::Relaxed)
    }
}
