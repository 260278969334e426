//! The handle by which programs start and control a simulator.

mod objects;
mod organizations;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::churn;
use crate::clock::now;
use crate::faults::Faults;
use crate::http::server;
use crate::kind::Kind;
use crate::oddity::Oddity;
use crate::state::{Options, State};
use crate::stats::Request;
use crate::users;
use crate::users::generate;
use crate::users::unstorable::{self, Unstorable};

/// A running simulator. Clones are handles to the same one; dropping the last stops the server.
#[derive(Clone)]
pub struct Sim {
    inner: Arc<Inner>,
}

struct Inner {
    state: Arc<State>,
    address: SocketAddr,
    stop: watch::Sender<bool>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

impl Sim {
    /// Generates the users and the organizations, and listens. Fails if the port is taken.
    pub async fn start(mut options: Options) -> std::io::Result<Sim> {
        let (listener, address) = server::bind(options.port).await?;
        if options.instance_id.is_empty() {
            options.instance_id = generate::instance_id(options.seed);
        }
        let (seed, users, organizations) = (options.seed, options.users, options.organizations.clone());
        let generate = move || {
            let users = generate::store(seed, users, now());
            crate::organizations::generate::stores(seed, &organizations, users)
        };
        let stores = tokio::task::spawn_blocking(generate)
            .await
            .map_err(std::io::Error::other)?;
        let state = Arc::new(State::new(options, stores));
        let stop = watch::Sender::new(false);
        let tasks = vec![
            tokio::spawn(server::run(listener, state.clone(), stop.subscribe())),
            tokio::spawn(churn::run(
                state.clone(),
                state.churn.subscribe(),
                stop.subscribe(),
                users::churn::change,
            )),
            tokio::spawn(churn::run(
                state.clone(),
                state.organization_churn.subscribe(),
                stop.subscribe(),
                |state| drop(crate::organizations::churn::change(state)),
            )),
        ];
        Ok(Sim {
            inner: Arc::new(Inner {
                state,
                address,
                stop,
                tasks: Mutex::new(tasks),
            }),
        })
    }

    fn state(&self) -> &State {
        &self.inner.state
    }

    /// `http://127.0.0.1:PORT`, without `/v1`.
    pub fn url(&self) -> String {
        format!("http://{}", self.inner.address)
    }

    /// The key that is accepted.
    pub fn secret_key(&self) -> &str {
        &self.state().options.secret_key
    }

    /// The id that `GET /v1/instance` returns.
    pub fn instance_id(&self) -> &str {
        &self.state().options.instance_id
    }

    /// The ids of all users in ascending (`created_at`, id) order.
    pub fn user_ids(&self) -> Vec<String> {
        self.ids(Kind::Users)
    }

    /// The number of users.
    pub fn count(&self) -> usize {
        self.count_of(Kind::Users)
    }

    /// The answer to `GET /v1/users/{id}`. `None` if there is no such user, or its bytes are not
    /// JSON.
    pub fn document(&self, id: &str) -> Option<Value> {
        self.state().read().of(Kind::Users).get(id)?.value(now())
    }

    /// The bytes of the answer to `GET /v1/users/{id}`. `None` if there is no such user.
    pub fn raw(&self, id: &str) -> Option<Vec<u8>> {
        Some(self.state().read().of(Kind::Users).get(id)?.served(now()))
    }

    /// How a generated user deviates from the specification on purpose. `None` if it does not.
    pub fn oddity(&self, id: &str) -> Option<Oddity> {
        self.state().read().of(Kind::Users).get(id)?.oddity
    }

    /// Adds any document, or replaces the one with its id. Returns the id.
    ///
    /// Nothing in it is checked or changed. A lock in it does not count down.
    ///
    /// # Panics
    /// If `id` is not a string or `created_at` is not in milliseconds. See [`Sim::insert_raw`] for
    /// such users.
    pub fn insert(&self, document: Value) -> String {
        self.insert_object(Kind::Users, document)
    }

    /// Adds any bytes, to be served verbatim, or replaces those with this id.
    ///
    /// Lists are ordered by these times, in Unix milliseconds.
    pub fn insert_raw(&self, id: &str, created_at: i64, updated_at: i64, bytes: Vec<u8>) {
        self.insert_raw_object(Kind::Users, id, created_at, updated_at, bytes);
    }

    /// Adds a user that a mirror cannot store, created now, and returns its id.
    pub fn insert_unstorable(&self, kind: Unstorable) -> String {
        unstorable::add(self.state(), kind)
    }

    /// Changes a user, and sets `updated_at` to now unless the closure changes it.
    ///
    /// False if there is no such user, or its bytes are not JSON. The closure runs while the users
    /// are locked: it must not use the simulator.
    pub fn update(&self, id: &str, change: impl FnOnce(&mut Value)) -> bool {
        self.update_object(Kind::Users, id, change)
    }

    /// Adds a generated user, created now, and returns its id.
    pub fn create_random(&self) -> String {
        users::churn::create(self.state())
    }

    /// Changes a user at random, as churn does, and returns its id. `None` if there are no users.
    ///
    /// A few such changes do not move `updated_at`.
    pub fn update_random(&self) -> Option<String> {
        users::churn::update(self.state())
    }

    /// Deletes a user at random, and returns its id. `None` if there are no users.
    pub fn delete_random(&self) -> Option<String> {
        users::churn::delete(self.state())
    }

    /// Deletes a user with all memberships. False if there is no such user.
    pub fn delete(&self, id: &str) -> bool {
        self.delete_object(Kind::Users, id)
    }

    /// Sets the number of random changes of users per second. `None` stops them.
    pub fn set_churn(&self, rate: Option<f64>) {
        self.state().churn.send_replace(rate);
    }

    /// Replaces all faults.
    ///
    /// # Panics
    /// If the faults cannot work: a probability beyond 0 to 1, or a status that is not an error.
    pub fn set_faults(&self, faults: impl Into<Faults>) {
        let faults = faults.into();
        if let Err(why) = faults.check() {
            panic!("{why}");
        }
        *self.state().faults() = faults;
    }

    /// The present faults, with their counters.
    pub fn faults(&self) -> Faults {
        self.state().faults().clone()
    }

    /// Removes all faults.
    pub fn clear_faults(&self) {
        *self.state().faults() = Faults::default();
    }

    /// The number of requests to `/v1`, answered or not.
    pub fn requests(&self) -> u64 {
        self.state().stats().requests
    }

    /// The number of requests by method and path, with `{user_id}` for ids.
    pub fn requests_by_path(&self) -> BTreeMap<String, u64> {
        self.state().stats().by_path.clone()
    }

    /// The highest number of requests to `/v1` in ten seconds.
    pub fn busiest_window(&self) -> u64 {
        self.state().stats().busiest_window
    }

    /// The last 10,000 requests to `/v1`, oldest first.
    pub fn log(&self) -> Vec<Request> {
        self.state().stats().log()
    }

    /// Stops the simulator, also for other handles: closes the listener and all connections.
    pub async fn stop(self) {
        self.inner.stop.send_replace(true);
        let tasks = std::mem::take(&mut *self.inner.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        for task in tasks {
            // A task that panicked has ended, too.
            let _ = task.await;
        }
    }
}
