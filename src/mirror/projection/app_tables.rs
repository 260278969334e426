//! What can be done with the application's tables.

use crate::mirror::{SyncState, pool::ConnectionPool};

/// The tables of the application that are kept in sync from the mirror.
#[derive(Debug, Clone)]
pub struct AppTables(pub(in crate::mirror) ConnectionPool);

impl AppTables {
    /// Whether any table is kept in sync from the resource.
    pub fn has_any(&self) -> bool {
        self.0.own_mappings().next().is_some()
    }

    /// Whether a mapping is neither applied nor held, so that a full sync has to apply it.
    pub fn has_pending(&self, state: &SyncState) -> bool {
        self.0.own_mappings().any(|mapping| {
            let name = mapping.table();
            let with_digest = format!("{name} {}", mapping.digest());
            !state
                .settled_tables
                .iter()
                .any(|settled| *settled == name || *settled == with_digest)
        })
    }
}
