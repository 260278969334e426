//! The filters of lists and counts.

use std::cell::OnceCell;

use super::condition::{Condition, Linked, properties};
use super::query_string::{Bounds, QueryString, SignedValues};
use super::resource::{FilterKind, Resource};
use crate::errors::Failure;
use crate::faults::Quirks;
use crate::store::entry::Entry;
use crate::store::groups::group_of;
use crate::store::identifier::IdentifierKind;
use crate::store::properties::Text;
use crate::stores::View;

/// Which objects a list or a count means.
pub(crate) struct Filter {
    pub(crate) resource: &'static Resource,
    pub(crate) created_at: Bounds,
    pub(crate) ids: SignedValues,
    pub(crate) lookups: Vec<Lookup>,
    /// What else an object must meet, with the parameter that says so.
    conditions: Vec<(&'static str, Condition)>,
}

/// Groups of which an object must be in one, and those in which it must not be.
pub(crate) struct Lookup {
    /// The parameter that says so. Empty if the path does.
    parameter: &'static str,
    pub(crate) by: &'static Text,
    pub(crate) values: SignedValues,
}

impl Lookup {
    /// The objects in these groups. Paths say so, not parameters.
    pub(crate) fn of_path(by: &'static Text, include: Vec<String>) -> Self {
        let exclude = Vec::new();
        Self {
            parameter: "",
            by,
            values: SignedValues { include, exclude },
        }
    }
}

impl Filter {
    /// Reads the filters of a resource from a query string. Unknown parameters are ignored
    /// (observed for `user_id[0]`, otherwise a guess).
    pub(crate) fn read(resource: &'static Resource, parameters: &QueryString) -> Result<Self, Failure> {
        let mut filter = Self {
            resource,
            created_at: Bounds::default(),
            ids: SignedValues::default(),
            lookups: Vec::new(),
            conditions: Vec::new(),
        };
        for kind in resource.filters {
            filter.add(kind, parameters)?;
        }
        Ok(filter)
    }

    fn add(&mut self, kind: &'static FilterKind, parameters: &QueryString) -> Result<(), Failure> {
        match kind {
            FilterKind::CreatedAt => self.created_at = parameters.bounds("created_at")?,
            FilterKind::Id(name) => self.ids = parameters.signed(name)?,
            FilterKind::Identifier(name, kind) => self.add_identifiers(name, kind, parameters.all(name)?),
            FilterKind::SignedIdentifier(name, kind) => {
                let SignedValues { include, exclude } = parameters.signed(name)?;
                self.add_identifiers(name, kind, include);
                if !exclude.is_empty() {
                    self.conditions.push((name, Condition::NoIdentifier(kind, exclude)));
                }
            }
            FilterKind::TwoPartIdentifier { first, second, kind } => {
                self.add_identifiers(first, kind, two_parts(first, second, parameters)?);
            }
            FilterKind::SignedGroup(parameter, by) => {
                let values = parameters.signed(parameter)?;
                if !values.is_empty() {
                    self.lookups.push(Lookup { parameter, by, values });
                }
            }
            FilterKind::SignedLink(name, link, own) => {
                let (values, sets) = (parameters.signed(name)?, OnceCell::new());
                if !values.is_empty() {
                    let own = own.as_ref();
                    let linked = Linked {
                        link,
                        own,
                        values,
                        sets,
                    };
                    self.conditions.push((name, Condition::Linked(linked)));
                }
            }
            FilterKind::AnyText(name, text) => {
                let values = parameters.all(name)?;
                if !values.is_empty() {
                    self.conditions.push((name, Condition::AnyText(text, values)));
                }
            }
            FilterKind::Contains(name, texts) => {
                if let Some(part) = parameters.first(name) {
                    self.conditions
                        .push((name, Condition::Contains(texts, part.to_lowercase())));
                }
            }
            FilterKind::IdOrContains(name, texts) => {
                if let Some(part) = parameters.first(name) {
                    self.conditions
                        .push((name, Condition::IdOrContains(texts, part.to_owned())));
                }
            }
            FilterKind::Flag(name) => {
                if let Some(wanted) = parameters.flag(name)? {
                    self.conditions.push((name, Condition::Flag(name, wanted)));
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

    fn add_identifiers(&mut self, name: &'static str, kind: &'static IdentifierKind, values: Vec<String>) {
        if !values.is_empty() {
            self.conditions.push((name, Condition::Identifier(kind, values)));
        }
    }

    fn add_bounds(&mut self, name: &'static str, bounds: Bounds) {
        if !bounds.is_empty() {
            self.conditions.push((name, Condition::Time(name, bounds)));
        }
    }

    /// Leaves out what a server with these quirks ignores.
    pub(crate) fn apply_quirks(&mut self, quirks: &Quirks) {
        if quirks.ignore_created_at {
            self.created_at = Bounds::default();
            self.conditions.retain(|(name, _)| *name != "created_at");
        }
        let is_ignored = |name: &str| match name {
            "user_id" => quirks.ignore_user_id,
            "organization_id" => quirks.ignore_organization_id,
            _ => false,
        };
        let mut filters = self.resource.filters.iter();
        if filters.any(|filter| matches!(filter, FilterKind::Id(name) if is_ignored(name))) {
            self.ids = SignedValues::default();
        }
        self.lookups.retain(|lookup| !is_ignored(lookup.parameter));
        self.conditions.retain(|(name, _)| !is_ignored(name));
    }

    /// A condition that an index of identifiers answers.
    pub(crate) fn indexed(&self, view: &View<'_>) -> Option<(&'static IdentifierKind, &[String])> {
        let indexed = view.of(self.resource.kind).store.indexes.identifiers;
        self.conditions.iter().find_map(|(_, condition)| match condition {
            Condition::Identifier(kind, values) if indexed.iter().any(|known| std::ptr::eq(*known, *kind)) => {
                Some((*kind, values.as_slice()))
            }
            _ => None,
        })
    }

    /// The one group that has all objects which meet the other filters. `None` if there is no such
    /// group.
    pub(crate) fn only_group(&self) -> Option<(&'static Text, &str)> {
        match self.lookups.as_slice() {
            [Lookup { by, values, .. }] if values.include.len() == 1 && values.exclude.is_empty() => {
                Some((*by, values.include[0].as_str()))
            }
            _ => None,
        }
    }

    /// Whether there are no other filters than groups and bounds of `created_at`.
    pub(crate) fn has_only_groups_and_created_at(&self) -> bool {
        self.ids.is_empty() && self.conditions.is_empty()
    }

    pub(crate) fn matches(&self, view: &View<'_>, entry: &Entry) -> bool {
        self.lookups.iter().all(|lookup| {
            let group = group_of(entry, lookup.by);
            lookup.values.allow(group.as_slice())
        }) && self.matches_within_groups(view, entry)
    }

    /// Whether an object matches that is in the right groups.
    pub(crate) fn matches_within_groups(&self, view: &View<'_>, entry: &Entry) -> bool {
        let is = |id: &String| **id == *entry.id;
        self.created_at.contain(entry.created_at)
            && (self.ids.include.is_empty() || self.ids.include.iter().any(is))
            && !self.ids.exclude.iter().any(is)
            && self.conditions_match(view, entry)
    }

    fn conditions_match(&self, view: &View<'_>, entry: &Entry) -> bool {
        if self.conditions.is_empty() {
            return true;
        }
        properties(view, self.resource, entry).is_some_and(|properties| {
            self.conditions
                .iter()
                .all(|(_, condition)| condition.matches(view, &entry.id, &properties))
        })
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
