//! Projections: tables of the application that are kept in sync from the mirror, in the
//! transactions that write the mirror.
//!
//! A [`TableMapping`] says what a table is to contain. [`shape`] reads what the catalog says about
//! the table, and [`statements`] joins both: a [`Projection`] is a mapping that can be carried out.
//! [`apply`] does so for some objects, and [`compare`] for all.

mod app_tables;
mod apply;
mod compare;
mod comparison;
mod counts;
mod departures;
mod dry_run;
mod error;
mod excluded;
mod expression;
mod facts;
mod fill;
mod identities;
mod inspection;
mod mapping;
mod plan;
mod problems;
mod records;
mod rejected_rows;
mod removals;
mod row_key;
mod scan;
mod shape;
mod state;
mod statements;
mod status;
mod trial;
mod write;

pub use app_tables::AppTables;
pub(super) use apply::{project, remove};
pub use compare::TableComparison;
pub use counts::{RowCounts, TableCounts};
pub use departures::{DepartureReason, HeldDepartures, departures_checksum, mapping_checksum};
pub use error::TableError;
pub use facts::{ColumnFacts, TableFacts};
pub use identities::TableIdentities;
pub use inspection::TableInspection;
pub(super) use mapping::mappings_from;
pub use mapping::{Expressions, RowRemoval, Source, TableKey, TableMapping};
pub use plan::{PlannedRow, RowChange, TableDifferences};
pub use problems::Problem;
pub use state::{MappingState, RunTable, RunTables};
pub use status::{TableDetails, TableState, TableStatus};
