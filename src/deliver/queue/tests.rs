//! The queue against a model of the database: whatever fails, and whenever the process ends,
//! nothing is lost, and each object's events keep their order.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

fn object(number: u8) -> EventObject {
    EventObject {
        resource: "users".to_owned(),
        id: format!("user_{number}"),
    }
}

/// Whether the endpoint gets events of an event's type.
fn is_wanted(id: i64) -> bool {
    id % 7 != 0
}

/// What `clerk.events`, `clerk.endpoints` and `clerk.deliveries` hold.
#[derive(Default)]
struct Model {
    events: Vec<EventObject>,
    position: i64,
    /// Attempts by object and event.
    late: BTreeMap<(EventObject, i64), u32>,
    dead: BTreeSet<i64>,
}

impl Model {
    fn pending(&self, after: i64, limit: usize) -> Vec<PendingEvent> {
        let ids = (after + 1..=self.events.len() as i64).take(limit);
        ids.map(|id| {
            let object = self.events[id as usize - 1].clone();
            PendingEvent {
                id,
                is_blocked: self.late.keys().any(|(late, _)| *late == object),
                object,
                payload: is_wanted(id).then(|| id.to_string()),
            }
        })
        .collect()
    }

    /// The first late event of each object, up to an id.
    fn due(&self, up_to: i64, limit: usize) -> Vec<LateEvent> {
        let mut heads = BTreeMap::new();
        for ((object, id), attempts) in &self.late {
            heads.entry(object).or_insert((*id, *attempts));
        }
        let heads = heads.into_iter().filter(|(_, (id, _))| *id <= up_to).take(limit);
        heads
            .map(|(object, (id, attempts))| LateEvent {
                id,
                object: object.clone(),
                asked_at: 0,
                payload: Some(id.to_string()),
                attempts,
            })
            .collect()
    }

    fn note(&mut self, progress: &DeliveryProgress) {
        self.position = self.position.max(progress.position);
        for (object, id) in &progress.blocked {
            self.late.entry((object.clone(), *id)).or_insert(0);
        }
        for failed in &progress.failed {
            let key = (failed.object.clone(), failed.event_id);
            if failed.retry_in.is_some() {
                self.late.insert(key, failed.attempts);
            } else {
                self.late.remove(&key);
                self.dead.insert(failed.event_id);
            }
        }
        for done in &progress.done {
            self.late.remove(done);
        }
    }
}

/// A step of a history.
#[derive(Debug, Clone)]
enum Step {
    /// An event of an object is recorded.
    Event(u8),
    /// The database begins to read events.
    Read,
    /// It begins to read late events, too.
    ReadLate,
    Send,
    /// The oldest event that is being sent ends like this.
    End(Ending),
    /// The database begins to note outcomes.
    Note,
    /// The database is done, or it has failed.
    Finish(bool),
    /// The endpoint is paused.
    Forget,
    /// The events that are being sent take long.
    SetAside,
    PassFirst,
    /// The process is killed, and another one continues.
    Kill,
}

#[derive(Debug, Clone, Copy)]
enum Ending {
    Delivered,
    Failed,
    Unsent,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..4_u8).prop_map(Step::Event),
        3 => Just(Step::Read),
        2 => Just(Step::ReadLate),
        6 => Just(Step::Send),
        4 => Just(Step::End(Ending::Delivered)),
        2 => Just(Step::End(Ending::Failed)),
        1 => Just(Step::End(Ending::Unsent)),
        3 => Just(Step::Note),
        5 => prop::bool::weighted(0.8).prop_map(Step::Finish),
        1 => Just(Step::Forget),
        1 => Just(Step::SetAside),
        1 => Just(Step::PassFirst),
        1 => Just(Step::Kill),
    ]
}

/// What the database does for the process.
enum Operation {
    Read {
        after: i64,
        events: Vec<PendingEvent>,
        late: Vec<LateEvent>,
    },
    Note(DeliveryProgress),
}

/// A process that delivers, and what the receiver has got.
struct Play {
    model: Model,
    queue: Queue,
    operation: Option<Operation>,
    sending: VecDeque<Dispatch>,
    /// The events that were accepted, in their order, since the process began.
    accepted: Vec<i64>,
    ever: BTreeSet<i64>,
    /// Events that a killed process may have delivered.
    in_doubt: BTreeSet<i64>,
}

impl Play {
    fn new() -> Self {
        Self {
            model: Model::default(),
            queue: Queue::new(0),
            operation: None,
            sending: VecDeque::new(),
            accepted: Vec::new(),
            ever: BTreeSet::new(),
            in_doubt: BTreeSet::new(),
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Event(number) => self.model.events.push(object(*number)),
            Step::Read => self.read(0),
            Step::ReadLate => self.read(2),
            Step::Send => {
                if let Some(sent) = self.queue.next(1) {
                    let is_busy = self.sending.iter().any(|other| other.object == sent.object);
                    assert!(!is_busy, "two events of an object are sent at a time");
                    self.sending.push_back(sent);
                }
            }
            Step::End(ending) => self.end(*ending),
            Step::Note => {
                if self.operation.is_none() {
                    self.operation = Some(Operation::Note(self.queue.begin_note()));
                }
            }
            Step::Finish(is_done) => self.finish_operation(*is_done),
            Step::Forget => self.queue.forget_waiting(),
            Step::SetAside => self.queue.set_aside(),
            Step::PassFirst => self.queue.pass_first(),
            Step::Kill => {
                self.queue = Queue::new(self.model.position);
                self.operation = None;
                self.sending.clear();
                self.accepted.clear();
                self.in_doubt
                    .extend(self.model.position + 1..=self.model.events.len() as i64);
            }
        }
    }

    /// Begins to read, if the database is free.
    fn read(&mut self, late: usize) {
        let after = self.queue.read_to();
        if self.operation.is_none() {
            let events = self.model.pending(after, 3);
            let up_to = events.last().map_or(after, |last| last.id);
            let late = self.model.due(up_to, late);
            self.operation = Some(Operation::Read { after, events, late });
        }
    }

    fn finish_operation(&mut self, is_done: bool) {
        match self.operation.take() {
            Some(Operation::Note(progress)) => {
                if is_done {
                    self.model.note(&progress);
                }
                self.queue.noted(is_done);
            }
            Some(Operation::Read { after, events, late }) if is_done => {
                if self.queue.extend(after, events) {
                    self.queue.add_due(late);
                }
            }
            _ => {}
        }
    }

    fn end(&mut self, ending: Ending) {
        let Some(sent) = self.sending.pop_front() else { return };
        assert_eq!(sent.payload.as_ref(), sent.id.to_string());
        let attempts = sent.attempts + 1;
        let verdict = match ending {
            Ending::Delivered => {
                self.accept(sent.id);
                Verdict::Delivered
            }
            Ending::Unsent => Verdict::Unsent,
            Ending::Failed => Verdict::Failed {
                attempts,
                retry_in: (attempts < 4).then_some(Duration::ZERO),
                status: Some(500),
                error: String::new(),
            },
        };
        self.queue.settle(sent, verdict);
    }

    /// Records that an event was accepted: the earlier ones of its object were, or are dead.
    fn accept(&mut self, id: i64) {
        let object = &self.model.events[id as usize - 1];
        for earlier in 1..id {
            let is_same = self.model.events[earlier as usize - 1] == *object;
            let is_settled = !is_wanted(earlier) || self.ever.contains(&earlier) || self.model.dead.contains(&earlier);
            assert!(!is_same || is_settled, "{id} came before {earlier} of its object");
        }
        let is_same = |other: &&i64| self.model.events[**other as usize - 1] == *object;
        let last = self.accepted.iter().rfind(is_same);
        assert!(
            last.is_none_or(|last| *last <= id),
            "{id} came after {last:?} of its object"
        );
        let is_repeated = self.accepted.contains(&id);
        assert!(
            !is_repeated || self.in_doubt.contains(&id),
            "{id} was sent twice although nothing was killed"
        );
        self.accepted.push(id);
        self.ever.insert(id);
    }

    /// Lets everything work, until nothing is left.
    fn finish(&mut self) {
        for _ in 0..10_000 {
            for step in [
                Step::Finish(true),
                Step::ReadLate,
                Step::Finish(true),
                Step::Send,
                Step::End(Ending::Delivered),
                Step::Note,
                Step::Finish(true),
            ] {
                self.step(&step);
            }
            let is_read = self.model.position == self.model.events.len() as i64;
            if is_read && self.queue.len() == 0 && self.model.late.is_empty() && self.sending.is_empty() {
                return;
            }
        }
        panic!("events are stuck: {:?}", self.queue);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_lost_and_objects_keep_their_order(steps in prop::collection::vec(step(), 0..120)) {
        let mut play = Play::new();
        for step in &steps {
            play.step(step);
        }
        play.finish();
        let all: BTreeSet<i64> = (1..=play.model.events.len() as i64).filter(|id| is_wanted(*id)).collect();
        let settled: BTreeSet<i64> = play.ever.union(&play.model.dead).copied().collect();
        prop_assert_eq!(settled, all);
        prop_assert_eq!(play.model.position, play.model.events.len() as i64);
    }
}

#[test]
fn an_event_that_fails_holds_back_its_object_only() {
    let mut play = Play::new();
    for number in [1, 1, 2, 1, 2] {
        play.step(&Step::Event(number));
    }
    for _ in 0..2 {
        play.step(&Step::Read);
        play.step(&Step::Finish(true));
    }
    play.step(&Step::Send);
    play.step(&Step::End(Ending::Failed));
    play.step(&Step::Send);
    play.step(&Step::End(Ending::Delivered));
    play.step(&Step::Send);
    play.step(&Step::End(Ending::Delivered));
    play.step(&Step::Send);
    assert!(play.sending.is_empty());
    assert_eq!(play.accepted, [3, 5]);
    play.step(&Step::Note);
    play.step(&Step::Finish(true));
    assert_eq!(play.model.position, 5);
    let late: Vec<i64> = play.model.late.keys().map(|(_, id)| *id).collect();
    assert_eq!(late, [1, 2, 4]);
}

#[test]
fn late_events_get_only_some_of_the_places_while_others_wait() {
    let mut queue = Queue::new(10);
    let late = (1..=4).map(|number| LateEvent {
        id: i64::from(number),
        object: object(number),
        asked_at: 0,
        payload: Some(String::new()),
        attempts: 1,
    });
    queue.add_due(late.collect());
    assert!(queue.extend(
        10,
        vec![PendingEvent {
            id: 11,
            object: object(9),
            payload: Some(String::new()),
            is_blocked: false,
        }]
    ));
    let order: Vec<i64> = std::iter::from_fn(|| queue.next(2)).map(|sent| sent.id).collect();
    assert_eq!(order, [1, 11, 2, 3, 4]);
}

#[test]
fn unwanted_events_and_vanished_ones_are_passed_over() {
    let mut queue = Queue::new(0);
    assert!(queue.extend(
        0,
        vec![PendingEvent {
            id: 4,
            object: object(1),
            payload: None,
            is_blocked: false,
        }]
    ));
    queue.add_due(vec![LateEvent {
        id: 2,
        object: object(2),
        asked_at: 0,
        payload: None,
        attempts: 0,
    }]);
    assert!(queue.next(8).is_none());
    let progress = queue.begin_note();
    assert_eq!((progress.position, progress.done), (4, vec![(object(2), 2)]));
}
