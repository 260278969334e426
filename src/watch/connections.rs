//! The open connections of the HTTP server. Their number is limited: for a new connection, the
//! oldest one without a request is closed.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::task::AbortHandle;

/// Open connections at a time. They must not use up the files that the daemon may open; most
/// systems allow 1,024.
const MAX_CONNECTIONS: usize = 256;

/// The open connections. Clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Connections(Arc<Mutex<OpenConnections>>);

#[derive(Debug, Default)]
struct OpenConnections {
    next: u64,
    /// Connections that have not sent the head of a request, the oldest first.
    silent: BTreeMap<u64, AbortHandle>,
    /// Connections that are being answered.
    asking: BTreeMap<u64, AbortHandle>,
}

/// A slot for one connection. Dropping it frees the slot.
#[derive(Debug)]
pub(super) struct ConnectionSlot {
    number: u64,
    has_asked: AtomicBool,
    connections: Connections,
}

impl Connections {
    /// Serves a connection in a task of its own. If there are too many connections, the oldest one
    /// without a request is closed, else the oldest one.
    pub(super) fn admit<F>(&self, serve: impl FnOnce(Arc<ConnectionSlot>) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let slot = Arc::new(ConnectionSlot {
            number: self.make_room(),
            has_asked: AtomicBool::new(false),
            connections: self.clone(),
        });
        let task = Arc::downgrade(&slot);
        let served = serve(slot.clone());
        // The lock is not held: a runtime that shuts down drops the future here, and the slot with
        // it.
        let handle = tokio::spawn(async move {
            served.await;
            drop(slot);
        });
        // The slot cannot be freed while this function holds it.
        if let Some(slot) = task.upgrade() {
            let mut open = self.open();
            let rows = match slot.has_asked.load(Ordering::Relaxed) {
                true => &mut open.asking,
                false => &mut open.silent,
            };
            rows.insert(slot.number, handle.abort_handle());
        }
    }

    /// Closes a connection if there are too many. Returns the number of the next slot.
    fn make_room(&self) -> u64 {
        let mut open = self.open();
        if open.silent.len() + open.asking.len() >= MAX_CONNECTIONS {
            let oldest = open.silent.pop_first().or_else(|| open.asking.pop_first());
            if let Some((_, task)) = oldest {
                task.abort();
            }
        }
        open.next += 1;
        open.next
    }

    fn open(&self) -> MutexGuard<'_, OpenConnections> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ConnectionSlot {
    /// Records that the head of a request has arrived.
    pub(super) fn set_asked(&self) {
        let mut open = self.connections.open();
        self.has_asked.store(true, Ordering::Relaxed);
        if let Some(task) = open.silent.remove(&self.number) {
            open.asking.insert(self.number, task);
        }
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        let mut open = self.connections.open();
        open.silent.remove(&self.number);
        open.asking.remove(&self.number);
    }
}
