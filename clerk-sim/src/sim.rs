//! The handle by which programs start and steer a simulator.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::churn;
use crate::document::Entry;
use crate::faults::Faults;
use crate::generate;
use crate::oddity::Oddity;
use crate::server;
use crate::state::{Options, State, Touch, edit, now};
use crate::stats::Request;
use crate::unstorable::{self, Unstorable};

/// A running simulator. Cheap to clone; dropping the last handle stops the server.
#[derive(Clone)]
pub struct Sim {
    running: Arc<Running>,
}

struct Running {
    state: Arc<State>,
    address: SocketAddr,
    stop: watch::Sender<bool>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

impl Sim {
    /// Makes the users and starts to listen. Fails where the port cannot be had.
    pub async fn start(options: Options) -> std::io::Result<Sim> {
        let (listener, address) = server::bind(options.port).await?;
        let state = tokio::task::spawn_blocking(|| Arc::new(State::new(options)))
            .await
            .map_err(std::io::Error::other)?;
        let stop = watch::Sender::new(false);
        let tasks = vec![
            tokio::spawn(server::run(listener, state.clone(), stop.subscribe())),
            tokio::spawn(churn::run(state.clone(), stop.subscribe())),
        ];
        Ok(Sim {
            running: Arc::new(Running {
                state,
                address,
                stop,
                tasks: Mutex::new(tasks),
            }),
        })
    }

    fn state(&self) -> &State {
        &self.running.state
    }

    /// `http://127.0.0.1:PORT`, without `/v1`.
    pub fn url(&self) -> String {
        format!("http://{}", self.running.address)
    }

    /// The key that is accepted.
    pub fn secret_key(&self) -> &str {
        &self.state().options.secret_key
    }

    /// What `GET /v1/instance` tells.
    pub fn instance_id(&self) -> &str {
        &self.state().options.instance_id
    }

    /// All ids in ascending (`created_at`, id) order.
    pub fn user_ids(&self) -> Vec<String> {
        generate::in_order(&self.state().read())
            .map(|entry| entry.id.to_string())
            .collect()
    }

    /// How many users there are.
    pub fn count(&self) -> usize {
        self.state().read().len()
    }

    /// Exactly what `GET /v1/users/{id}` would answer; none where there is nobody or the bytes are not JSON.
    pub fn document(&self, id: &str) -> Option<Value> {
        self.state().read().get(id)?.value(now())
    }

    /// The bytes that `GET /v1/users/{id}` would answer.
    pub fn raw(&self, id: &str) -> Option<Vec<u8>> {
        Some(self.state().read().get(id)?.served(now()))
    }

    /// In what way a generated user deviates from the specification on purpose; none for all others.
    pub fn oddity(&self, id: &str) -> Option<Oddity> {
        self.state().read().get(id)?.oddity
    }

    /// Adds any document, or replaces the one with its id. Returns the id. Nothing in it is checked or changed; a lock in it does
    /// not count down.
    ///
    /// # Panics
    /// Without an `id` that is a string and a `created_at` in milliseconds: see [`Sim::insert_raw`] for such users.
    pub fn insert(&self, document: Value) -> String {
        let id = document
            .get("id")
            .and_then(Value::as_str)
            .expect("a document needs an id that is a string")
            .to_owned();
        let created_at = document.get("created_at").and_then(Value::as_i64);
        assert!(
            created_at.is_some(),
            "a document needs a created_at in milliseconds; insert_raw takes those without"
        );
        self.state().write().put(Entry::new(&id, &document, None), now());
        id
    }

    /// Puts any bytes at this place of the list, to be served verbatim.
    pub fn insert_raw(&self, id: &str, created_at: i64, updated_at: i64, bytes: Vec<u8>) {
        self.state()
            .write()
            .put(Entry::verbatim(id, created_at, updated_at, bytes), now());
    }

    /// Adds a user that a mirror cannot store, created now, and returns its id.
    pub fn insert_unstorable(&self, kind: Unstorable) -> String {
        unstorable::add(self.state(), kind)
    }

    /// Changes a user, and sets `updated_at` to now unless the closure changed it. False where there is nobody or no JSON.
    ///
    /// The closure runs while the simulator's users are locked: it must not use the simulator.
    pub fn update(&self, id: &str, change: impl FnOnce(&mut Value)) -> bool {
        edit(&mut self.state().write(), id, Touch::Updated, change)
    }

    /// Adds a generated user, created now, and returns its id.
    pub fn create_random(&self) -> String {
        churn::create(self.state())
    }

    /// Changes a user at random, as churn does, and returns its id. A few such changes do not move `updated_at`.
    pub fn update_random(&self) -> Option<String> {
        churn::update(self.state())
    }

    /// Deletes a user at random and returns its id.
    pub fn delete_random(&self) -> Option<String> {
        churn::delete(self.state())
    }

    /// Deletes a user; false where there is nobody.
    pub fn delete(&self, id: &str) -> bool {
        self.state().write().remove(id, now())
    }

    /// How many changes happen by themselves in a second; none stops them.
    pub fn set_churn(&self, rate: Option<f64>) {
        self.state().churn.send_replace(rate);
    }

    /// Replaces all faults.
    ///
    /// # Panics
    /// With faults that can never work: a probability beyond 0 to 1, an error status that is none.
    pub fn set_faults(&self, faults: impl Into<Faults>) {
        let faults = faults.into();
        if let Err(why) = faults.check() {
            panic!("{why}");
        }
        *self.state().faults() = faults;
    }

    /// The faults as they are now, with their counters.
    pub fn faults(&self) -> Faults {
        self.state().faults().clone()
    }

    /// Ends all faults.
    pub fn clear_faults(&self) {
        *self.state().faults() = Faults::default();
    }

    /// Requests to `/v1` so far, whatever came of them.
    pub fn requests(&self) -> u64 {
        self.state().stats().requests
    }

    /// The same by method and path, with `{user_id}` for ids.
    pub fn requests_by_path(&self) -> BTreeMap<String, u64> {
        self.state().stats().by_path.clone()
    }

    /// The most requests to `/v1` in any ten seconds.
    pub fn busiest_window(&self) -> u64 {
        self.state().stats().busiest_window
    }

    /// The last ten thousand requests to `/v1`, oldest first.
    pub fn log(&self) -> Vec<Request> {
        self.state().stats().log()
    }

    /// Closes the listener and all connections, for other handles too.
    pub async fn stop(self) {
        self.running.stop.send_replace(true);
        let tasks = std::mem::take(&mut *self.running.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        for task in tasks {
            // A task that panicked is gone as well.
            let _ = task.await;
        }
    }
}
