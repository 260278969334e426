//! `clerk.endpoints` and `clerk.deliveries`: how far events are delivered.
//!
//! All events up to an endpoint's position are delivered, or are *late*: rows of
//! `clerk.deliveries`, which are tried again by themselves. Of the late events of an object only
//! the first one, the *head*, has a time for its next attempt. The others wait for it, so that an
//! object's events keep their order.

mod fencing;
mod pending;
mod progress;
mod pruning;
mod redelivery;
mod registration;
mod status;

use super::pool::ConnectionPool;
use crate::resource::{RESOURCES, Resource};

pub use pending::{LateEvent, LateEvents, PendingEvent};
pub use progress::{DeliveryProgress, FailedDelivery, LastAttempt, Noted, Standing};
pub(super) use pruning::prune_deliveries;
pub use redelivery::Redelivery;
pub use registration::{RegisteredEndpoint, Registration};
pub use status::{DeadEvent, EndpointStatus};

/// The object that an event is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventObject {
    /// What kind of object it is, for example `users`.
    pub resource: String,
    /// Clerk's id.
    pub id: String,
}

/// Delivers events, and says how far that is.
#[derive(Debug, Clone)]
pub struct Deliveries(pub(super) ConnectionPool);

/// The id that stands for a `created` event that is made from an object's row.
pub const FROM_MIRROR: i64 = 0;

/// Returns a subquery with all objects of the mirror: `resource`, `id`, and the `type` of the event
/// that says that the object was created.
fn all_objects() -> String {
    let of_resource = |resource: &&Resource| {
        let Resource { name, event, table, .. } = resource;
        format!(
            "SELECT '{name}'::text AS resource, id, '{event}.created'::text AS type FROM {table} WHERE deleted_at IS NULL"
        )
    };
    let all: Vec<String> = RESOURCES.iter().map(of_resource).collect();
    format!("({})", all.join(" UNION ALL "))
}
