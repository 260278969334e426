//! What a kind of Clerk object is, as data.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::value::FieldValue;

/// A kind of Clerk object that is mirrored.
#[derive(Debug)]
pub struct Resource {
    /// Its name in the plural, for example `users`.
    pub name: &'static str,
    /// What Clerk's ids of it begin with. Source: observed.
    pub id_prefix: &'static str,
    /// What its events are called, for example `user` in `user.created`. Source: documented.
    pub event: &'static str,
    /// Values of its field `status` that have events of their own, for example
    /// `organizationInvitation.accepted`.
    pub status_events: &'static [&'static str],
    /// What the event of a deletion tells of the object.
    pub deletion: Deletion,
    /// Its table, with the schema.
    pub table: &'static str,
    /// The SQL function that puts a document together from a row, with the schema.
    pub document: &'static str,
    /// The keys of its documents, each with a column of the same name. The first one is `id`.
    pub fields: &'static [Field],
    /// A key whose value is an excerpt of another object, which is mirrored by itself: it is neither
    /// stored nor compared.
    pub embedded: Option<&'static str>,
    /// Keys whose values are excerpts of other objects.
    pub excerpts: &'static [&'static str],
    /// A key of an excerpt that says which object it is of: it stays if the excerpt is left out.
    pub link: Option<(&'static str, &'static str)>,
    /// Columns that Clerk does not send but everybody asks for.
    pub derived: Derived,
    /// What Clerk's endpoint can list.
    pub list: List,
    /// How Clerk confirms that an object does not exist.
    pub confirm: Confirm,
    /// Whether only full syncs read it, because it hardly ever changes.
    pub is_rarely_changed: bool,
    /// Objects that end together with one of these.
    pub dependents: &'static [Dependent],
}

/// What the event of a deletion tells of the object. Source: documented.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deletion {
    /// Its id, and these of its fields, as far as they have values.
    Fields(&'static [&'static str]),
    /// The whole document.
    Document,
}

/// Objects that end together with another one, whose id they hold.
#[derive(Debug)]
pub struct Dependent {
    /// What kind of objects they are.
    pub resource: &'static Resource,
    /// Their column with the id of the other object.
    pub column: &'static str,
}

/// Objects per page, at most, in all of Clerk's lists. Source: documented.
pub const MAX_PAGE: u32 = 500;

/// Ids per request by id. Source: documented.
pub const MAX_IDS: usize = 100;

/// Position of `id` in the fields of every resource.
pub const ID: usize = 0;

/// A key of a document and the column of the same name.
#[derive(Debug)]
pub struct Field {
    /// Key and column name.
    pub name: &'static str,
    /// How it is stored.
    pub kind: FieldKind,
    /// Whether its value moves although nobody changes the object.
    pub moves: Moves,
}

/// How a field is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldKind {
    /// `text`
    Text,
    /// `boolean`
    Bool,
    /// `bigint`
    Int,
    /// `timestamptz`; Clerk sends Unix milliseconds.
    Time,
    /// `jsonb`: metadata objects and lists, kept as they come.
    Json,
}

/// Whether a value moves although nobody changes the object. Such a difference is stored, but it is
/// not a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moves {
    /// Never: each difference is a change.
    No,
    /// It moves.
    ByItself,
    /// It counts down the seconds to a moment. A smaller number means the same moment, and is not
    /// stored: otherwise each sync would write it.
    CountsDown,
}

/// Columns that Clerk does not send but everybody asks for.
///
/// One function returns the values of all of them, because some come from the same part of a
/// document, which is parsed once.
#[derive(Debug)]
pub struct Derived {
    /// The columns.
    pub columns: &'static [DerivedColumn],
    /// Returns the value of each column, in the order of [`Self::columns`].
    pub values: fn(&DocumentKeys<'_, '_>) -> Vec<FieldValue<'static>>,
}

impl Derived {
    /// No such column.
    pub const NONE: Self = Self {
        columns: &[],
        values: |_| Vec::new(),
    };
}

/// A column that is derived from a document.
#[derive(Debug)]
pub struct DerivedColumn {
    /// Column name.
    pub name: &'static str,
    /// How it is stored.
    pub kind: FieldKind,
    /// The fields that it is derived from.
    pub from: &'static [&'static str],
}

/// What Clerk's endpoint can list.
#[derive(Debug)]
pub struct List {
    /// Path of the list, below `/v1/`.
    pub path: &'static str,
    /// Parameter that continues the list after an id; `None` if pages are read by offset.
    pub cursor: Option<&'static str>,
    /// How its objects are counted.
    pub count: Count,
    /// `order_by` that lists the last change first; `None` if there is no such order.
    pub by_update: Option<&'static str>,
    /// Parameter that filters by id, and is repeated for each id; `None` if there is none.
    pub ids: Option<&'static str>,
    /// Objects per page.
    pub max_page: u32,
}

/// How the objects of a list are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// By an endpoint with this path, below `/v1/`. It takes the list's filters.
    Endpoint(&'static str),
    /// Each page of the list says how many objects there are. The list has no filters by time.
    InList,
}

/// How Clerk confirms that an object does not exist.
#[derive(Debug, Clone, Copy)]
pub enum Confirm {
    /// `GET /v1/{path}/{id}` answers 404 with this error code.
    ById {
        /// Path of the object, without the id.
        path: &'static str,
        /// Clerk's error code.
        code: &'static str,
    },
    /// `GET /v1/organizations/{organization_id}/{path}/{id}` answers 404 with this error code.
    InOrganization {
        /// Path of the object below its organization, without the id.
        path: &'static str,
        /// Clerk's error code.
        code: &'static str,
    },
    /// `GET /v1/organizations/{organization_id}/memberships` with the user's id leaves it out, and
    /// shows another member.
    Member,
}

/// Returns a key that is [`Resource::embedded`] in some resource.
pub fn embedded_key(key: &[u8]) -> Option<&'static str> {
    match key {
        b"organization" => Some("organization"),
        b"public_organization_data" => Some("public_organization_data"),
        _ => None,
    }
}

impl Resource {
    /// Whether its list can be read by ranges of `created_at`.
    pub fn has_ranges(&self) -> bool {
        matches!(self.list.count, Count::Endpoint(_))
    }

    /// Returns the types of its events, for example `user.created`.
    pub fn event_types(&self) -> Vec<String> {
        let all = ["created", "updated", "deleted"].iter().chain(self.status_events);
        all.map(|what| format!("{}.{what}", self.event)).collect()
    }

    /// Returns its name for people, in the plural.
    pub fn title(&self) -> String {
        self.name.replace('_', " ")
    }

    /// Returns the position of the field called `name`. Documents mostly have the order of the
    /// fields, so the search begins at `hint`, and its first comparison nearly always succeeds.
    pub fn position(&self, name: &str, hint: usize) -> Option<usize> {
        (hint..self.fields.len())
            .chain(0..hint.min(self.fields.len()))
            .find(|&at| self.fields[at].name == name)
    }
}

impl Field {
    /// A field that only changes when somebody changes the object.
    pub const fn new(name: &'static str, kind: FieldKind) -> Self {
        Self {
            name,
            kind,
            moves: Moves::No,
        }
    }

    /// A field that moves by itself.
    pub const fn moving(name: &'static str, kind: FieldKind, moves: Moves) -> Self {
        Self { name, kind, moves }
    }
}

/// What derived columns are computed from: a record's values, and its document's keys as received.
pub struct DocumentKeys<'r, 'a> {
    resource: &'static Resource,
    values: &'r [FieldValue<'a>],
    pairs: &'r [(Cow<'a, str>, &'a RawValue)],
}

impl<'r, 'a> DocumentKeys<'r, 'a> {
    pub(super) fn new(
        resource: &'static Resource,
        values: &'r [FieldValue<'a>],
        pairs: &'r [(Cow<'a, str>, &'a RawValue)],
    ) -> Self {
        Self {
            resource,
            values,
            pairs,
        }
    }

    fn get(&self, field: &str) -> Option<&'r FieldValue<'a>> {
        self.resource.position(field, ID).map(|at| &self.values[at])
    }

    /// Returns the JSON text of any key, also of one that is not stored.
    pub(super) fn raw(&self, name: &str) -> Option<&'r str> {
        let last = self.pairs.iter().rev().find(|(key, _)| key == name)?;
        Some(last.1.get())
    }

    /// Returns the text of a field.
    pub(super) fn text(&self, field: &str) -> Option<&'r str> {
        match self.get(field)? {
            FieldValue::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Returns the JSON text of a field as received, also if it cannot be stored like that.
    pub(super) fn json(&self, field: &str) -> Option<&'r str> {
        match self.get(field)? {
            FieldValue::Json(json) => Some(json),
            FieldValue::Unexpected(_) => {
                let last = self.pairs.iter().rev().find(|(key, _)| key == field)?;
                Some(last.1.get())
            }
            _ => None,
        }
    }
}
