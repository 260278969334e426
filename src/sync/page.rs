//! Turns the users of a page into the batch that brings the mirror in sync with them.

use std::{
    borrow::Cow,
    collections::{BTreeSet, HashMap, HashSet},
    sync::{Mutex, PoisonError},
};

use tracing::warn;

use super::recheck::{REPLICA_LAG, Trust};
use crate::{
    clerk,
    failure::Failure,
    mirror::{Batch, Document, Mirror, Rejected, Rows, Write},
    reconcile::{
        diff::{Comparison, Fetched, Known, compare},
        walk::Range,
    },
    resource::{Change, Digest, Rejection, User, Value, decode, decode_stored},
};

/// Some users of a page, to be held against the mirror.
pub(super) struct Chosen<'p> {
    page: &'p clerk::Page,
    /// Users with an id and a time, whose documents can be looked at.
    readable: Vec<&'p clerk::Raw>,
    /// The others.
    rejected: Vec<Rejected>,
}

/// The name of a user in walks and rejections; of one without an id, what stands for it.
pub(super) fn name(raw: &clerk::Raw) -> Cow<'_, str> {
    raw.id.as_deref().map(Cow::from).unwrap_or_else(|| {
        let digest: String = raw.digest.0[..6].iter().map(|byte| format!("{byte:02x}")).collect();
        format!("(no id, digest {digest})").into()
    })
}

impl<'p> Chosen<'p> {
    pub(super) fn new(page: &'p clerk::Page, users: Vec<&'p clerk::Raw>) -> Self {
        let mut chosen = Self {
            page,
            readable: Vec::new(),
            rejected: Vec::new(),
        };
        for raw in users {
            if raw.id.is_some() && raw.created_at.is_some() && !raw.is_mangled {
                chosen.readable.push(raw);
                continue;
            }
            let document = page.document(raw);
            let rejection = match decode(document) {
                _ if raw.is_mangled => Rejection::new("the document is not valid UTF-8"),
                Err(rejection) => rejection,
                Ok(_) => Rejection::new("its id or created_at cannot be read"),
            };
            chosen.rejected.push(rejected(raw, rejection, document));
        }
        chosen
    }

    /// Ids of the readable users.
    pub(super) fn ids(&self) -> Vec<&'p str> {
        self.readable.iter().filter_map(|raw| raw.id.as_deref()).collect()
    }

    fn fetched(&self) -> Vec<Fetched<'p>> {
        let fetched = |raw: &&'p clerk::Raw| {
            Some(Fetched {
                id: raw.id.as_deref()?,
                digest: raw.digest,
            })
        };
        self.readable.iter().filter_map(fetched).collect()
    }
}

fn rejected(raw: &clerk::Raw, Rejection { reason }: Rejection, document: &str) -> Rejected {
    Rejected {
        user_id: name(raw).into_owned(),
        reason,
        document: Some(Rejected::kept(document)),
        digest: Some(raw.digest),
        created_at: raw.created_at,
        sqlstate: None,
    }
}

/// What the comparison needs from the mirror, loaded before it runs.
pub(super) struct Loaded {
    known: Vec<Known>,
    comparison: Comparison,
    /// Documents of the users that differ, by id.
    stored: HashMap<String, String>,
    /// Ids of the rows among them that were updated a moment ago.
    fresh: HashSet<String>,
    /// Users marked as deleted that are there again.
    returned: HashSet<String>,
    judged: Option<Range>,
    carried: HashSet<String>,
}

impl Loaded {
    /// Loads the mirror's side and compares.
    pub(super) async fn new(
        mirror: Option<&Mirror>,
        chosen: &Chosen<'_>,
        judged: Option<Range>,
        mut carried: HashSet<String>,
    ) -> Result<Self, Failure> {
        let fetched = chosen.fetched();
        carried.extend(chosen.rejected.iter().map(|user| user.user_id.clone()));
        let Some(mirror) = mirror else {
            return Ok(Self {
                comparison: compare(&fetched, &[], None, &carried),
                known: Vec::new(),
                stored: HashMap::new(),
                fresh: HashSet::new(),
                returned: HashSet::new(),
                judged: None,
                carried,
            });
        };
        let mut known = match judged {
            Some(judged) => mirror.rows().range(judged, None).await?,
            None => Vec::new(),
        };
        let in_stretch: HashSet<&str> = known.iter().map(|row| row.id.as_str()).collect();
        let elsewhere: Vec<&str> = fetched
            .iter()
            .map(|user| user.id)
            .filter(|id| !in_stretch.contains(id))
            .collect();
        let elsewhere = mirror.rows().by_ids(&elsewhere).await?;
        let stretch = known.len();
        known.extend(elsewhere);
        let comparison = compare(&fetched, &known, judged, &carried);
        let differ: Vec<&str> = comparison.differ.iter().map(|&at| fetched[at].id).collect();
        let documents = mirror.rows().documents(&differ, REPLICA_LAG).await?;
        let (mut stored, mut fresh) = (HashMap::new(), HashSet::new());
        for Document { id, document, is_fresh } in documents {
            if is_fresh {
                fresh.insert(id.clone());
            }
            stored.insert(id, document);
        }
        let returned = known
            .iter()
            .filter(|row| row.deleted)
            .map(|row| row.id.clone())
            .collect();
        known.truncate(stretch);
        Ok(Self {
            known,
            comparison,
            stored,
            fresh,
            returned,
            judged,
            carried,
        })
    }

    /// Where the stretch holds more rows than are loaded at a time, the missing among the next ones. A stretch is larger than a page only
    /// where Clerk's list has a gap, so nearly always there are none.
    pub(super) async fn rest(&mut self, mirror: &Mirror, chosen: &Chosen<'_>) -> Result<Option<Vec<String>>, Failure> {
        let Some((judged, last)) = self.judged.zip(self.known.last()) else {
            return Ok(None);
        };
        if (self.known.len() as i64) < Rows::MAX_ROWS {
            return Ok(None);
        }
        self.known = mirror.rows().range(judged, Some(last)).await?;
        let comparison = compare(&chosen.fetched(), &self.known, Some(judged), &self.carried);
        Ok((!self.known.is_empty()).then_some(comparison.missing))
    }
}

/// The users to be written, decoded: the batch borrows from them.
pub(super) struct Decoded<'p> {
    create: Vec<Result<User<'p>, Box<Rejected>>>,
    differ: Vec<Result<User<'p>, Box<Rejected>>>,
}

impl<'p> Decoded<'p> {
    pub(super) fn new(chosen: &Chosen<'p>, loaded: &Loaded) -> Self {
        let all = |positions: &[usize]| {
            positions
                .iter()
                .map(|&at| {
                    let raw = chosen.readable[at];
                    let document = chosen.page.document(raw);
                    decode(document).map_err(|rejection| Box::new(rejected(raw, rejection, document)))
                })
                .collect()
        };
        Self {
            create: all(&loaded.comparison.create),
            differ: all(&loaded.comparison.differ),
        }
    }
}

/// The batch that stores the chosen users, and the ids of those that are not trusted to be in this state any more. `listed`
/// are listed as rejected.
pub(super) fn batch<'d>(
    chosen: &'d Chosen<'_>,
    loaded: &Loaded,
    decoded: &'d Decoded<'_>,
    listed: &HashMap<String, Option<Digest>>,
    trust: Trust<'_>,
) -> (Batch<'d>, Vec<String>) {
    let mut older = Vec::new();
    let ids = chosen.readable.iter().filter_map(|raw| raw.id.as_ref());
    let mut batch = Batch {
        unchanged: loaded.comparison.unchanged,
        reject: chosen.rejected.clone(),
        unreject: ids.filter(|id| listed.contains_key(*id)).cloned().collect(),
        missing: loaded.comparison.missing.clone(),
        ..Batch::default()
    };
    let write = |at: usize, user: &'d User<'d>, changed| Write {
        user,
        changed,
        returns: loaded.returned.contains(user.id.as_ref()),
        digest: chosen.readable[at].digest,
        document: chosen.page.document(chosen.readable[at]),
    };
    for (&at, user) in loaded.comparison.create.iter().zip(&decoded.create) {
        match user {
            Ok(user) if !trust.takes_new(&user.id) => older.push(user.id.to_string()),
            Ok(user) => batch.create.push(write(at, user, Vec::new())),
            Err(rejected) => batch.reject.push(Rejected::clone(rejected)),
        }
    }
    for (&at, user) in loaded.comparison.differ.iter().zip(&decoded.differ) {
        let user = match user {
            Ok(user) => user,
            Err(rejected) => {
                batch.reject.push(Rejected::clone(rejected));
                continue;
            }
        };
        let (change, is_older) = change(loaded, user);
        let is_trusted = match loaded.returned.contains(user.id.as_ref()) {
            true => trust.takes_new(&user.id),
            false => !is_older || trust.takes_older(&user.id, loaded.fresh.contains(user.id.as_ref())),
        };
        match change {
            _ if !is_trusted => {
                batch.unchanged += 1;
                older.push(user.id.to_string());
            }
            Change::Same => batch.unchanged += 1,
            Change::Refresh => batch.refresh.push(write(at, user, Vec::new())),
            Change::Update(changed) => batch.update.push(write(at, user, changed)),
        }
    }
    (batch, older)
}

/// Warns of fields whose values do not fit their columns: once for each field, as all users may have such a value.
pub(super) fn warn_of_unexpected(batch: &Batch<'_>) {
    static KNOWN: Mutex<BTreeSet<&str>> = Mutex::new(BTreeSet::new());
    for write in batch.create.iter().chain(&batch.update).chain(&batch.refresh) {
        for &field in &write.user.unexpected {
            if KNOWN.lock().unwrap_or_else(PoisonError::into_inner).insert(field) {
                warn!(
                    field,
                    user_id = write.user.id.as_ref(),
                    "a value of an unexpected type: its column is NULL and extra holds the value; \
                     `clerk2pg status` counts the users"
                );
            }
        }
    }
}

/// What a user's document changes, and whether it is older than the stored one.
fn change(loaded: &Loaded, new: &User<'_>) -> (Change, bool) {
    let was_deleted = loaded.returned.contains(new.id.as_ref());
    match loaded
        .stored
        .get(new.id.as_ref())
        .map(|document| decode_stored(document))
    {
        Some(Ok(old)) => {
            let is_older = updated_at(new) < updated_at(&old) && updated_at(new).is_some();
            let change = match old.change(new) {
                // Marked as deleted, and there again: a change, whatever else is the same.
                Change::Update(mut changed) if was_deleted => {
                    changed.push("deleted_at".to_owned());
                    Change::Update(changed)
                }
                _ if was_deleted => Change::Update(vec!["deleted_at".to_owned()]),
                change => change,
            };
            (change, is_older)
        }
        // A row that somebody made unreadable, or that went a moment ago: it is written whole.
        Some(Err(_)) | None => (Change::Update(vec!["id".to_owned()]), false),
    }
}

/// In Unix milliseconds; `None` if Clerk does not say it.
fn updated_at(user: &User<'_>) -> Option<i64> {
    match user.get("updated_at") {
        Some(Value::Time(at)) => Some(*at),
        _ => None,
    }
}
