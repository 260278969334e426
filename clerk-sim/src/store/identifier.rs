//! Identifiers: what is unique in an instance, such as an email address.

use super::entry::Entry;
use super::properties::{Properties, Text};

/// A kind of identifier.
#[derive(Debug)]
pub(crate) struct IdentifierKind {
    /// The name, which is unique among the kinds.
    pub(crate) name: &'static str,
    /// Whether two identifiers that differ only in case are the same one.
    pub(crate) ignores_case: bool,
    /// Where the identifiers are in a document.
    pub(crate) text: Text,
}

/// An identifier in the form in which it is compared.
pub(crate) type Identifier = (&'static IdentifierKind, String);

impl IdentifierKind {
    /// The form in which identifiers of this kind are compared.
    pub(crate) fn normalize(&self, value: &str) -> String {
        if self.ignores_case {
            value.to_lowercase()
        } else {
            value.to_owned()
        }
    }

    /// Reads the identifiers of this kind, in the form in which they are compared.
    pub(crate) fn read(&self, id: &str, properties: &Properties<'_>) -> Vec<String> {
        let values = self.text.read(id, properties);
        values.iter().map(|value| self.normalize(value)).collect()
    }

    /// Whether the entry has this identifier.
    pub(crate) fn is_held_by(&self, entry: &Entry, value: &str) -> bool {
        Properties::read(entry.stored())
            .is_some_and(|properties| self.read(&entry.id, &properties).contains(&self.normalize(value)))
    }
}

/// Reads all identifiers of an entry. Empty if its bytes are not a JSON object.
pub(crate) fn identifiers(entry: &Entry, kinds: &[&'static IdentifierKind]) -> Vec<Identifier> {
    let Some(properties) = Properties::read(entry.stored()) else {
        return Vec::new();
    };
    kinds
        .iter()
        .flat_map(|kind| {
            kind.read(&entry.id, &properties)
                .into_iter()
                .map(|value| (*kind, value))
        })
        .collect()
}
