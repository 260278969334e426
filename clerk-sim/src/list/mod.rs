//! Lists and counts: parameters, filters, orders, pages and older states, for any kind of object.

pub(crate) mod condition;
pub(crate) mod filter;
pub(crate) mod query;
pub(crate) mod query_string;
pub(crate) mod rendering;
pub(crate) mod resource;
pub(crate) mod select;
