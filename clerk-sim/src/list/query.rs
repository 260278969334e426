//! The parameters of lists and counts.
//!
//! Names and meanings are documented. Guessed: which values are a 422 where the documentation does
//! not say.

use super::filter::Filter;
use super::query_string::QueryString;
use super::resource::{ListForm, Resource, SortKey};
use crate::errors::Failure;
use crate::faults::{Quirks, Shuffle};

/// Objects per page if no limit is given (documented), or if it is more than `MAX_LIMIT`
/// (observed).
const DEFAULT_LIMIT: usize = 10;
/// Objects per page at most (documented).
const MAX_LIMIT: usize = 500;

/// The order of a list.
#[derive(Clone, Copy)]
pub(crate) struct Order {
    pub(crate) by: &'static SortKey,
    pub(crate) descending: bool,
}

/// The default order (documented).
const NEWEST_FIRST: Order = Order {
    by: &SortKey::CreatedAt,
    descending: true,
};

/// A request for a page of a list.
pub(crate) struct Query {
    pub(crate) filter: Filter,
    pub(crate) order: Order,
    pub(crate) limit: usize,
    pub(crate) offset: usize,
    pub(crate) starting_after: Option<String>,
    /// Whether `order_by` has a literal `+`.
    has_plus: bool,
    /// What is shuffled, with the seed.
    pub(crate) shuffle: Option<(Shuffle, u64)>,
}

impl Query {
    /// Reads the parameters of a list.
    pub(crate) fn read(resource: &'static Resource, query: &str) -> Result<Self, Failure> {
        let parameters = QueryString::read(query);
        let order = match parameters.first("order_by") {
            Some(text) => read_order(resource, text)?,
            None => NEWEST_FIRST,
        };
        let limit = match parameters.integer("limit")? {
            None => DEFAULT_LIMIT,
            Some(limit) if limit < 1 => return Err(Failure::invalid("limit", "limit must be at least 1.")),
            Some(limit) => usize::try_from(limit)
                .ok()
                .filter(|limit| *limit <= MAX_LIMIT)
                .unwrap_or(DEFAULT_LIMIT),
        };
        let offset = parameters.integer("offset")?.unwrap_or(0);
        let offset = usize::try_from(offset)
            .map_err(|_| Failure::invalid("offset", "offset must be greater than or equal to 0."))?;
        // Only arrays have a cursor (documented). Other lists ignore it (a guess).
        let cursor = parameters
            .first("starting_after")
            .filter(|_| resource.form == ListForm::Array);
        let starting_after = cursor.map(str::to_owned);
        if starting_after.is_some() {
            if !matches!(order.by, SortKey::CreatedAt) {
                return Err(Failure::invalid(
                    "starting_after",
                    "starting_after requires ordering by created_at.",
                ));
            }
            if offset > 0 {
                return Err(Failure::invalid(
                    "starting_after",
                    "starting_after cannot be combined with an offset.",
                ));
            }
        }
        Ok(Self {
            filter: Filter::read(resource, &parameters)?,
            order,
            limit,
            offset,
            starting_after,
            has_plus: parameters.first("order_by").is_some_and(|text| text.starts_with('+')),
            shuffle: None,
        })
    }

    /// Leaves out what a server with these quirks ignores.
    pub(crate) fn apply_quirks(&mut self, quirks: &Quirks) {
        self.filter.apply_quirks(quirks);
        if quirks.ignore_offset {
            self.offset = 0;
        }
        if quirks.unknown_plus && self.has_plus {
            self.order.by = &SortKey::UpdatedAt;
        }
        if quirks.ignore_order_by {
            self.order = NEWEST_FIRST;
        }
    }
}

/// Reads the parameters of a count.
pub(crate) fn read_count(resource: &'static Resource, query: &str) -> Result<Filter, Failure> {
    Filter::read(resource, &QueryString::read(query))
}

fn read_order(resource: &'static Resource, text: &str) -> Result<Order, Failure> {
    let (descending, name) = match text.strip_prefix('-') {
        Some(name) => (true, name),
        // A literal `+` in a URL decodes to a space, and so to an order that does not exist.
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let found = resource.orders.iter().find(|(order, _)| *order == name);
    let (_, by) =
        found.ok_or_else(|| Failure::invalid("order_by", format!("{text:?} is not an order that is allowed.")))?;
    Ok(Order { by, descending })
}
