//! Compares the users of a page with the mirror, and turns them into the batch that stores the
//! difference.

use std::{
    borrow::Cow,
    collections::{BTreeSet, HashMap, HashSet},
    sync::{Mutex, PoisonError},
};

use tracing::warn;

use super::recheck::{REPLICA_LAG, ReplicaTrust};
use crate::{
    clerk,
    failure::Failure,
    mirror::{Batch, Document, Mirror, Rejected, Rows, Write},
    reconcile::{
        ListEntry,
        diff::{Comparison, Fetched, Known, compare},
        range::Range,
    },
    resource::{Change, Digest, FieldValue, Record, Rejection, Resource, decode, decode_stored},
};

/// Some users of a page, to be compared with the mirror.
pub(super) struct PageUsers<'p> {
    resource: &'static Resource,
    page: &'p clerk::Page,
    /// Users with an id and a `created_at`, whose documents can be compared.
    readable: Vec<&'p clerk::RawObject>,
    /// The other users.
    rejected: Vec<Rejected>,
}

/// The id of a user in walks and rejections; a digest of the document if it has no id.
pub(super) fn id_or_digest(raw: &clerk::RawObject) -> Cow<'_, str> {
    raw.id.as_deref().map(Cow::from).unwrap_or_else(|| {
        let digest: String = raw.digest.0[..6].iter().map(|byte| format!("{byte:02x}")).collect();
        format!("(no id, digest {digest})").into()
    })
}

/// The ids of a page's users in walks.
pub(super) fn page_ids(page: &clerk::Page) -> Vec<Cow<'_, str>> {
    page.objects().iter().map(id_or_digest).collect()
}

/// A page's users as a walk sees them, with their [`page_ids`].
pub(super) fn page_entries<'p>(page: &'p clerk::Page, ids: &'p [Cow<'p, str>]) -> Vec<ListEntry<'p>> {
    let entries = page.objects().iter().zip(ids).map(|(raw, id)| ListEntry {
        id,
        created_at: raw.created_at,
        updated_at: raw.updated_at,
    });
    entries.collect()
}

impl<'p> PageUsers<'p> {
    pub(super) fn new(resource: &'static Resource, page: &'p clerk::Page, users: Vec<&'p clerk::RawObject>) -> Self {
        let mut sorted = Self {
            resource,
            page,
            readable: Vec::new(),
            rejected: Vec::new(),
        };
        for raw in users {
            if raw.id.is_some() && raw.created_at.is_some() && !raw.is_mangled {
                sorted.readable.push(raw);
                continue;
            }
            let document = page.document(raw);
            let rejection = match decode(resource, document) {
                _ if raw.is_mangled => Rejection::new("the document is not valid UTF-8"),
                Err(rejection) => rejection,
                Ok(_) => Rejection::new("its id or created_at cannot be read"),
            };
            sorted.rejected.push(rejected(raw, rejection, document));
        }
        sorted
    }

    /// The ids of the readable users.
    pub(super) fn ids(&self) -> Vec<&'p str> {
        self.readable.iter().filter_map(|raw| raw.id.as_deref()).collect()
    }

    fn fetched(&self) -> Vec<Fetched<'p>> {
        let fetched = |raw: &&'p clerk::RawObject| {
            Some(Fetched {
                id: raw.id.as_deref()?,
                digest: raw.digest,
            })
        };
        self.readable.iter().filter_map(fetched).collect()
    }
}

/// A user whose document cannot be stored.
fn rejected(raw: &clerk::RawObject, Rejection { reason }: Rejection, document: &str) -> Rejected {
    Rejected {
        object_id: id_or_digest(raw).into_owned(),
        reason,
        document: Some(Rejected::kept(document)),
        digest: Some(raw.digest),
        created_at: raw.created_at,
        sqlstate: None,
    }
}

/// The mirror's rows for the users of a page, and how the users differ from them.
pub(super) struct StoredRows {
    /// Rows of the judged range.
    known: Vec<Known>,
    comparison: Comparison,
    /// Documents of the users that differ, by id.
    stored: HashMap<String, String>,
    /// Ids among them whose rows were updated a moment ago.
    fresh: HashSet<String>,
    /// Ids of rows that are marked as deleted though Clerk shows their users again.
    returned: HashSet<String>,
    /// The range of `created_at` that the page shows completely.
    judged: Option<Range>,
    /// Ids of that range that earlier pages showed.
    carried: HashSet<String>,
}

impl StoredRows {
    /// Loads the rows and compares. `mirror` is `None` if there is no schema yet.
    pub(super) async fn load(
        mirror: Option<&Mirror>,
        users: &PageUsers<'_>,
        judged: Option<Range>,
        mut carried: HashSet<String>,
    ) -> Result<Self, Failure> {
        let fetched = users.fetched();
        carried.extend(users.rejected.iter().map(|user| user.object_id.clone()));
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
        let in_range: HashSet<&str> = known.iter().map(|row| row.id.as_str()).collect();
        let elsewhere: Vec<&str> = fetched
            .iter()
            .map(|user| user.id)
            .filter(|id| !in_range.contains(id))
            .collect();
        let elsewhere = mirror.rows().by_ids(&elsewhere).await?;
        let in_judged = known.len();
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
        known.truncate(in_judged);
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

    /// Loads more rows of the judged range, and returns the missing ids among them. `None` if all
    /// rows are loaded, which is nearly always so: the range holds more rows than a page only if
    /// Clerk's list has a gap.
    pub(super) async fn next_missing(
        &mut self,
        mirror: &Mirror,
        users: &PageUsers<'_>,
    ) -> Result<Option<Vec<String>>, Failure> {
        let Some((judged, last)) = self.judged.zip(self.known.last()) else {
            return Ok(None);
        };
        if (self.known.len() as i64) < Rows::MAX_ROWS {
            return Ok(None);
        }
        self.known = mirror.rows().range(judged, Some(last)).await?;
        let comparison = compare(&users.fetched(), &self.known, Some(judged), &self.carried);
        Ok((!self.known.is_empty()).then_some(comparison.missing))
    }
}

/// The decoded users to be written. The batch borrows from them.
pub(super) struct DecodedUsers<'p> {
    create: Vec<Result<Record<'p>, Box<Rejected>>>,
    differ: Vec<Result<Record<'p>, Box<Rejected>>>,
}

impl<'p> DecodedUsers<'p> {
    pub(super) fn new(users: &PageUsers<'p>, rows: &StoredRows) -> Self {
        let all = |positions: &[usize]| {
            positions
                .iter()
                .map(|&at| {
                    let raw = users.readable[at];
                    let document = users.page.document(raw);
                    decode(users.resource, document).map_err(|rejection| Box::new(rejected(raw, rejection, document)))
                })
                .collect()
        };
        Self {
            create: all(&rows.comparison.create),
            differ: all(&rows.comparison.differ),
        }
    }
}

/// The batch that stores the users, and the ids of users that Clerk shows in a state that is not
/// trusted yet. `listed` are the users listed as rejected.
pub(super) fn batch<'d>(
    users: &'d PageUsers<'_>,
    rows: &StoredRows,
    decoded: &'d DecodedUsers<'_>,
    listed: &HashMap<String, Option<Digest>>,
    trust: ReplicaTrust<'_>,
) -> (Batch<'d>, Vec<String>) {
    let mut older = Vec::new();
    let ids = users.readable.iter().filter_map(|raw| raw.id.as_ref());
    let mut batch = Batch {
        unchanged: rows.comparison.unchanged,
        reject: users.rejected.clone(),
        unreject: ids.filter(|id| listed.contains_key(*id)).cloned().collect(),
        missing: rows.comparison.missing.clone(),
        ..Batch::default()
    };
    let write = |at: usize, record: &'d Record<'d>, changed| Write {
        record,
        changed,
        returns: rows.returned.contains(record.id.as_ref()),
        digest: users.readable[at].digest,
        document: users.page.document(users.readable[at]),
    };
    for (&at, user) in rows.comparison.create.iter().zip(&decoded.create) {
        match user {
            Ok(user) if !trust.accepts_new(&user.id) => older.push(user.id.to_string()),
            Ok(user) => batch.create.push(write(at, user, Vec::new())),
            Err(rejected) => batch.reject.push(Rejected::clone(rejected)),
        }
    }
    for (&at, user) in rows.comparison.differ.iter().zip(&decoded.differ) {
        let user = match user {
            Ok(user) => user,
            Err(rejected) => {
                batch.reject.push(Rejected::clone(rejected));
                continue;
            }
        };
        let (change, is_older) = change(rows, user);
        let is_trusted = match rows.returned.contains(user.id.as_ref()) {
            true => trust.accepts_new(&user.id),
            false => !is_older || trust.accepts_older(&user.id, rows.fresh.contains(user.id.as_ref())),
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

/// Warns of values that do not fit their columns, once for each field: all users may have such a
/// value.
pub(super) fn warn_of_unexpected(batch: &Batch<'_>) {
    static KNOWN: Mutex<BTreeSet<&str>> = Mutex::new(BTreeSet::new());
    for write in batch.create.iter().chain(&batch.update).chain(&batch.refresh) {
        for &field in &write.record.unexpected {
            if KNOWN.lock().unwrap_or_else(PoisonError::into_inner).insert(field) {
                warn!(
                    field,
                    user_id = write.record.id.as_ref(),
                    "a value of an unexpected type: its column is NULL and extra holds the value; \
                     `clerk2pg status` counts the users"
                );
            }
        }
    }
}

/// What a user's document changes, and whether it is older than the stored one.
fn change(rows: &StoredRows, new: &Record<'_>) -> (Change, bool) {
    let was_deleted = rows.returned.contains(new.id.as_ref());
    match rows
        .stored
        .get(new.id.as_ref())
        .map(|document| decode_stored(new.resource, document))
    {
        Some(Ok(old)) => {
            let is_older = updated_at(new) < updated_at(&old) && updated_at(new).is_some();
            let change = match old.change(new) {
                // The row was marked as deleted: that alone is a change.
                Change::Update(mut changed) if was_deleted => {
                    changed.push("deleted_at".to_owned());
                    Change::Update(changed)
                }
                _ if was_deleted => Change::Update(vec!["deleted_at".to_owned()]),
                change => change,
            };
            (change, is_older)
        }
        // The stored row cannot be read, or was deleted a moment ago. It is written as a whole.
        Some(Err(_)) | None => (Change::Update(vec!["id".to_owned()]), false),
    }
}

/// The user's `updated_at` in Unix milliseconds; `None` if the document has none.
fn updated_at(user: &Record<'_>) -> Option<i64> {
    match user.get("updated_at") {
        Some(FieldValue::Time(at)) => Some(*at),
        _ => None,
    }
}
