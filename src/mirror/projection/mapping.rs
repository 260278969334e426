//! A mapping: which rows and columns of an application's table are kept in sync, as a value.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    mirror::quote,
    resource::{MEMBERSHIPS, ORGANIZATIONS, Resource, USERS},
};

/// SQL expressions over `u`, a row of the mirror's table, by the column that they are for.
pub type Expressions = BTreeMap<String, String>;

/// A table of the application that is kept in sync from the mirror: an entry of `[[tables]]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TableMapping {
    /// The table's name, as the catalog has it.
    #[serde(default)]
    pub name: String,
    /// The table's schema.
    #[serde(default = "public")]
    pub schema: String,
    /// The resource whose objects are the rows.
    #[serde(default)]
    pub from: Source,
    /// How the row of an object is found.
    #[serde(default)]
    pub key: TableKey,
    /// Which objects have a row: an SQL condition over `u`; `None` if all have one.
    #[serde(default, rename = "where")]
    pub condition: Option<String>,
    /// A column with email addresses. A row without a key whose address is the verified primary
    /// address of exactly one user becomes the row of that user.
    #[serde(default)]
    pub link: Option<String>,
    /// What happens to the row of an object that is gone, or that the condition excludes.
    #[serde(default)]
    pub delete: RowRemoval,
    /// Columns that are kept in sync.
    #[serde(default)]
    pub set: Expressions,
    /// Columns that are written only when the row is inserted.
    #[serde(default)]
    pub insert: Expressions,
    /// Columns that are written when a column of `set` or `keep` changes, and when the row is
    /// inserted.
    #[serde(default)]
    pub touch: Expressions,
    /// Columns that are kept in sync, except that `NULL` never replaces a value.
    #[serde(default)]
    pub keep: Expressions,
    /// Columns that are written instead of deleting the row, with `delete = "update"`.
    #[serde(default)]
    pub deleted: Expressions,
    /// A new mapping that would change more than this part of the table's rows, in percent, waits
    /// for a person.
    #[serde(default = "usual_change")]
    pub max_change_percent: f64,
    /// Fields of the objects that are not stored. Other ones make another mapping, which waits for a
    /// person if it would change many rows.
    #[serde(skip)]
    pub excluded: Vec<String>,
}

/// How the row of an object is found. Rows in which a column of the key is `NULL` belong to the
/// application.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum TableKey {
    /// By a column with Clerk's id.
    Id(String),
    /// By columns that `set` fills.
    Values(Vec<String>),
}

impl Default for TableKey {
    fn default() -> Self {
        Self::Id(String::new())
    }
}

impl TableKey {
    /// The columns.
    pub fn columns(&self) -> &[String] {
        match self {
            Self::Id(column) => std::slice::from_ref(column),
            Self::Values(columns) => columns,
        }
    }

    /// The column with Clerk's id, if there is one.
    pub fn id_column(&self) -> Option<&str> {
        match self {
            Self::Id(column) => Some(column),
            Self::Values(_) => None,
        }
    }
}

/// The resource whose objects are the rows of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// Clerk's users.
    #[default]
    Users,
    /// Clerk's organizations.
    Organizations,
    /// Memberships of users in organizations.
    OrganizationMemberships,
}

impl Source {
    /// The resource.
    pub fn resource(self) -> &'static Resource {
        match self {
            Source::Users => &USERS,
            Source::Organizations => &ORGANIZATIONS,
            Source::OrganizationMemberships => &MEMBERSHIPS,
        }
    }
}

/// What happens to the row of an object that is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RowRemoval {
    /// The row is deleted.
    #[default]
    Delete,
    /// The columns of `[tables.deleted]` are written.
    Update,
    /// The row stays as it is.
    Keep,
}

fn public() -> String {
    "public".to_owned()
}

fn usual_change() -> f64 {
    20.0
}

impl TableMapping {
    /// A mapping that writes nothing yet.
    pub fn of(schema: &str, name: &str, from: Source) -> Self {
        Self {
            name: name.to_owned(),
            schema: schema.to_owned(),
            from,
            key: TableKey::default(),
            condition: None,
            link: None,
            delete: RowRemoval::default(),
            set: Expressions::new(),
            insert: Expressions::new(),
            touch: Expressions::new(),
            keep: Expressions::new(),
            deleted: Expressions::new(),
            max_change_percent: usual_change(),
            excluded: Vec::new(),
        }
    }

    /// The table's name for people, and for the bookkeeping: `public."User"`.
    pub fn table(&self) -> String {
        format!("{}.{}", show(&self.schema), show(&self.name))
    }

    /// The table's name in SQL.
    pub(super) fn quoted(&self) -> String {
        format!("{}.{}", quote::identifier(&self.schema), quote::identifier(&self.name))
    }

    /// A checksum of everything that decides what the table contains.
    pub fn digest(&self) -> String {
        let whole = Self {
            max_change_percent: usual_change(),
            ..self.clone()
        };
        let json = serde_json::to_vec(&whole).unwrap_or_default();
        let mut hasher = blake3::Hasher::new();
        hasher.update(&json);
        for field in &self.excluded {
            hasher.update(field.as_bytes());
        }
        hasher.finalize().to_hex()[..16].to_owned()
    }

    /// The columns that it writes into the row of an object that exists.
    pub fn columns(&self) -> impl Iterator<Item = &String> {
        let written = [&self.set, &self.keep, &self.touch, &self.insert];
        written.into_iter().flat_map(|expressions| expressions.keys())
    }

    /// The sections of its expressions, with their names.
    pub(super) fn sections(&self) -> [(&'static str, &Expressions); 5] {
        [
            ("set", &self.set),
            ("keep", &self.keep),
            ("touch", &self.touch),
            ("insert", &self.insert),
            ("deleted", &self.deleted),
        ]
    }

    /// Its expressions, each with its place in the entry.
    pub fn expressions(&self) -> impl Iterator<Item = (String, &str)> {
        let condition = self
            .condition
            .iter()
            .map(|condition| ("where".to_owned(), condition.as_str()));
        let columns = self.sections().into_iter().flat_map(|(section, expressions)| {
            let place = move |column: &String| format!("{section}.{column}");
            expressions
                .iter()
                .map(move |(column, expression)| (place(column), expression.as_str()))
        });
        condition.chain(columns)
    }

    /// The columns that differ between a row and what it should be if the row is out of sync.
    pub fn synced_columns(&self) -> impl Iterator<Item = &String> {
        self.set.keys().chain(self.keep.keys())
    }
}

/// The mappings from a resource.
pub(in crate::mirror) fn mappings_from<'m>(
    all: &'m [TableMapping],
    resource: &Resource,
) -> impl Iterator<Item = &'m TableMapping> {
    let name = resource.name;
    all.iter().filter(move |mapping| mapping.from.resource().name == name)
}

/// Quotes an identifier for people: only if it is not a plain word in lower case.
fn show(name: &str) -> String {
    let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    match name.chars().all(is_word) && !name.starts_with(|c: char| c.is_ascii_digit()) {
        true => name.to_owned(),
        false => quote::identifier(name),
    }
}
