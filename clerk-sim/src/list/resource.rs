//! What a kind of object can be filtered and ordered by, as data.

use crate::store::identifier::IdentifierKind;
use crate::store::properties::Text;

/// A kind of object that is listed and counted.
#[derive(Debug)]
pub(crate) struct Resource {
    /// Its name in the `object` property.
    pub(crate) object: &'static str,
    /// The values of `order_by`, without their sign.
    pub(crate) orders: &'static [(&'static str, SortKey)],
    /// The filters, in the order in which their parameters are checked.
    pub(crate) filters: &'static [FilterKind],
    /// What is unique, and so can be looked up exactly.
    pub(crate) identifiers: &'static [&'static IdentifierKind],
}

/// What a list is sorted by.
#[derive(Debug)]
pub(crate) enum SortKey {
    CreatedAt,
    UpdatedAt,
    /// The time at this key, in Unix milliseconds.
    Time(&'static str),
    /// A text, compared without case.
    Text(Text),
}

/// A filter with the names of its parameters.
#[derive(Debug)]
pub(crate) enum FilterKind {
    /// `created_at_after` and `created_at_before`.
    CreatedAt,
    /// Ids of the objects to include, or to exclude with a `-` before them.
    Id(&'static str),
    /// Identifiers of which the object must have one.
    Identifier(&'static str, &'static IdentifierKind),
    /// Identifiers to include, or to exclude with a `-` before them.
    SignedIdentifier(&'static str, &'static IdentifierKind),
    /// Identifiers of two parts, each in a parameter of its own. The first part is given once.
    TwoPartIdentifier {
        first: &'static str,
        second: &'static str,
        kind: &'static IdentifierKind,
    },
    /// Texts to include, or to exclude with a `-` before them.
    SignedText(&'static str, Text),
    /// A text that one of these must contain, compared without case.
    Contains(&'static str, &'static [&'static Text]),
    /// `true` or `false`, as the property with this name. An absent property is false.
    Flag(&'static str),
    /// `…_after` and `…_before` of the time in the property with this name.
    Time(&'static str),
    /// As `Time`, with the deprecated `…_since`, which includes its time.
    TimeSince(&'static str),
}
