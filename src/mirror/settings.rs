//! How to reach the database.

use std::collections::BTreeMap;

use super::TableMapping;
use crate::secret::Secret;

/// Environment variables by name: those of libpq, and `HOME`.
pub type Variables = BTreeMap<String, Secret>;

/// How to reach the database.
#[derive(Debug, Clone)]
pub struct MirrorSettings {
    /// `postgres://…` or libpq's `key=value` form.
    pub url: Secret,
    /// Values for what `url` leaves out.
    pub variables: Variables,
    /// Connections in the pool, from 1 to
    /// [`Mirror::MOST_CONNECTIONS`](super::Mirror::MOST_CONNECTIONS). A value outside is replaced
    /// by the nearest limit.
    pub max_connections: usize,
    /// `application_name` of the connections, if the address has none.
    pub application_name: &'static str,
    /// Tables of the application that are kept in sync from the mirror.
    pub tables: Vec<TableMapping>,
}
