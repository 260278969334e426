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
    /// How the ids of numbered events begin. It is the same for all events of a database.
    prefix: Option<String>,
    /// Hashes of the users' documents.
    pub table: BTreeMap<String, u64>,
    /// The same table if repeated events changed it.
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

    /// Notes a message, and checks its signature and its time. Whether it may be accepted.
    pub fn verify(&mut self, message: &ReceivedEvent) -> bool {
        let headers =
            ["svix-id", "svix-timestamp", "svix-signature"].map(|name| message.header(name).unwrap_or_default());
        let [id, timestamp, signature] = headers;
        let Ok(timestamp) = timestamp.parse() else {
            self.wrong.push(format!("{id:?} has the time {timestamp:?}"));
            return false;
        };
        let expected = self.secret.sign(id, timestamp, message.body.as_bytes());
        if !expected.is_ok_and(|expected| expected == signature) {
            self.wrong.push(format!("{id:?} has a wrong signature"));
            return false;
        }
        let hash = hash_of(&message.body);
        let (first, _) = self.messages.entry(id.to_owned()).or_insert((hash, false));
        if *first != hash {
            self.wrong.push(format!("{id:?} has another body than before"));
        }
        if number(id) > 0 {
            let prefix = self.prefix.get_or_insert_with(|| id[..PREFIX].to_owned());
            if !id.starts_with(prefix.as_str()) {
                self.wrong.push(format!("{id:?} begins otherwise than {prefix:?}"));
            }
        }
        let is_timely = (now() / 1000 - timestamp).abs() <= TOLERANCE;
        self.untimely += u64::from(!is_timely);
        is_timely
    }

    /// Accepts a message that was verified.
    pub fn accept(&mut self, message: &ReceivedEvent) {
        let id = message.id();
        let mut event = message.event();
        let (kind, data) = (event["type"].take(), event["data"].take());
        let Some(user) = data["id"].as_str().map(str::to_owned) else {
            self.wrong.push(format!("{id:?} has no id of a user"));
            return;
        };
        let document = (kind != "user.deleted").then(|| digest(data));
        store(&mut self.forgetful_table, &user, document);
        let number = number(id);
        let last = self.last.entry(user.clone()).or_default();
        if let Some((_, is_accepted)) = self.messages.get_mut(id)
            && std::mem::replace(is_accepted, true)
        {
            self.repeated += 1;
            self.overtaken += u64::from(*last > number);
            return;
        }
        if *last > number {
            let after = *last;
            self.disordered.push(Disorder {
                user: user.clone(),
                number,
                after,
            });
        }
        *last = number.max(*last);
        store(&mut self.table, &user, document);
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
