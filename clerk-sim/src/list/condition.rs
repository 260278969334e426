//! Conditions on the properties of an object. To check them, its document must be read.

use std::cell::OnceCell;
use std::collections::HashSet;

use super::query_string::{Bounds, SignedValues};
use super::resource::{Link, Resource};
use crate::store::entry::Entry;
use crate::store::groups::group_of;
use crate::store::identifier::IdentifierKind;
use crate::store::properties::{Properties, Text};
use crate::stores::View;

/// A condition on the properties of an object.
pub(crate) enum Condition {
    /// Has one of these identifiers.
    Identifier(&'static IdentifierKind, Vec<String>),
    /// Has none of these identifiers.
    NoIdentifier(&'static IdentifierKind, Vec<String>),
    Linked(Linked),
    /// Has one of these texts.
    AnyText(&'static Text, Vec<String>),
    /// One of the texts contains this one, which is in lower case.
    Contains(&'static [&'static Text], String),
    /// As `Contains`, or this is the id.
    IdOrContains(&'static [&'static Text], String),
    Flag(&'static str, bool),
    Time(&'static str, Bounds),
}

/// Is linked to some ids, and is not linked to others.
pub(crate) struct Linked {
    pub(crate) link: &'static Link,
    /// Ids in the document itself that count as linked, too.
    pub(crate) own: Option<&'static Text>,
    pub(crate) values: SignedValues,
    /// The ids of the objects that are linked to the values to include and to exclude.
    pub(crate) sets: OnceCell<[HashSet<String>; 2]>,
}

/// The properties that filters and orders of a resource see: those of the object that it joins, and
/// its own. `None` if the bytes of the object are not a JSON object.
pub(super) fn properties<'a>(view: &'a View<'_>, resource: &Resource, entry: &'a Entry) -> Option<Properties<'a>> {
    let own = Properties::read(entry.stored())?;
    let Some(join) = &resource.join else { return Some(own) };
    let id = join.id.read(&entry.id, &own).into_iter().next();
    let joined = id.and_then(|id| Properties::read(view.of(join.kind).get(&id)?.stored()));
    Some(match joined {
        Some(joined) => joined.with(own),
        None => own,
    })
}

impl Condition {
    pub(super) fn matches(&self, view: &View<'_>, id: &str, properties: &Properties<'_>) -> bool {
        let has_one = |kind: &IdentifierKind, values: &[String]| {
            let identifiers = kind.read(id, properties);
            values.iter().any(|value| identifiers.contains(&kind.normalize(value)))
        };
        let contains = |texts: &[&Text], part: &str| {
            let mut found = texts.iter().flat_map(|text| text.read(id, properties));
            found.any(|text| text.to_lowercase().contains(part))
        };
        match self {
            Self::Identifier(kind, values) => has_one(kind, values),
            Self::NoIdentifier(kind, values) => !has_one(kind, values),
            Self::Linked(linked) => linked.matches(view, id, properties),
            Self::AnyText(text, values) => text.read(id, properties).iter().any(|text| values.contains(text)),
            Self::Contains(texts, part) => contains(texts, part),
            Self::IdOrContains(texts, part) => id == part || contains(texts, &part.to_lowercase()),
            Self::Flag(key, wanted) => properties.value(key).unwrap_or(false) == *wanted,
            // An absent time is in no range.
            Self::Time(key, bounds) => properties.value(key).is_some_and(|time| bounds.contain(time)),
        }
    }
}

impl Linked {
    fn matches(&self, view: &View<'_>, id: &str, properties: &Properties<'_>) -> bool {
        let [included, excluded] = self.sets.get_or_init(|| {
            let linked_to = |values: &[String]| {
                let links = view.of(self.link.kind);
                let found = values.iter().flat_map(|value| links.group(self.link.there, value));
                found.filter_map(|link| group_of(&link, self.link.here)).collect()
            };
            [&self.values.include, &self.values.exclude].map(|values| linked_to(values))
        });
        let own = self.own.map(|text| text.read(id, properties)).unwrap_or_default();
        let is_own = |values: &[String]| own.iter().any(|value| values.contains(value));
        let is_included = self.values.include.is_empty() || included.contains(id) || is_own(&self.values.include);
        is_included && !excluded.contains(id) && !is_own(&self.values.exclude)
    }
}
