//! Delivery: events are sent to endpoints, the webhook handlers that people have, signed as Svix
//! signs them.

mod address;
mod attempt;
mod body;
mod client;
mod delivery;
mod destination;
mod endpoint;
mod listing;
mod message_id;
mod pause;
mod queue;
mod retry;
mod sign;
mod test_event;
mod worker;

pub(crate) use address::check_address;
pub use attempt::{Attempt, AttemptOutcome};
pub use body::body;
pub use client::{EndpointClient, HttpsUnavailable};
pub use delivery::Delivery;
pub use endpoint::{Endpoint, Start};
pub use listing::{EndpointState, ListedEndpoint, list_endpoints};
pub use message_id::event_number;
pub use sign::{InvalidSigningKey, SigningKey, signatures};
pub use test_event::TestEvent;
