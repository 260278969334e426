//! The filters of lists and counts.

use super::query_string::{Bounds, QueryString, SignedValues};
use super::resource::{FilterKind, Resource};
use crate::errors::Failure;
use crate::faults::Quirks;
use crate::store::entry::Entry;
use crate::store::identifier::IdentifierKind;
use crate::store::properties::{Properties, Text};

/// Which objects a list or a count means.
#[derive(Default)]
pub(crate) struct Filter {
    pub(crate) created_at: Bounds,
    pub(crate) ids: SignedValues,
    /// What else an object must meet. To check these, its document must be read.
    pub(crate) conditions: Vec<Condition>,
}

/// A condition on the properties of an object.
pub(crate) enum Condition {
    /// Has one of these identifiers.
    Identifier(&'static IdentifierKind, Vec<String>),
    /// Has none of these identifiers.
    NoIdentifier(&'static IdentifierKind, Vec<String>),
    SignedText(&'static Text, SignedValues),
    /// One of the texts contains this one, which is in lower case.
    Contains(&'static [&'static Text], String),
    Flag(&'static str, bool),
    Time(&'static str, Bounds),
}

impl Filter {
    /// Reads the filters of a resource from a query string. Unknown parameters are ignored
    /// (observed for `user_id[0]`, otherwise a guess).
    pub(crate) fn read(resource: &'static Resource, parameters: &QueryString) -> Result<Self, Failure> {
        let mut filter = Self::default();
        for kind in resource.filters {
            filter.add(kind, parameters)?;
        }
        Ok(filter)
    }

    fn add(&mut self, kind: &'static FilterKind, parameters: &QueryString) -> Result<(), Failure> {
        match kind {
            FilterKind::CreatedAt => self.created_at = parameters.bounds("created_at")?,
            FilterKind::Id(name) => self.ids = parameters.signed(name)?,
            FilterKind::Identifier(name, kind) => self.add_identifiers(kind, parameters.all(name)?),
            FilterKind::SignedIdentifier(name, kind) => {
                let SignedValues { include, exclude } = parameters.signed(name)?;
                self.add_identifiers(kind, include);
                if !exclude.is_empty() {
                    self.conditions.push(Condition::NoIdentifier(kind, exclude));
                }
            }
            FilterKind::TwoPartIdentifier { first, second, kind } => {
                self.add_identifiers(kind, two_parts(first, second, parameters)?);
            }
            FilterKind::SignedText(name, text) => {
                let values = parameters.signed(name)?;
                if !values.is_empty() {
                    self.conditions.push(Condition::SignedText(text, values));
                }
            }
            FilterKind::Contains(name, texts) => {
                if let Some(part) = parameters.first(name) {
                    self.conditions.push(Condition::Contains(texts, part.to_lowercase()));
                }
            }
            FilterKind::Flag(name) => {
                if let Some(wanted) = parameters.flag(name)? {
                    self.conditions.push(Condition::Flag(name, wanted));
                }
            }
            FilterKind::Time(name) => self.add_bounds(name, parameters.bounds(name)?),
            FilterKind::TimeSince(name) => {
                let mut bounds = parameters.bounds(name)?;
                // `since` includes its time ("since the given date"), `after` does not.
                if let Some(since) = parameters.integer(&format!("{name}_since"))? {
                    bounds.after = bounds.after.max(Some(since.saturating_sub(1)));
                }
                self.add_bounds(name, bounds);
            }
        }
        Ok(())
    }

    fn add_identifiers(&mut self, kind: &'static IdentifierKind, values: Vec<String>) {
        if !values.is_empty() {
            self.conditions.push(Condition::Identifier(kind, values));
        }
    }

    fn add_bounds(&mut self, name: &'static str, bounds: Bounds) {
        if !bounds.is_empty() {
            self.conditions.push(Condition::Time(name, bounds));
        }
    }

    /// Leaves out what a server with these quirks ignores.
    pub(crate) fn apply_quirks(&mut self, quirks: &Quirks) {
        if quirks.ignore_created_at {
            self.created_at = Bounds::default();
        }
        if quirks.ignore_user_id {
            self.ids = SignedValues::default();
        }
    }

    /// A condition that an index answers.
    pub(crate) fn indexed(&self) -> Option<(&'static IdentifierKind, &[String])> {
        self.conditions.iter().find_map(|condition| match condition {
            Condition::Identifier(kind, values) => Some((*kind, values.as_slice())),
            _ => None,
        })
    }

    /// Whether there are no other filters than bounds of `created_at`.
    pub(crate) fn is_by_created_at_only(&self) -> bool {
        self.ids.is_empty() && self.conditions.is_empty()
    }

    pub(crate) fn matches(&self, entry: &Entry) -> bool {
        let is = |id: &String| **id == *entry.id;
        self.created_at.contain(entry.created_at)
            && (self.ids.include.is_empty() || self.ids.include.iter().any(is))
            && !self.ids.exclude.iter().any(is)
            && self.conditions_match(entry)
    }

    fn conditions_match(&self, entry: &Entry) -> bool {
        if self.conditions.is_empty() {
            return true;
        }
        Properties::read(entry.stored()).is_some_and(|properties| {
            self.conditions
                .iter()
                .all(|condition| condition.matches(&entry.id, &properties))
        })
    }
}

impl Condition {
    fn matches(&self, id: &str, properties: &Properties<'_>) -> bool {
        let has_one = |kind: &IdentifierKind, values: &[String]| {
            let identifiers = kind.read(id, properties);
            values.iter().any(|value| identifiers.contains(&kind.normalize(value)))
        };
        match self {
            Self::Identifier(kind, values) => has_one(kind, values),
            Self::NoIdentifier(kind, values) => !has_one(kind, values),
            Self::SignedText(text, values) => values.allow(&text.read(id, properties)),
            Self::Contains(texts, part) => texts.iter().any(|text| {
                text.read(id, properties)
                    .iter()
                    .any(|text| text.to_lowercase().contains(part))
            }),
            Self::Flag(key, wanted) => properties.value(key).unwrap_or(false) == *wanted,
            // An absent time is in no range.
            Self::Time(key, bounds) => properties.value(key).is_some_and(|time| bounds.contain(time)),
        }
    }
}

/// The values of an identifier of two parts, as [`Text::ItemPairs`] joins them.
fn two_parts(first: &str, second: &str, parameters: &QueryString) -> Result<Vec<String>, Failure> {
    let value = parameters.first(first);
    let seconds = parameters.all(second)?;
    match value {
        Some(_) if seconds.is_empty() => Err(Failure::missing(second, format!("{first} must be used with {second}."))),
        Some(value) => Ok(seconds.iter().map(|second| format!("{value} {second}")).collect()),
        None if seconds.is_empty() => Ok(Vec::new()),
        None => Err(Failure::missing(first, format!("{second} must be used with {first}."))),
    }
}
