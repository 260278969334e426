//! Compares Clerk's lists with the mirror. Pure: knows neither HTTP nor SQL.

pub mod diff;
pub mod guard;
pub mod offset_search;
pub mod partition;
pub mod range;
pub mod recent;
pub mod search;
pub mod walk;

/// What a walk needs to know of an object on a page.
#[derive(Debug, Clone, Copy)]
pub struct ListEntry<'a> {
    /// Clerk's id, or a substitute if the document has none.
    pub id: &'a str,
    /// Unix milliseconds; `None` if the document has no readable one.
    pub created_at: Option<i64>,
    /// Unix milliseconds; `None` if the document has no readable one.
    pub updated_at: Option<i64>,
}

/// What to do after an answer that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unreadable {
    /// Ask again, for fewer objects.
    Smaller,
    /// The object that is the cause is stepped over; ask for what comes after it.
    SteppedOver,
    /// Give up: with so many unreadable objects in a row, the server must be broken.
    Broken,
}
