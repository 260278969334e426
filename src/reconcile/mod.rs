//! Compares Clerk with the mirror. Pure: knows neither HTTP nor SQL.

pub mod diff;
pub mod guard;
pub mod partition;
pub mod recent;
pub mod search;
pub mod walk;
