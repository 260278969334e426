//! What a list can be filtered and ordered by, as data.

use super::rendering::Rendering;
use crate::kind::Kind;
use crate::store::entry::Entry;
use crate::store::identifier::IdentifierKind;
use crate::store::properties::Text;

/// A list of objects of one kind, and how these are shown.
#[derive(Debug)]
pub(crate) struct Resource {
    pub(crate) kind: Kind,
    /// The name of the kind in the `object` property.
    pub(crate) object: &'static str,
    /// The values of `order_by`, without their sign.
    pub(crate) orders: &'static [(&'static str, SortKey)],
    /// The filters, in the order in which their parameters are checked.
    pub(crate) filters: &'static [FilterKind],
    /// Another object whose properties filters and orders see, too.
    pub(crate) join: Option<Join>,
    pub(crate) form: ListForm,
    /// Writes an object as this list shows it.
    pub(crate) write: fn(&Entry, &Rendering<'_>, &mut Vec<u8>),
}

/// The form of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ListForm {
    /// An array. It can be paged with `starting_after`, too.
    Array,
    /// `{"data":[…],"total_count":n}`.
    WithTotal,
}

/// The object that another one refers to by its id.
#[derive(Debug)]
pub(crate) struct Join {
    pub(crate) kind: Kind,
    /// Where its id is.
    pub(crate) id: &'static Text,
}

/// A link between two objects by a third one, such as a membership.
#[derive(Debug)]
pub(crate) struct Link {
    /// The kind of the third object.
    pub(crate) kind: Kind,
    /// Where the third object has the id of the listed one.
    pub(crate) here: &'static Text,
    /// Where it has the other id. The third kind must have groups by this.
    pub(crate) there: &'static Text,
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
    /// The number of objects of another kind that are in the group of the object's id.
    GroupSize(Kind, &'static Text),
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
    /// Groups to include, or to exclude with a `-` before them. The kind must have groups by this
    /// text.
    SignedGroup(&'static str, &'static Text),
    /// Objects that are linked to these ids, or are not with a `-` before them. The text, if there
    /// is one, has ids that count as linked, too.
    SignedLink(&'static str, &'static Link, Option<Text>),
    /// Texts of which the object must have one.
    AnyText(&'static str, Text),
    /// A text that one of these must contain, compared without case.
    Contains(&'static str, &'static [&'static Text]),
    /// As `Contains`, or the whole id.
    IdOrContains(&'static str, &'static [&'static Text]),
    /// `true` or `false`, as the property with this name. An absent property is false.
    Flag(&'static str),
    /// `…_after` and `…_before` of the time in the property with this name.
    Time(&'static str),
    /// As `Time`, with the deprecated `…_since`, which includes its time.
    TimeSince(&'static str),
}
