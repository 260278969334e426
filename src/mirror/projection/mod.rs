//! Projections: tables of the application that are kept in sync from the mirror, in the
//! transactions that write the mirror.
//!
//! A [`TableMapping`] says what a table is to contain. [`shape`] reads what the catalog says about
//! the table, and [`statements`] joins both: a [`Projection`] is a mapping that can be carried out.
//! [`write`] does so for some objects, and [`compare`] for all.

mod compare;
mod departures;
mod mapping;
mod problems;
mod rejected_rows;
mod shape;
mod state;
mod statements;
mod write;

pub use compare::{AppTables, Chunk};
pub use departures::{DepartureReason, HeldDepartures, mapping_checksum};
pub use mapping::{Expressions, RowRemoval, Source, TableMapping};
pub use problems::Problem;
pub(super) use state::RunTables;
pub use state::{MappingState, RunTable};
pub(super) use statements::Projection;
pub use write::{PlannedRow, RowChange, RowCounts, TableCounts};
pub(super) use write::{project, remove};
