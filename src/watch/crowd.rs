//! The open connections: a bounded number, of which the oldest without a request is dropped for the
//! next one.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::task::AbortHandle;

/// Connections at a time. They must not use up the files that the daemon may open, of which most
/// systems allow 1,024.
const MOST: usize = 256;

/// The open connections. Clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Crowd(Arc<Mutex<Seats>>);

#[derive(Debug, Default)]
struct Seats {
    next: u64,
    /// Connections without the head of a request, the oldest first.
    silent: BTreeMap<u64, AbortHandle>,
    /// Connections that are being answered.
    asking: BTreeMap<u64, AbortHandle>,
}

/// A connection's place; it is free again once this is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    number: u64,
    has_asked: AtomicBool,
    crowd: Crowd,
}

impl Crowd {
    /// Serves a connection in a task of its own. If the crowd is full, the oldest connection
    /// without a request is dropped for it; else the oldest one.
    pub(super) fn admit<F>(&self, serve: impl FnOnce(Arc<Seat>) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let seat = Arc::new(Seat {
            number: self.make_room(),
            has_asked: AtomicBool::new(false),
            crowd: self.clone(),
        });
        let task = Arc::downgrade(&seat);
        let served = serve(seat.clone());
        // Without the lock: a runtime that shuts down drops the future here, and the seat with it.
        let handle = tokio::spawn(async move {
            served.await;
            drop(seat);
        });
        // As long as the seat is held here, it is not given back.
        if let Some(seat) = task.upgrade() {
            let mut seats = self.seats();
            let rows = match seat.has_asked.load(Ordering::Relaxed) {
                true => &mut seats.asking,
                false => &mut seats.silent,
            };
            rows.insert(seat.number, handle.abort_handle());
        }
    }

    /// Returns the number of the next seat.
    fn make_room(&self) -> u64 {
        let mut seats = self.seats();
        if seats.silent.len() + seats.asking.len() >= MOST {
            let oldest = seats.silent.pop_first().or_else(|| seats.asking.pop_first());
            if let Some((_, task)) = oldest {
                task.abort();
            }
        }
        seats.next += 1;
        seats.next
    }

    fn seats(&self) -> MutexGuard<'_, Seats> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// The head of a request is there.
    pub(super) fn has_asked(&self) {
        let mut seats = self.crowd.seats();
        self.has_asked.store(true, Ordering::Relaxed);
        if let Some(task) = seats.silent.remove(&self.number) {
            seats.asking.insert(self.number, task);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut seats = self.crowd.seats();
        seats.silent.remove(&self.number);
        seats.asking.remove(&self.number);
    }
}
