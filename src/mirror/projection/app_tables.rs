//! What can be done with the application's tables.

use crate::mirror::{SyncState, pool::ConnectionPool};

/// The tables of the application that are kept in sync from the mirror.
#[derive(Debug, Clone)]
pub struct AppTables(pub(in crate::mirror) ConnectionPool);

impl AppTables {
    /// Whether a mapping is neither applied nor held, so that a full sync has to apply it.
    pub fn has_pending(&self, state: &SyncState) -> bool {
        self.0.mappings.iter().any(|mapping| {
            let name = mapping.table();
            let with_digest = format!("{name} {}", mapping.digest());
            !state
                .settled_tables
                .iter()
                .any(|settled| *settled == name || *settled == with_digest)
        })
    }
}
