//! Delivers to all endpoints while this daemon leads.

use std::{sync::Arc, time::Duration};

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

/// What delivers events: built from the configuration, and run by the leader.
#[derive(Debug, Clone)]
pub struct Delivery {
    endpoints: Vec<(Arc<Endpoint>, EndpointClient)>,
    deliveries: Deliveries,
    /// Changes when this process has committed events.
    committed: watch::Receiver<()>,
    holder: Arc<str>,
    /// Whether the first import writes events.
    initial_events: bool,
    watch: Watch,
}

impl Delivery {
    /// Creates what delivers to `endpoints`. `deliveries` has a connection of its own, and `holder`
    /// is the name of this process in the election.
    ///
    /// # Errors
    /// HTTPS cannot be set up.
    pub fn new(
        endpoints: Vec<Endpoint>,
        deliveries: Deliveries,
        committed: watch::Receiver<()>,
        (holder, initial_events): (&str, bool),
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
        if !self.is_ready(stop).await? {
            return Ok(());
        }
        let registrations: Vec<_> = self
            .endpoints
            .iter()
            .map(|(endpoint, _)| registration(endpoint))
            .collect();
        let registered = self.deliveries.register(&self.holder, &registrations).await?;
        if self.endpoints.is_empty() {
            // It is noted once that there are none: an idle daemon costs nothing.
            stop.cancelled().await;
            return Ok(());
        }
        let ids = MessageIds::new(self.deliveries.message_key().await?);
        let mut workers = JoinSet::new();
        for (endpoint, client) in &self.endpoints {
            let Some(row) = registered.iter().find(|row| row.name == endpoint.name) else {
                continue;
            };
            let context = WorkerContext {
                endpoint: endpoint.clone(),
                client: client.clone(),
                ids: ids.clone(),
                deliveries: self.deliveries.clone(),
                holder: self.holder.clone(),
                watch: self.watch.clone(),
            };
            info!(endpoint = endpoint.name, position = row.position, "delivering events");
            let worker = Worker::new(context, row.position, row.is_paused);
            workers.spawn(worker.run(self.committed.clone(), stop.clone()));
        }
        while let Some(ended) = workers.join_next().await {
            // Workers are not cancelled, so the task panicked.
            ended.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))?;
        }
        Ok(())
    }

    /// Waits until endpoints can be registered. Returns false if it was stopped before.
    async fn is_ready(&self, stop: &CancellationToken) -> Result<bool, MirrorError> {
        let waits = self
            .endpoints
            .iter()
            .any(|(endpoint, _)| endpoint.start == Start::Everything);
        while waits && !self.initial_events && !self.deliveries.is_imported().await? {
            tokio::select! {
                () = stop.cancelled() => return Ok(false),
                () = tokio::time::sleep(RETRY) => {}
            }
        }
        Ok(true)
    }
}

/// Returns what is stored of an endpoint.
fn registration(endpoint: &Endpoint) -> Registration {
    Registration {
        name: endpoint.name.clone(),
        url_digest: blake3::hash(endpoint.url.as_str().as_bytes()).to_hex()[..32].to_owned(),
        types: endpoint.types.clone(),
        starts_with_objects: endpoint.start == Start::Everything,
    }
}
