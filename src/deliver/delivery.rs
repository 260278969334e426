//! Delivers to all endpoints while this daemon leads.

use std::{pin::pin, sync::Arc, time::Duration};

use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{
    Endpoint, EndpointClient, Start,
    message_id::MessageIds,
    worker::{Worker, WorkerContext},
};
use crate::{
    failure::{Cause, Failure},
    mirror::{Deliveries, MirrorError, Registration},
    watch::Watch,
};

/// Pause before the database is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// An endpoint, and what sends to it.
type Target = (Arc<Endpoint>, EndpointClient);

/// What delivers events: built from the configuration, and run by the leader.
#[derive(Debug, Clone)]
pub struct Delivery {
    endpoints: Vec<Target>,
    deliveries: Deliveries,
    /// Changes when this process has committed events.
    committed: watch::Receiver<()>,
    holder: Arc<str>,
    /// How long a leader that is silent keeps its role.
    ttl: Duration,
    /// The names of the resources that are mirrored.
    resources: Vec<&'static str>,
    /// Whether the first import writes events.
    initial_events: bool,
    watch: Watch,
}

impl Delivery {
    /// Creates what delivers to `endpoints`. `deliveries` has a connection of its own, and `holder`
    /// is the name of this process in the election, in which a leader that is silent for `ttl` loses
    /// its role. `resources` are the names of what is mirrored, and `initial_events` says whether the
    /// first import writes events.
    ///
    /// # Errors
    /// HTTPS cannot be set up.
    pub fn new(
        endpoints: Vec<Endpoint>,
        deliveries: Deliveries,
        committed: watch::Receiver<()>,
        (holder, ttl): (&str, Duration),
        resources: Vec<&'static str>,
        initial_events: bool,
        watch: Watch,
    ) -> Result<Self, Failure> {
        let client = |endpoint: Endpoint| {
            let client = EndpointClient::new(&endpoint).map_err(|error| {
                Failure::new(Cause::NeedsPerson, format!("[[endpoints]] {}: {error}", endpoint.name))
            })?;
            Ok((Arc::new(endpoint), client))
        };
        Ok(Self {
            endpoints: endpoints.into_iter().map(client).collect::<Result<_, Failure>>()?,
            deliveries,
            committed,
            holder: holder.into(),
            ttl,
            resources,
            initial_events,
            watch,
        })
    }

    /// Delivers until `stop`, or until this daemon does not lead any more.
    pub async fn run(&self, stop: &CancellationToken) {
        let mut has_warned = false;
        loop {
            match self.run_once(stop).await {
                Ok(()) | Err(MirrorError::LeaseLost) => return,
                Err(error) if std::mem::replace(&mut has_warned, true) => debug!(%error, "cannot deliver yet"),
                Err(error) => warn!(%error, hint = error.hint(), "nothing is delivered until Postgres works"),
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(RETRY) => {}
            }
        }
    }

    async fn run_once(&self, stop: &CancellationToken) -> Result<(), MirrorError> {
        let may_start_all = self.may_start_all().await?;
        // Those go on, also while resources are imported that are new.
        let known = self.deliveries.known().await?;
        let (ready, waiting): (Vec<_>, Vec<_>) =
            self.endpoints.iter().cloned().partition(|(endpoint, _)| {
                may_start_all || endpoint.start == Start::Now || known.contains(&endpoint.name)
            });
        let mut workers = JoinSet::new();
        self.start(&ready, &ready, &mut workers, stop).await?;
        if self.endpoints.is_empty() {
            self.deliveries.disconnect();
        }
        let mut imported = pin!(self.imported());
        let mut is_complete = waiting.is_empty();
        loop {
            tokio::select! {
                // Workers are not cancelled, so one that does not end by itself panicked.
                Some(ended) = workers.join_next() => {
                    ended.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))?;
                }
                () = &mut imported, if !is_complete => {
                    is_complete = true;
                    self.start(&self.endpoints, &waiting, &mut workers, stop).await?;
                }
                () = stop.cancelled(), if workers.is_empty() => return Ok(()),
            }
        }
    }

    /// Notes that `configured` are the endpoints, and starts a worker for each of `new`.
    async fn start(
        &self,
        configured: &[Target],
        new: &[Target],
        workers: &mut JoinSet<Result<(), MirrorError>>,
        stop: &CancellationToken,
    ) -> Result<(), MirrorError> {
        let key = self.deliveries.message_key().await?;
        let ids = MessageIds::new(key);
        let registrations: Vec<_> = configured
            .iter()
            .map(|(endpoint, _)| registration(endpoint, &key))
            .collect();
        for row in self.deliveries.register(&self.holder, &registrations).await? {
            let Some((endpoint, client)) = new.iter().find(|(endpoint, _)| endpoint.name == row.name) else {
                continue;
            };
            let context = WorkerContext {
                endpoint: endpoint.clone(),
                client: client.clone(),
                ids: ids.clone(),
                deliveries: self.deliveries.clone(),
                holder: self.holder.clone(),
                ttl: self.ttl,
                watch: self.watch.clone(),
            };
            info!(endpoint = endpoint.name, position = row.position, "delivering events");
            let worker = Worker::new(context, &row);
            workers.spawn(worker.run(self.committed.clone(), stop.clone()));
        }
        Ok(())
    }

    /// Whether no endpoint has to wait for the first import.
    async fn may_start_all(&self) -> Result<bool, MirrorError> {
        let waits = |(endpoint, _): &Target| endpoint.start == Start::Everything;
        Ok(self.initial_events
            || !self.endpoints.iter().any(waits)
            || self.deliveries.are_imported(&self.resources).await?)
    }

    /// Waits for the first import. The workers report what is wrong with the database.
    async fn imported(&self) {
        while !matches!(self.deliveries.are_imported(&self.resources).await, Ok(true)) {
            tokio::time::sleep(RETRY).await;
        }
    }
}

/// Returns what is stored of an endpoint.
fn registration(endpoint: &Endpoint, key: &[u8; 32]) -> Registration {
    // An address may contain a password that can be guessed, so that a plain digest would give it
    // away.
    let key = blake3::derive_key("clerk2pg 2026-11-29 addresses of endpoints", key);
    let digest = blake3::keyed_hash(&key, endpoint.url.as_str().as_bytes());
    Registration {
        name: endpoint.name.clone(),
        url_digest: digest.to_hex()[..32].to_owned(),
        types: endpoint.types.clone(),
        starts_with_objects: endpoint.start == Start::Everything,
    }
}
