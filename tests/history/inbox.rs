//! What a subscriber has accepted of the events, and the table that it has built from them.

use std::{
    collections::{BTreeMap, HashMap},
    hash::{DefaultHasher, Hash, Hasher},
};

use standardwebhooks::Webhook;

use crate::{
    clerk::now,
    invariants::digest,
    support::receiver::{ReceivedEvent, SECRET},
};

/// How wrong the time of a message may be, in seconds, as in Svix's libraries.
const TOLERANCE: i64 = 5 * 60;

/// Characters of a message's id before the event's number.
const PREFIX: usize = 20;

/// What was seen and accepted. As Svix recommends, it remembers the ids of messages, `svix-id`.
pub struct Inbox {
    secret: Webhook,
    /// Hashes of all messages that were seen, by id, and whether they were accepted.
    messages: HashMap<String, (u64, bool)>,
    /// The ids of the messages that are made from the mirror's rows, by user.
    first: HashMap<String, String>,
    /// Users with two such ids.
    pub renamed: Vec<String>,
    /// How the ids of numbered events begin. It is the same for all events of a database.
    prefix: Option<String>,
    /// Hashes of the users' documents.
    pub table: BTreeMap<String, u64>,
    /// The same table, of a handler that does not remember ids and is done at once.
    pub forgetful_table: BTreeMap<String, u64>,
    /// The last event of each user, by number.
    last: HashMap<String, i64>,
    pub disordered: Vec<Disorder>,
    /// What is wrong with messages: no correct sender sends such.
    pub wrong: Vec<String>,
    /// Messages that were refused because of their time.
    pub untimely: u64,
    /// Messages that were accepted already.
    pub repeated: u64,
    /// Those of them that came after a newer event of their user.
    pub overtaken: u64,
}

/// A message that may be accepted.
#[derive(Clone)]
pub struct Arrival {
    id: String,
    pub user: String,
    /// Hash of the user's document; `None` if the user was deleted.
    document: Option<u64>,
}

/// An event that was accepted after a newer one of its user.
pub struct Disorder {
    pub user: String,
    /// The number of the event; 0 for one that is made from the mirror's row.
    pub number: i64,
    /// The newer one.
    pub after: i64,
}

impl Inbox {
    pub fn new() -> Self {
        Self {
            secret: Webhook::new(SECRET).unwrap(),
            messages: HashMap::new(),
            first: HashMap::new(),
            renamed: Vec::new(),
            prefix: None,
            table: BTreeMap::new(),
            forgetful_table: BTreeMap::new(),
            last: HashMap::new(),
            disordered: Vec::new(),
            wrong: Vec::new(),
            untimely: 0,
            repeated: 0,
            overtaken: 0,
        }
    }

    /// Reads a message, and checks its signature and its time. `None` if it must be refused.
    pub fn read(&mut self, message: &ReceivedEvent) -> Option<Arrival> {
        let headers = ["svix-id", "svix-timestamp", "svix-signature"];
        let [id, timestamp, signature] = headers.map(|name| message.header(name).unwrap_or_default());
        let Ok(timestamp) = timestamp.parse() else {
            self.wrong.push(format!("{id:?} has the time {timestamp:?}"));
            return None;
        };
        let expected = self.secret.sign(id, timestamp, message.body.as_bytes());
        if !expected.is_ok_and(|expected| expected == signature) {
            self.wrong.push(format!("{id:?} has a wrong signature"));
            return None;
        }
        let mut event = message.event();
        let (kind, data) = (event["type"].take(), event["data"].take());
        let Some(user) = data["id"].as_str().map(str::to_owned) else {
            self.wrong.push(format!("{id:?} has no id of a user"));
            return None;
        };
        self.check_id(id, &user, hash_of(&message.body));
        let is_timely = (now() / 1000 - timestamp).abs() <= TOLERANCE;
        self.untimely += u64::from(!is_timely);
        is_timely.then(|| Arrival {
            id: id.to_owned(),
            user,
            document: (kind != "user.deleted").then(|| digest(data)),
        })
    }

    fn check_id(&mut self, id: &str, user: &str, hash: u64) {
        let (before, _) = self.messages.entry(id.to_owned()).or_insert((hash, false));
        if number(id) == 0 {
            // What is made from a row shows the user's current state.
            let first = self.first.entry(user.to_owned()).or_insert_with(|| id.to_owned());
            if first != id {
                self.renamed.push(user.to_owned());
            }
            return;
        }
        let prefix = self.prefix.get_or_insert_with(|| id[..PREFIX].to_owned());
        if *before != hash || !id.starts_with(prefix.as_str()) {
            let wrong = format!("{id:?} has another body than before, or does not begin with {prefix:?}");
            self.wrong.push(wrong);
        }
    }

    /// Notes an event that will be accepted, at its arrival.
    pub fn arrives(&mut self, event: &Arrival) {
        store(&mut self.forgetful_table, &event.user, event.document);
    }

    /// Accepts an event.
    pub fn accept(&mut self, event: Arrival) {
        let Arrival { id, user, document } = event;
        let number = number(&id);
        let after = self.last.get(&user).copied().unwrap_or_default();
        if let Some((_, is_accepted)) = self.messages.get_mut(&id)
            && std::mem::replace(is_accepted, true)
        {
            self.repeated += 1;
            self.overtaken += u64::from(after > number);
            return;
        }
        store(&mut self.table, &user, document);
        if after > number {
            self.disordered.push(Disorder { user, number, after });
        } else {
            self.last.insert(user, number);
        }
    }

    /// Returns how many numbered events were seen.
    pub fn numbered(&self) -> usize {
        self.messages.keys().filter(|id| number(id) > 0).count()
    }

    /// Returns how many messages were accepted.
    pub fn accepted(&self) -> usize {
        self.messages.values().filter(|(_, is_accepted)| *is_accepted).count()
    }

    /// Returns whether an event was accepted, by its number and body; `None` if it was not seen.
    pub fn has_accepted(&self, number: i64, body: &str) -> Option<bool> {
        let id = format!("{}{number:011}", self.prefix.as_deref()?);
        let (hash, is_accepted) = self.messages.get(&id)?;
        assert_eq!(*hash, hash_of(body), "{id} had another body than the event {number}");
        Some(*is_accepted)
    }

    pub fn prefix(&self) -> Option<&str> {
        self.prefix.as_deref()
    }
}

fn store(table: &mut BTreeMap<String, u64>, user: &str, document: Option<u64>) {
    match document {
        Some(document) => table.insert(user.to_owned(), document),
        None => table.remove(user),
    };
}

/// Returns the number of the event with which the id of a message ends; 0 if it is made from the
/// mirror's row.
fn number(id: &str) -> i64 {
    id.get(PREFIX..).and_then(|number| number.parse().ok()).unwrap_or(0)
}

pub fn hash_of(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}
