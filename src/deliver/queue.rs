//! Which events of an endpoint are sent next, and what is to be noted of them: pure state.
//!
//! The events of an object are sent one after the other. If one fails, the later ones of its object
//! become late as well, and others pass by.

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use crate::mirror::{DeliveryProgress, EventObject, FROM_MIRROR, FailedDelivery, LateEvent, PendingEvent};

/// An event that is sent.
#[derive(Debug, Clone)]
pub(super) struct Dispatch {
    /// The event's id; 0 for one that is made from the mirror's row.
    pub(super) id: i64,
    pub(super) object: EventObject,
    /// When a late event was asked for, in Unix microseconds.
    pub(super) asked_at: i64,
    /// The event as JSON.
    pub(super) payload: Arc<str>,
    /// How often it was tried before.
    pub(super) attempts: u32,
    pub(super) is_late: bool,
    /// Whether it is sent only to find out whether the endpoint works again.
    pub(super) is_probe: bool,
}

/// What becomes of an event that was sent.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Verdict {
    Delivered,
    /// It was not tried: it stays where it is.
    Unsent,
    Failed {
        /// How often it was tried.
        attempts: u32,
        /// When it is tried again; `None` if it is dead.
        retry_in: Option<Duration>,
        status: Option<u16>,
        error: String,
    },
}

#[derive(Debug)]
struct Item {
    id: i64,
    object: EventObject,
    state: ItemState,
}

#[derive(Debug)]
enum ItemState {
    Waiting(Arc<str>),
    Sending,
    /// Delivered, not wanted, or late.
    Settled,
}

/// The events that an endpoint still has to get, as far as they are in memory.
#[derive(Debug)]
pub(super) struct Queue {
    /// Events after the position, in their order.
    items: VecDeque<Item>,
    /// How many of them wait, and the size of their payloads in bytes.
    waiting: usize,
    waiting_bytes: usize,
    /// No event before this place waits.
    first_waiting: usize,
    /// All events up to this id are settled.
    position: i64,
    /// The position that is noted.
    noted_position: i64,
    /// The last event that was read.
    read_to: i64,
    /// Late events that are due.
    due: VecDeque<LateEvent>,
    late_sending: usize,
    /// Whether the event that was sent last was late.
    was_late: bool,
    sending: usize,
    /// Objects with an event that is being sent, or that is late and whose outcome is not noted.
    busy: HashSet<EventObject>,
    /// Objects of which an event here has become late, and that is not noted. What is read does not
    /// show it, or shows only a later one.
    blocked: HashSet<EventObject>,
    /// Objects whose later events became late while one was being sent.
    set_aside: HashSet<EventObject>,
    /// Events that became late while they were being sent.
    late_meanwhile: HashSet<i64>,
    /// What happened since the last [`Self::begin_note`].
    progress: DeliveryProgress,
    /// What is being noted.
    noting: Option<DeliveryProgress>,
}

impl Queue {
    /// A queue that begins after a position.
    pub(super) fn new(position: i64) -> Self {
        Self {
            items: VecDeque::new(),
            waiting: 0,
            waiting_bytes: 0,
            first_waiting: 0,
            position,
            noted_position: position,
            read_to: position,
            due: VecDeque::new(),
            late_sending: 0,
            was_late: false,
            sending: 0,
            busy: HashSet::new(),
            blocked: HashSet::new(),
            set_aside: HashSet::new(),
            late_meanwhile: HashSet::new(),
            progress: DeliveryProgress::default(),
            noting: None,
        }
    }

    /// Adds events that were read after an id. Returns false, and adds none, if that is no longer
    /// [`Self::read_to`]: those in between would be passed over.
    #[must_use]
    pub(super) fn extend(&mut self, after: i64, events: Vec<PendingEvent>) -> bool {
        if after != self.read_to {
            return false;
        }
        for PendingEvent {
            id,
            object,
            payload,
            is_blocked,
        } in events
        {
            self.read_to = self.read_to.max(id);
            let state = match payload {
                None => ItemState::Settled,
                Some(_) if is_blocked || self.blocked.contains(&object) => {
                    self.blocked.insert(object.clone());
                    self.progress.blocked.push((object.clone(), id));
                    ItemState::Settled
                }
                Some(payload) => {
                    self.waiting += 1;
                    self.waiting_bytes += payload.len();
                    ItemState::Waiting(payload.into())
                }
            };
            self.items.push_back(Item { id, object, state });
        }
        self.advance();
        true
    }

    /// Adds late events that are due, up to the last event that was read: an earlier one of the same
    /// object could come after it. Those whose object is busy or blocked are read again later.
    pub(super) fn add_due(&mut self, events: Vec<LateEvent>) {
        for event in events {
            let is_known = self.due.iter().any(|due| due.object == event.object);
            if is_known || self.busy.contains(&event.object) || self.blocked.contains(&event.object) {
                continue;
            }
            if event.payload.is_none() {
                // There is nothing to deliver any more.
                self.busy.insert(event.object.clone());
                self.progress.done.push((event.object, event.id));
            } else {
                self.due.push_back(event);
            }
        }
    }

    /// Takes the next event to send. Late events get at most `most_late` places and every second
    /// turn as long as others wait.
    pub(super) fn next(&mut self, most_late: usize) -> Option<Dispatch> {
        let next = match self.late_sending < most_late && !self.was_late {
            true => self.next_late().or_else(|| self.next_fresh()),
            false => self.next_fresh().or_else(|| self.next_late()),
        };
        self.was_late = next.as_ref().is_some_and(|sent| sent.is_late);
        next
    }

    fn next_late(&mut self) -> Option<Dispatch> {
        while let Some(LateEvent {
            id,
            object,
            asked_at,
            payload,
            attempts,
        }) = self.due.pop_front()
        {
            let Some(payload) = payload.filter(|_| self.busy.insert(object.clone())) else {
                continue;
            };
            self.late_sending += 1;
            self.sending += 1;
            return Some(Dispatch {
                id,
                object,
                asked_at,
                payload: payload.into(),
                attempts,
                is_late: true,
                is_probe: false,
            });
        }
        None
    }

    fn next_fresh(&mut self) -> Option<Dispatch> {
        if self.waiting == 0 {
            return None;
        }
        // An object whose first event here is passed over keeps its later ones waiting, too: it is
        // busy until that event is settled.
        let is_waiting = |item: &Item| matches!(item.state, ItemState::Waiting(_));
        let places = self.first_waiting..self.items.len();
        self.first_waiting = places.clone().find(|at| is_waiting(&self.items[*at]))?;
        let at = (self.first_waiting..places.end)
            .find(|at| is_waiting(&self.items[*at]) && !self.busy.contains(&self.items[*at].object))?;
        let item = &mut self.items[at];
        let ItemState::Waiting(payload) = std::mem::replace(&mut item.state, ItemState::Sending) else {
            return None;
        };
        self.busy.insert(item.object.clone());
        self.waiting -= 1;
        self.waiting_bytes -= payload.len();
        self.sending += 1;
        Some(Dispatch {
            id: item.id,
            object: item.object.clone(),
            asked_at: 0,
            payload,
            attempts: 0,
            is_late: false,
            is_probe: false,
        })
    }

    /// Records what became of an event that was sent. Returns whether other late events may be due
    /// now.
    pub(super) fn settle(&mut self, sent: Dispatch, verdict: Verdict) -> bool {
        self.sending -= 1;
        if sent.is_late {
            self.late_sending -= 1;
        }
        let is_set_aside = self.set_aside.remove(&sent.object);
        let is_late = self.late_meanwhile.remove(&sent.id) || sent.is_late;
        let makes_due = is_set_aside || is_late && verdict == Verdict::Unsent;
        match (verdict, is_late) {
            (Verdict::Unsent, true) => {
                self.busy.remove(&sent.object);
            }
            // Otherwise the later ones would come before it.
            (Verdict::Unsent, false) if is_set_aside => {
                self.busy.remove(&sent.object);
                self.set_state(sent.id, ItemState::Settled);
                self.blocked.insert(sent.object.clone());
                self.progress.blocked.push((sent.object, sent.id));
            }
            (Verdict::Unsent, false) => {
                self.busy.remove(&sent.object);
                self.waiting += 1;
                self.waiting_bytes += sent.payload.len();
                self.set_state(sent.id, ItemState::Waiting(sent.payload));
            }
            // It stays busy until that is noted: its row would be read again.
            (Verdict::Delivered, true) => self.progress.done.push((sent.object, sent.id)),
            (Verdict::Delivered, false) => {
                self.busy.remove(&sent.object);
                self.set_state(sent.id, ItemState::Settled);
            }
            (
                Verdict::Failed {
                    attempts,
                    retry_in,
                    status,
                    error,
                },
                is_late,
            ) => {
                if !is_late {
                    self.set_state(sent.id, ItemState::Settled);
                    self.block(&sent.object);
                }
                self.progress.failed.push(FailedDelivery {
                    object: sent.object,
                    event_id: sent.id,
                    attempts,
                    retry_in,
                    status,
                    error,
                });
            }
        }
        self.advance();
        makes_due
    }

    /// Makes the events of an object late that wait here.
    fn block(&mut self, object: &EventObject) {
        self.blocked.insert(object.clone());
        for item in self.items.iter_mut().filter(|item| item.object == *object) {
            if let ItemState::Waiting(payload) = &item.state {
                self.waiting -= 1;
                self.waiting_bytes -= payload.len();
                item.state = ItemState::Settled;
                self.progress.blocked.push((item.object.clone(), item.id));
            }
        }
    }

    /// Makes the events late that wait for an event of their object which takes long, so that there
    /// is room for events of other objects.
    pub(super) fn set_aside(&mut self) {
        let is_waiting = |item: &&Item| matches!(item.state, ItemState::Waiting(_));
        let waiting = self.items.iter().filter(is_waiting).map(|item| &item.object);
        let objects: HashSet<EventObject> = waiting.filter(|object| self.busy.contains(object)).cloned().collect();
        for object in &objects {
            self.block(object);
        }
        // Others are busy only until their outcome is noted.
        let all = [Some(&self.progress), self.noting.as_ref()];
        let unnoted: HashSet<EventObject> = all.into_iter().flatten().flat_map(settled_objects).cloned().collect();
        self.set_aside
            .extend(objects.into_iter().filter(|object| !unnoted.contains(object)));
        self.advance();
    }

    /// Makes the first event after the position late if it is being sent, so that the position can
    /// move: a process that is killed sends again what is after it.
    pub(super) fn pass_first(&mut self) {
        let Some(Item {
            id,
            object,
            state: state @ ItemState::Sending,
        }) = self.items.front_mut()
        else {
            return;
        };
        *state = ItemState::Settled;
        self.late_meanwhile.insert(*id);
        self.progress.blocked.push((object.clone(), *id));
        let object = object.clone();
        // The later ones come after it.
        self.block(&object);
        self.advance();
    }

    fn set_state(&mut self, id: i64, state: ItemState) {
        if let Ok(at) = self.items.binary_search_by_key(&id, |item| item.id) {
            if let ItemState::Waiting(_) = state {
                self.first_waiting = self.first_waiting.min(at);
            }
            self.items[at].state = state;
        }
    }

    /// Moves the position over settled events.
    fn advance(&mut self) {
        while let Some(Item {
            id,
            state: ItemState::Settled,
            ..
        }) = self.items.front()
        {
            self.position = *id;
            self.items.pop_front();
            self.first_waiting = self.first_waiting.saturating_sub(1);
        }
    }

    /// Forgets late events that wait here.
    pub(super) fn forget_due(&mut self) {
        self.due.clear();
    }

    /// Forgets payloads that wait, as far as they can be read again in order: a paused endpoint
    /// needs no memory.
    pub(super) fn forget_waiting(&mut self) {
        while let Some(Item {
            state: ItemState::Waiting(payload),
            ..
        }) = self.items.back()
        {
            self.waiting -= 1;
            self.waiting_bytes -= payload.len();
            self.items.pop_back();
        }
        self.first_waiting = self.first_waiting.min(self.items.len());
        self.read_to = self.items.back().map_or(self.position, |item| item.id);
        self.due.clear();
    }

    /// Returns what is to be noted now, if there is anything. [`Self::noted`] ends it.
    pub(super) fn begin_note(&mut self) -> DeliveryProgress {
        let mut progress = std::mem::take(&mut self.progress);
        progress.position = self.position;
        self.noting = Some(progress.clone());
        progress
    }

    /// Records whether the progress is noted. If not, it is part of the next one. Returns whether
    /// other late events may be due now.
    pub(super) fn noted(&mut self, is_done: bool) -> bool {
        let Some(mut before) = self.noting.take() else {
            return false;
        };
        if is_done {
            self.noted_position = before.position;
            for object in settled_objects(&before) {
                self.busy.remove(object);
                self.blocked.remove(object);
            }
            for (object, _) in &before.blocked {
                self.blocked.remove(object);
            }
            // Unless more of their events have become late since.
            self.blocked
                .extend(self.progress.blocked.iter().map(|(object, _)| object.clone()));
            return !(before.blocked.is_empty() && before.failed.is_empty() && before.done.is_empty());
        }
        before.blocked.append(&mut self.progress.blocked);
        before.failed.append(&mut self.progress.failed);
        before.done.append(&mut self.progress.done);
        self.progress = before;
        false
    }

    /// Returns how many outcomes are not noted; a position that has moved counts as one.
    pub(super) fn unnoted(&self) -> usize {
        let DeliveryProgress {
            blocked, failed, done, ..
        } = &self.progress;
        blocked.len() + failed.len() + done.len() + usize::from(self.position > self.noted_position)
    }

    /// Returns the objects of which no late event can be sent now.
    pub(super) fn unavailable(&self) -> impl Iterator<Item = &EventObject> {
        self.busy.iter().chain(&self.blocked)
    }

    /// Returns the last event that was read.
    pub(super) fn read_to(&self) -> i64 {
        self.read_to
    }

    /// Returns how many events after the position wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// Returns the size of their payloads in bytes.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    /// Returns how many late events are due and wait.
    pub(super) fn due(&self) -> usize {
        self.due.len()
    }

    /// Returns how many events are in memory.
    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    /// Returns how many events are being sent.
    pub(super) fn sending(&self) -> usize {
        self.sending
    }
}

/// Returns the objects with events that are late, or no longer late.
fn settled_objects(progress: &DeliveryProgress) -> impl Iterator<Item = &EventObject> {
    let failed = progress.failed.iter().map(|failed| &failed.object);
    failed.chain(progress.done.iter().map(|(object, _)| object))
}

/// Whether an event is made from the mirror's row.
pub(super) fn is_from_mirror(id: i64) -> bool {
    id == FROM_MIRROR
}

#[cfg(test)]
mod tests;
