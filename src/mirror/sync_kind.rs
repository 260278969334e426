//! What a sync examines.

/// What a sync examines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyncKind {
    /// All objects.
    Full,
    /// Recent changes, and whether objects are gone.
    Incremental,
    /// Objects that were asked for by id.
    OnDemand,
}

impl SyncKind {
    /// As in `clerk.sync_runs`.
    pub fn name(self) -> &'static str {
        match self {
            SyncKind::Full => "full",
            SyncKind::Incremental => "incremental",
            SyncKind::OnDemand => "on_demand",
        }
    }
}
